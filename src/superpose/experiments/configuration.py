"""The configuration of the main job: TOML, checked before anything is computed."""

import re
import tomllib
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from superpose.engine import Training
from superpose.features import Features
from superpose.models import ToyModel

# Strict: `true` and 1e3 are no counts. A draw has 32 bits, and so has a seed.
Count = Annotated[int, Field(strict=True, ge=1)]
Thousands = Annotated[int, Field(strict=True, ge=1_000)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Probability = Annotated[float, Field(ge=2**-32, le=1)]
Sparsity = Annotated[float, Field(ge=1, le=2**32)]


class ConfigurationError(ValueError):
    """One sentence for the user: which key, which value, which law, what to do."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LogRange(_Section):
    """`count` densities from `start` to `stop`, log-spaced."""

    start: Probability
    stop: Probability
    count: Count


class SweepSection(_Section):
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

    @property
    def worlds(self) -> list[Features]:
        """The worlds of the sweep, from dense to sparse."""
        return [
            Features(n=self.n, p=p, importance=self.importance)
            for p in sorted(self._axis(), reverse=True)
        ]

    @property
    def model(self) -> ToyModel:
        """The model to train."""
        return ToyModel(n=self.n, m=self.m)

    @property
    def training(self) -> Training:
        """How to train it."""
        return Training(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
        )


class UnmixSection(_Section):
    """Sparse autoencoders on the hidden activations of chosen models."""

    samples: Count = 300_000
    activations: Thousands = 100_000
    scored: Thousands = 20_000
    seeds: Count = 3
    widening: Count = 2
    l1: Annotated[float, Field(gt=0)] = 0.4


class NetworkSection(_Section):
    """A network trained on handwritten digits, and the autoencoders on its hidden layer."""

    hidden: Count = 32
    samples: Count = 100_000
    seeds: Count = 3


class Configuration(_Section):
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
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; give the path of a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None
    return _checked(_merged(default, given), str(path))


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
            _ = section.worlds, section.model, section.training
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {_sentence(error)}") from None
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from None
    return configuration


def _sentence(error: ValidationError) -> str:
    # Where a value may have several forms, the form it came closest to has the longest path.
    first = max(error.errors(), key=lambda one: len(one["loc"]))
    path = [str(part) for part in first["loc"]]
    if first["type"] != "extra_forbidden":
        key = ".".join(part for part in path if _is_key(part))
        if first["type"] == "value_error":
            return f"{key}: {first['msg'].removeprefix('Value error, ')}"
        return f"{key} = {first['input']!r}: {first['msg']}"
    known = list(_section(path).model_fields)
    close = get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return f"unknown key {'.'.join(path)!r}; {hint}"


def _is_key(part: str) -> bool:
    # Pydantic also puts the names of types into the path.
    return part.isdigit() or (part.isidentifier() and part.islower())


def _section(path: list[str]) -> type[BaseModel]:
    section: Any = Configuration
    for part in path[:-1]:
        field = section.model_fields.get(part)
        if field is None:
            break
        inner = field.annotation
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            break
        section = inner
    return section
