"""The axes of a sweep: which keys vary, through which values, in O(1) memory for ranges."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from superpose.sweep.cells import ModelSection, TrainingSection, WorldSection
from superpose.sweep.sections import Section, sections_in, sentence

SECTIONS = {"model": ModelSection, "world": WorldSection, "training": TrainingSection}

LISTED = 100_000
"""Values of an axis that are kept as a list, at most: lists, and ranges of whole numbers."""

_FORMS = "a list [1, 2], { log = [1, 0.01], count = 30 } or { grid = [0, 1], count = 5 }"


def _fields() -> dict[str, Any]:
    """What may stand at every key that can be swept, `model.init.W` and the like included."""
    found: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        for field, hint in get_type_hints(section, include_extras=True).items():
            if field not in section.model_fields:
                continue
            found[f"{name}.{field}"] = TypeAdapter(hint)
            for inner in sections_in(hint):
                for part in inner.model_fields.keys() - {"name"}:
                    inside = get_type_hints(inner, include_extras=True)[part]
                    found.setdefault(f"{name}.{field}.{part}", TypeAdapter(inside))
    return found


FIELDS = _fields()
"""What may stand at every key that can be swept."""


@dataclass(frozen=True)
class Spaced(Sequence):
    """`count` numbers from `start` to `stop`, evenly spaced, or evenly in the logarithm.

    A value depends on its share of the way alone, so that those of a finer spacing include these.

    >>> list(Spaced(1.0, 0.01, 3, log=True))
    [1.0, 0.1, 0.01]
    """

    start: float
    stop: float
    count: int
    log: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self.count))]
        place = range(self.count)[at]
        if place in (0, self.count - 1):
            return self.stop if place else self.start
        part = place / (self.count - 1)
        if not self.log:
            return self.start * (1.0 - part) + self.stop * part
        return 10.0 ** (math.log10(self.start) * (1.0 - part) + math.log10(self.stop) * part)

    @property
    def spacing(self) -> float:
        """From one value to the next: in the axis' own unit, or in decades where `log`."""
        ends = (math.log10(each) if self.log else each for each in (self.start, self.stop))
        return abs(float.__sub__(*ends)) / max(self.count - 1, 1)

    def find(self, value: float) -> int:
        """The place of a value; ValueError where it is none of these."""
        ends = [self.start, self.stop, value]
        a, b, v = map(math.log10, ends) if self.log and min(ends) > 0 else ends
        place = round((v - a) / (b - a) * (self.count - 1)) if a != b else 0
        if 0 <= place < self.count and math.isclose(self[place], value, rel_tol=1e-9):
            return place
        raise ValueError


@dataclass(frozen=True)
class Axis:
    """Keys that vary together: the values of each, and what the file said of each."""

    keys: tuple[str, ...]
    series: tuple[Sequence[Any], ...]
    written: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.series[0])

    def at(self, place: int) -> dict[str, Any]:
        """The values at a place by key."""
        return {key: one[place] for key, one in zip(self.keys, self.series, strict=True)}

    @property
    def outer(self) -> bool:
        """Whether the model or the recipe varies, and so the block."""
        return any(not key.startswith("world.") for key in self.keys)

    def finer(self, halvings: int) -> "Axis":
        """The axis of one range with its spacing halved so many times."""
        if not halvings:
            return self
        (range_,) = self.series
        count = (len(range_) - 1) * 2**halvings + 1
        return replace(self, series=(replace(range_, count=count),))  # pyright: ignore

    def places(self, wanted: Mapping[str, Any]) -> Sequence[int]:
        """Where the keys that are wanted have these values; everywhere, where none is.

        Raises ValueError for a value that is not on the axis.
        """
        found: Sequence[int] = range(len(self))
        for key, one in zip(self.keys, self.series, strict=True):
            if key in wanted:
                here, before = _find(key, one, wanted[key]), found
                before = before if isinstance(before, range) else set(before)
                found = [place for place in here if place in before]
        return found

    @cached_property
    def kinds(self) -> tuple[type, ...]:
        """One kind of plain value for each key, in tables: bool, int, float or str."""
        return tuple(_kind(one) for one in self.series)

    def plain(self, place: int) -> list[bool | int | float | str]:
        """The values at a place as tables have them: lists and tables as their JSON text."""
        each = zip(self.keys, self.series, self.kinds, strict=True)
        return [_plain(key, one[place], kind) for key, one, kind in each]


def _find(key: str, series: Sequence[Any], value: Any) -> list[int]:
    if isinstance(series, Spaced):
        try:
            here = [series.find(float(value))]
        except (TypeError, ValueError, OverflowError):
            here = []
    else:
        meant = _meant_by(key, value)
        here = [place for place, each in enumerate(series) if _same(each, meant)]
        if not here and isinstance(value, str) and (kind := _kind(series)) is str:
            texts = (_plain(key, each, kind) for each in series)
            here = [place for place, text in enumerate(texts) if text == value]
    if not here:
        first, last = (_shown(key, series[place]) for place in (0, -1))
        raise ValueError(
            f'{jsonable(value)!r} is not on the axis "{key}", which has {len(series)} values '
            f"from {first!r} to {last!r}"
        )
    return here


def _meant_by(key: str, value: Any) -> Any:
    """A value as it is on the axis, where it is written as in a file."""
    try:
        return FIELDS[key].validate_python(value)
    except ValidationError:
        return value


def _same(here: Any, value: Any) -> bool:
    if _is_number(here) and _is_number(value):
        return math.isclose(here, value, rel_tol=1e-9)
    return jsonable(here) == jsonable(value)


def _kind(series: Sequence[Any]) -> type:
    if isinstance(series, Spaced):
        return float
    kinds = {type(value) for value in series}
    if kinds <= {int, float}:
        return float if float in kinds else int
    return kinds.pop() if kinds in ({bool}, {str}) else str


def _plain(key: str, value: Any, kind: type) -> Any:
    shown = _shown(key, value)
    if kind is not str or isinstance(shown, str):
        return kind(shown)
    return json.dumps(shown, sort_keys=True)


def _shown(key: str, value: Any) -> Any:
    """A value as plain JSON values, and no stop as the file has it."""
    return "never" if key == "training.stop" and value is None else jsonable(value)


def jsonable(value: Any) -> Any:
    """A value of an axis as plain JSON values."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    return [jsonable(each) for each in value] if isinstance(value, tuple | list) else value


def blocks(axes: Iterable[Axis]) -> int:
    """The settings of model and training that axes have between them."""
    return math.prod(len(axis) for axis in axes if axis.outer)


def products(places: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """As itertools.product, which would keep every range as a list."""
    if not places:
        yield ()
        return
    for first in places[0]:
        for rest in products(places[1:]):
            yield (first, *rest)


def parse_axes(given: Any) -> tuple[Axis, ...]:
    """The axes of `[axes]`, in the order written.

    `given` is a table of keys, or a list of such tables, one an axis (the keys of one are
    zipped). Raises ValueError naming the key, with a suggestion where it looks misspelt.
    """
    if isinstance(given, Mapping):
        alone = {key: value for key, value in given.items() if key != "zipped"}
        zipped = given.get("zipped", [])
        if not isinstance(zipped, Sequence) or isinstance(zipped, str):
            raise ValueError("zipped: keys that move together are tables, [[axes.zipped]]")
        tables = [{key: value} for key, value in _flat(alone).items()]
        tables += [_flat(_table(each)) for each in zipped]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        if all(isinstance(each, Axis) for each in given):
            return tuple(given)
        tables = [_flat(_table(each)) for each in given]
    else:
        raise ValueError(f'{given!r}: axes are a table, such as "world.p" = [0.1, 0.01]')
    axes = tuple(_axis(table) for table in tables)
    _check_keys([key for axis in axes for key in axis.keys])
    return axes


def dump_axes(axes: Iterable[Axis]) -> list[dict[str, Any]]:
    """The axes as plain JSON values, which `parse_axes` takes: a list, for their order counts."""
    return [dict(zip(axis.keys, axis.written, strict=True)) for axis in axes]


def _table(each: Any) -> Mapping[str, Any]:
    if not isinstance(each, Mapping) or not each:
        raise ValueError(f"{each!r}: an axis is a table of keys with their values")
    return each


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Keys with dots; TOML reads world.p without quotation marks as a table in a table."""
    found = {}
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value and not value.keys() & {"log", "grid", "count"}:
            found |= _flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _check_keys(keys: list[str]) -> None:
    for place, key in enumerate(keys):
        for other in keys[:place]:
            if key == other:
                raise ValueError(f'"{key}" is swept twice: each key may stand once')
            if key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise ValueError(f'"{other}" and "{key}" overlap: sweep one of them')


def _axis(table: Mapping[str, Any]) -> Axis:
    for key in table:
        if key == "world.n":
            raise ValueError('"world.n": a world has the features of its model; sweep "model.n"')
        if key not in FIELDS:
            raise ValueError(f"unknown key {key!r}; {_meant(key)}")
    # In one order, so that files that differ in the order of zipped keys plan the same.
    keys = sorted(table, key=list(FIELDS).index)
    series = tuple(_series(key, table[key]) for key in keys)
    lengths = {key: len(one) for key, one in zip(keys, series, strict=True)}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f'"{key}" has {length}' for key, length in lengths.items())
        raise ValueError(f"zipped keys move together, but {said} values; make them equal")
    _check_repeats(keys, series)
    written = tuple(_written(table[key], one) for key, one in zip(keys, series, strict=True))
    return Axis(tuple(keys), series, written)


def _written(given: Any, series: Sequence[Any]) -> Any:
    """What the file said of a key, in one form."""
    if not isinstance(given, Mapping):
        return [jsonable(value) for value in series]
    return {key: list(map(float, v)) if key != "count" else v for key, v in given.items()}


def _series(key: str, given: Any) -> Sequence[Any]:
    if isinstance(given, Mapping):
        values = _range(key, given)
    elif isinstance(given, list | tuple):
        values = given
    else:
        raise ValueError(f'"{key}" = {given!r}: an axis is {_FORMS}')
    if not len(values):
        raise ValueError(f'"{key}" has no values; give at least one')
    if isinstance(values, Spaced):
        for place in {0, len(values) - 1}:
            _coerced(key, values, place)
        return values
    if len(values) > LISTED:
        raise ValueError(f'"{key}" has {len(values)} values; a list has at most {LISTED}')
    return tuple(_coerced(key, values, place) for place in range(len(values)))


def _check_repeats(keys: Sequence[str], series: Sequence[Sequence[Any]]) -> None:
    if all(isinstance(one, Spaced) for one in series):
        return
    seen = set()
    for values in zip(*series, strict=True):
        text = ", ".join(json.dumps(jsonable(value), sort_keys=True) for value in values)
        if text in seen:
            named = ", ".join(f'"{key}"' for key in keys)
            raise ValueError(f"{named} repeats {text}: each may stand once")
        seen.add(text)


def _range(key: str, given: Mapping[str, Any]) -> Sequence[Any]:
    """The values of { log = [a, b], count = k } or { grid = [a, b], count = k }."""
    form = "log" if "log" in given else "grid"
    if given.keys() != {form, "count"}:
        raise ValueError(f'"{key}" = {dict(given)!r}: an axis is {_FORMS}')
    ends, count = given[form], given["count"]
    if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(map(_is_number, ends)):
        raise ValueError(f'"{key}" = {dict(given)!r}: {form} has two numbers, the first and last')
    if type(count) is not int or not 1 <= count < 2**53:
        raise ValueError(f'"{key}": count = {count!r} is a whole number of at least 1')
    _check_ends(key, form, ends, count)
    spaced = Spaced(float(ends[0]), float(ends[1]), count, form == "log")
    if not _is_whole(key):
        return spaced
    if count > LISTED:
        raise ValueError(
            f'"{key}": count = {count}; a range of whole numbers has at most {LISTED} values'
        )
    return [round(value) for value in spaced]


def _check_ends(key: str, form: str, ends: Sequence[float], count: int) -> None:
    if form == "log" and min(ends) <= 0:
        raise ValueError(f'"{key}": log = {list(ends)!r} has ends above 0; take grid or a list')
    if count > 1 and ends[0] == ends[1]:
        raise ValueError(f'"{key}": {form} = {list(ends)!r} repeats {ends[0]!r}; the ends differ')


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(key: str) -> bool:
    """Whether a key holds whole numbers, to which values of a range are rounded."""
    try:
        FIELDS[key].validate_python(0.5)
    except ValidationError:
        return True
    return False


def _coerced(key: str, values: Sequence[Any], place: int) -> Any:
    try:
        return FIELDS[key].validate_python(values[place])
    except ValidationError as error:
        section, field, *part = key.split(".")
        inner = [] if part else sections_in(SECTIONS[section].model_fields[field].annotation)
        raise ValueError(sentence(error, *inner, at=f'"{key}"[{place}]')) from None


def _meant(key: str) -> str:
    """Which key was meant, by its end or its letters."""
    same = [known for known in FIELDS if known.rpartition(".")[2] == key.rpartition(".")[2]]
    close = same or get_close_matches(key, list(FIELDS), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "fields of the model, the world and the training are swept, such as 'world.p'"
