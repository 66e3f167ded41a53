"""The configuration of the main job: TOML, checked before anything is computed."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from superpose.sweep.configuration import SweepConfiguration, parse
from superpose.sweep.sections import ConfigurationError, Section, read_toml, sentence

# Strict: `true` and 1e3 are no counts. A draw has 32 bits, and so has a seed.
Count = Annotated[int, Field(strict=True, ge=1)]
Thousands = Annotated[int, Field(strict=True, ge=1_000)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Probability = Annotated[float, Field(ge=2**-32, le=1)]
Sparsity = Annotated[float, Field(ge=1, le=2**32)]

_TRAINING = ("steps", "batch", "lr", "weight_decay", "schedule")


class LogRange(Section):
    """`count` densities from `start` to `stop`, log-spaced."""

    start: Probability
    stop: Probability
    count: Count


class SweepSection(Section):
    """A sweep of toy models over density: `densities` p, or `sparsities` 1/p."""

    n: Count
    m: Count
    importance: Annotated[float, Field(gt=0)] | tuple[float, ...] = 1.0
    densities: LogRange | Annotated[tuple[Probability, ...], Field(min_length=1)] | None = None
    sparsities: Annotated[tuple[Sparsity, ...], Field(min_length=1)] | None = None
    runs: Count = 8
    steps: Count = 10_000
    batch: Count = 1024
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "linear", "cosine"] = "constant"

    @model_validator(mode="after")
    def _one_axis(self) -> "SweepSection":
        if (self.densities is None) == (self.sparsities is None):
            raise ValueError("give either densities (p) or sparsities (1/p)")
        axis = self._axis()
        for place, p in enumerate(axis):
            if p in axis[:place]:
                key = "densities" if self.sparsities is None else "sparsities"
                value = p if self.sparsities is None else self.sparsities[place]
                raise ValueError(f"{key} repeats {value:g}: each may stand once")
        return self

    def _axis(self) -> list[float]:
        if isinstance(self.densities, LogRange):
            ends = self.densities
            return np.geomspace(ends.start, ends.stop, ends.count).tolist()
        return np.asarray(self.densities or 1.0 / np.asarray(self.sparsities)).tolist()

    def sweep(self, seed: int) -> SweepConfiguration:
        """The plan of it, from dense to sparse worlds, written world by world.

        Raises ConfigurationError where its values do not suit each other.
        """
        return parse(
            {
                "seed": seed,
                "seeds": self.runs,
                "model": {"n": self.n, "m": self.m},
                "world": {"importance": self.importance},
                "training": {name: getattr(self, name) for name in _TRAINING},
                "axes": {"world.p": sorted(self._axis(), reverse=True)},
                "shards": {"models": self.runs},
            }
        )


class UnmixSection(Section):
    """Sparse autoencoders on the hidden activations of chosen models."""

    samples: Count = 300_000
    activations: Thousands = 100_000
    scored: Thousands = 20_000
    seeds: Count = 3
    widening: Count = 2
    l1: Annotated[float, Field(gt=0)] = 0.4


class NetworkSection(Section):
    """A network trained on handwritten digits, and the autoencoders on its hidden layer."""

    hidden: Count = 32
    samples: Count = 100_000
    seeds: Count = 3


class Configuration(Section):
    """Everything that determines the results of the main job."""

    seed: Seed = 0
    pack: SweepSection
    uniform: SweepSection
    unmix: UnmixSection
    network: NetworkSection


def default_text() -> str:
    """The embedded default configuration, as TOML with comments."""
    return files("superpose.experiments").joinpath("default.toml").read_text("utf-8")


def read(path: str | Path | None = None) -> Configuration:
    """Read and check a configuration file; sections and keys left out keep their defaults.

    Raises ConfigurationError naming the key, with a suggestion where it looks misspelt.
    """
    default = tomllib.loads(default_text())
    if path is None:
        return _checked(default, "the default configuration")
    return _checked(_merged(default, read_toml(path)), str(path))


def read_with_seed(path: str | Path | None, seed: int | None) -> tuple[Configuration, str]:
    """The configuration with `seed` in place of its own, and its text for the record.

    Raises ConfigurationError where the seed cannot be replaced in the text.
    """
    configuration = read(path)
    text = default_text() if path is None else Path(path).read_text("utf-8")
    if seed is None or seed == configuration.seed:
        return configuration, text
    wanted = _checked(configuration.model_dump() | {"seed": seed}, "--seed")
    # The seed is a key of the top level, so it may only stand before the first section.
    section = re.search(r"(?m)^[ \t]*\[", text)
    end = section.start() if section else len(text)
    kept = re.sub(r"(?m)^[ \t]*([\"']?)seed\1[ \t]*=.*$", "", text[:end], count=1) + text[end:]
    edited = f"seed = {seed}\n{kept}"
    try:
        same = _checked(_merged(tomllib.loads(default_text()), tomllib.loads(edited)), "") == wanted
    except ValueError:
        same = False
    if not same:
        raise ConfigurationError(
            f"--seed {seed}: cannot replace the seed in {path}; set seed = {seed} in the file"
        )
    return wanted, edited


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(default)
    for key, value in given.items():
        section = merged.get(key)
        if isinstance(section, dict) and isinstance(value, dict):
            section = dict(section)
            if {"densities", "sparsities"} & value.keys():
                section.pop("densities", None)
                section.pop("sparsities", None)
            merged[key] = section | value
        else:
            merged[key] = value
    return merged


def _checked(values: dict[str, Any], source: str) -> Configuration:
    try:
        configuration = Configuration.model_validate(values)
        # What the types cannot say (lengths, sizes) the objects themselves check.
        for section in (configuration.pack, configuration.uniform):
            section.sweep(configuration.seed)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {sentence(error, Configuration)}") from None
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from None
    return configuration
