"""The configuration of a sweep: TOML or plain values, checked before anything is computed."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import ceil, log2, prod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from superpose.engine import Training
from superpose.features import Features
from superpose.models import ToyModel
from superpose.sweep.axes import Axis, Spaced, dump_axes, jsonable, parse_axes
from superpose.sweep.cells import ModelSection, PlateauSection, TrainingSection, WorldSection
from superpose.sweep.schema import axes_schema
from superpose.sweep.sections import (
    ConfigurationError,
    Section,
    read_toml,
    sentence,
    shortened,
    suggestion,
)

__all__ = [
    "ConfigurationError",
    "KeepSection",
    "RefineSection",
    "Section",
    "ShardsSection",
    "SweepConfiguration",
    "json_schema",
    "parse",
    "read",
    "sentence",
]

_T = TypeVar("_T")

Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Positive = Annotated[float, Field(strict=True, gt=0)]

BLOCKS = 100_000
"""Settings of model and training in a plan, at most: the memory of a plan follows them."""

MODELS = 2**62
"""Models of a plan, below which an index has room in 64 bits."""

HALVINGS = 32
"""How often refinement halves the spacing of an axis, at most."""

CHOSEN = 1_000_000
"""Cells that refinement begins with, at most: it keeps a list of the cells that it has chosen."""

MEASURES = {
    "represented": False,
    "steps": False,
    "diverged": False,
    "loss": True,
    "loss_se": True,
    "capacity": True,
    "dims_per_feature": True,
    "polysemanticity": True,
}
"""The columns of a table of models that refinement can follow, and whether they need a level."""

# Combinations of values that are tried for what only they can get wrong, at most.
_TRIED = 200_000

# Keys whose values have to suit each other; of the others any value suits any.
_TOGETHER = (
    ("model.n", "world.law", "world.law.size", "world.p", "world.importance"),
    (
        "training.steps",
        "training.warmup",
        "training.snapshots",
        "training.schedule",
        "training.final",
    ),
)


class KeepSection(Section):
    """Whose weights and snapshots are kept; any model can be trained again from its index."""

    weights: Literal["all", "best", "sampled", "none"] = "all"
    runs: Count = 1

    @model_validator(mode="after")
    def _used(self) -> "KeepSection":
        if "runs" in self.model_fields_set and self.runs != 1 and self.weights != "sampled":
            raise ValueError(f'runs = {self.runs} is for weights = "sampled"; leave it out')
        return self


class ShardsSection(Section):
    """How much is trained and written as one: about `seconds` on one core, or so many models."""

    seconds: Annotated[float, Field(strict=True, ge=1, le=86_400)] = 120.0
    models: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None


class RefineSection(Section):
    """Start from the points of some axes and go on where `measure` changes between neighbours.

    `width` is that of the last bracket: in the axis' own unit, or in decades on a log axis; one
    number, or a table of one for each axis. `level` is the value whose crossing is looked for,
    for measures that are real numbers.
    """

    measure: str
    axes: Annotated[tuple[str, ...], Field(min_length=1)]
    width: Positive | dict[str, Positive]
    level: Annotated[float, Field(strict=True)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "RefineSection":
        if self.measure not in MEASURES:
            raise ValueError(f"measure = {self.measure!r}: {suggestion(self.measure, [*MEASURES])}")
        if MEASURES[self.measure] and self.level is None:
            raise ValueError(
                f"measure = {self.measure!r} is a real number: give the level whose crossing is "
                "looked for"
            )
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes = {list(self.axes)!r}: each axis may stand once")
        if isinstance(self.width, dict) and self.width.keys() != set(self.axes):
            raise ValueError(
                f"width has {sorted(self.width)}, but axes are {sorted(self.axes)}; give "
                "one number for all, or one for each"
            )
        return self

    def width_of(self, key: str) -> float:
        """The width that an axis is refined to."""
        return self.width[key] if isinstance(self.width, dict) else self.width


class SweepConfiguration(Section):
    """Everything that determines the results of a sweep.

    Equal configurations have equal plans and results. Raises ConfigurationError (by `parse` and
    `read`) for what cannot be, before anything is computed.

    >>> sweep = parse({
    ...     "model": {"n": 5, "m": 2},
    ...     "axes": {"world.p": {"log": [1.0, 0.01], "count": 3}},
    ...     "seeds": 4,
    ... })
    >>> sweep.axes[0].keys, list(sweep.axes[0].series[0])
    (('world.p',), [1.0, 0.1, 0.01])
    """

    name: str = "sweep"
    seed: Seed = 0
    seeds: Annotated[int, Field(strict=True, ge=1, lt=2**31)] = 8
    restarts: Annotated[int, Field(strict=True, ge=1, lt=2**31)] = 1
    model: ModelSection = ModelSection()
    world: WorldSection = WorldSection()
    training: TrainingSection = TrainingSection()
    axes: Annotated[
        tuple[Axis, ...],
        PlainValidator(parse_axes),
        PlainSerializer(dump_axes),
        WithJsonSchema({}),
    ] = ()
    keep: KeepSection = KeepSection()
    shards: ShardsSection = ShardsSection()
    refine: RefineSection | None = None

    @model_validator(mode="after")
    def _possible(self) -> "SweepConfiguration":
        blocks = prod(len(axis) for axis in self.axes if axis.outer)
        if blocks > BLOCKS:
            raise ValueError(
                f"axes: {blocks} settings of model and training, at most {BLOCKS} in one sweep; "
                "make several sweeps, or sweep the world"
            )
        self._check_values()
        self._check_refine()
        if (models := prod(map(len, self.fine_axes)) * self.seeds) >= MODELS:
            raise ValueError(f"axes: {models:.3g} models, at most {MODELS:.3g} in one sweep")
        return self

    @property
    def fine_axes(self) -> tuple[Axis, ...]:
        """The axes of the plan, slowest first: models and recipes, then worlds, as written.

        Refined axes have all the points that refinement may ask for.
        """
        ordered = sorted(self.axes, key=lambda axis: not axis.outer)
        return tuple(axis.finer(self.halvings(axis)) for axis in ordered)

    def halvings(self, axis: Axis) -> int:
        """How often the spacing of an axis is halved until it is at most the width asked for."""
        key = axis.keys[0]
        if self.refine is None or key not in self.refine.axes:
            return 0
        ratio = _range(axis).spacing / self.refine.width_of(key)
        # A spacing that is the width but for rounding is fine enough.
        return max(0, ceil(log2(ratio) - 1e-9))

    def cell(self, values: Mapping[str, Any]) -> tuple[ToyModel, Features, Training]:
        """What the cell with these values of the axes trains; ValueError where it cannot be."""
        model, training = self.block(values)
        return model, self.world_of(model, values), training

    def block(self, values: Mapping[str, Any]) -> tuple[ToyModel, Training]:
        """The model and the recipe of a cell."""
        model = _made("model", self.section("model", values).made)
        training = _made("training", self.section("training", values).made)
        if isinstance(training.lr, tuple) and len(training.lr) != self.seeds * self.restarts:
            raise ValueError(
                f"training.lr has {len(training.lr)} numbers for {self.seeds} seeds x "
                f"{self.restarts} restarts; give one number, or one for each of those models"
            )
        return model, training

    def world_of(self, model: ToyModel, values: Mapping[str, Any]) -> Features:
        """The world of a cell with that model."""
        section = self.section("world", values)
        return _made("world", lambda: section.made(model.n))

    def section(self, name: str, values: Mapping[str, Any]) -> Any:
        """A section of a cell: "model", "world" or "training" with the values of the axes."""
        given = {key: value for key, value in values.items() if key.startswith(f"{name}.")}
        return _with(getattr(self, name), name, given)

    def _check_values(self) -> None:
        """Try every value once, and combinations of those that have to suit each other."""
        first = [0] * len(self.axes)
        self._try(first)
        for number, axis in enumerate(self.axes):
            for place in _places(axis)[1:]:
                self._try([*first[:number], place, *first[number + 1 :]])
        for keys in _TOGETHER:
            unlike = [list(_unlike(axis, keys)) for axis in self.axes]
            if prod(map(len, unlike)) > _TRIED:
                varied = [k for axis in self.axes for k in axis.keys if k in keys]
                raise ValueError(f"axes: too many combinations of {', '.join(varied)}")
            if sum(len(each) > 1 for each in unlike) > 1:
                for places in product(*unlike):
                    self._try(list(places))

    def _try(self, places: list[int]) -> None:
        values: dict[str, Any] = {}
        for axis, place in zip(self.axes, places, strict=True):
            values |= axis.at(place)
        try:
            self.cell(values)
        except ValueError as error:
            where = ", ".join(
                f"{key} = {shortened(jsonable(value))}" for key, value in values.items()
            )
            raise ValueError(f"axes: at {where}: {error}" if where else str(error)) from None

    def _check_refine(self) -> None:
        if self.refine is None:
            return
        if prod(map(len, self.axes)) > CHOSEN:
            raise ValueError(
                f"refine: it begins with {prod(map(len, self.axes))} cells, at most {CHOSEN}; "
                "give the axes fewer values"
            )
        swept = {key: axis for axis in self.axes for key in axis.keys}
        for key in self.refine.axes:
            axis = swept.get(key)
            if axis is None:
                raise ValueError(f"refine.axes: {key!r} is not swept; {suggestion(key, [*swept])}")
            if len(axis.keys) > 1 or not isinstance(axis.series[0], Spaced) or len(axis) < 2:
                raise ValueError(
                    f'refine.axes: "{key}" has to be a range of real numbers of its own, '
                    "{ log = [a, b], count = k } or { grid = [a, b], count = k } with at least 2"
                )
            if self.halvings(axis) > HALVINGS:
                raise ValueError(
                    f"refine.width = {self.refine.width_of(key)!r} takes {self.halvings(axis)} "
                    f'halvings of "{key}"; at most {HALVINGS} are told apart'
                )
            if axis.outer:
                raise ValueError(f'refine.axes: "{key}" is no axis of the world, such as "world.p"')


def read(path: str | Path) -> SweepConfiguration:
    """Read and check a TOML file.

    Raises ConfigurationError naming the file and the key, with a suggestion where it looks
    misspelt.
    """
    return parse(read_toml(path), source=str(path))


def parse(given: Mapping[str, Any] | str, source: str = "") -> SweepConfiguration:
    """Check a configuration given as plain values or as the text of a TOML file.

    Raises ConfigurationError naming the `source` and the key.

    >>> try:
    ...     parse({"model": {"n": 5, "m": 2}, "axes": {"world.pp": [0.1]}})
    ... except ConfigurationError as error:
    ...     print(error)
    axes: unknown key 'world.pp'; did you mean 'world.p'?
    """
    before = f"{source}: " if source else ""
    try:
        values = tomllib.loads(given) if isinstance(given, str) else dict(given)
        return SweepConfiguration.model_validate(values)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{before}is not valid TOML: {error}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{before}{sentence(error, SweepConfiguration)}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors that complete and check TOML."""
    schema = SweepConfiguration.model_json_schema(mode="validation")
    schema["properties"]["axes"], named = axes_schema()
    schema["$defs"] |= named
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A sweep of superpose",
    }


def _made(name: str, make: Callable[[], _T]) -> _T:
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _with(section: Section, name: str, values: Mapping[str, Any]) -> Section:
    """A section with the values of axes, which are checked, in place of its own."""
    new: dict[str, Any] = {}
    for key, value in values.items():
        field, _, part = key.removeprefix(f"{name}.").partition(".")
        new[field] = _with_part(key, getattr(section, field), part, value) if part else value
    return section.model_copy(update=new) if new else section


def _with_part(key: str, whole: Any, part: str, value: Any) -> Section:
    """A section in a section with one value in place of its own."""
    if whole is None:
        whole = PlateauSection()
    known = list(getattr(type(whole), "model_fields", {}))
    if part not in known:
        said = f"it has {', '.join(known)}" if known else "it is no table"
        raise ValueError(f"{key.removesuffix(f'.{part}')} has no {part}; {said}")
    return whole.model_copy(update={part: value})


def _range(axis: Axis) -> Spaced:
    (one,) = axis.series
    assert isinstance(one, Spaced)
    return one


def _places(axis: Axis) -> list[int]:
    """The places of an axis to try: all of a list, the ends of a range."""
    if any(not isinstance(one, Spaced) for one in axis.series):
        return list(range(len(axis)))
    return sorted({0, len(axis) - 1})


def _unlike(axis: Axis, keys: tuple[str, ...]) -> Iterator[int]:
    """Places whose values differ in what has to suit the values of other keys."""
    seen = set()
    for place in _places(axis):
        traits = tuple(
            (key, _trait(key, value)) for key, value in axis.at(place).items() if key in keys
        )
        if traits not in seen:
            seen.add(traits)
            yield place


def _trait(key: str, value: Any) -> Any:
    if key in ("world.p", "world.importance"):
        return len(value) if isinstance(value, tuple) else value == 1.0
    return repr(value)
