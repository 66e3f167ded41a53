"""The plan of a sweep: a pure function from the number of a model to what it is.

Nothing is listed: a plan of a thousand million models takes the memory of its settings of model
and training (its blocks).
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby, product
from math import prod
from typing import Any, NamedTuple

from superpose.engine import Training
from superpose.features import Features
from superpose.models import ToyModel
from superpose.sweep.axes import Axis, Spaced, blocks, products
from superpose.sweep.configuration import SweepConfiguration, parse
from superpose.sweep.sections import shortened, suggestion

# Columns that every table of models has; an axis of that name takes its whole key. Not "p",
# which along an axis is what the file says it is.
_TAKEN = {
    "index", "cell", "run", "world", "seed", "loss", "loss_se", "capacity", "dims_per_feature",
    "represented", "polysemanticity", "steps", "diverged",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting of all axes: its number, the values of the axes by key, and what is trained."""

    number: int
    values: Mapping[str, Any]
    model: ToyModel
    world: Features
    training: Training


@dataclass(frozen=True, slots=True)
class Shard:
    """What is trained and written as one: the `runs` of each of the `cells`, all of one block."""

    number: int
    cells: Sequence[int]
    runs: range

    @property
    def models(self) -> int:
        """How many models it has."""
        return len(self.cells) * len(self.runs)


class _Part(NamedTuple):
    """Cells of one block, as consecutive shards of which `first` is the first."""

    first: int
    cells: Sequence[int]
    size: int


@dataclass(frozen=True)
class Plan:
    """The models of a sweep, `seeds` of them in every cell, and the shards they are cut into.

    `sizes` are the models that a shard of each block has at most (one cell, at least, in full
    runs or a range of its runs). With refinement the plan is that of the fine grid, of which
    only the cells of the `rounds` are trained, the coarse ones first; their shards are numbered
    round by round, so that a new round leaves the numbers of the earlier ones as they are.
    Raises ValueError where the sizes do not fit, or rounds hold what is no cell or repeat one.

    >>> from superpose.sweep.configuration import parse
    >>> plan = Plan(parse({
    ...     "model": {"m": 2},
    ...     "axes": {"world.p": {"log": [1.0, 0.01], "count": 3}, "model.n": [5, 20]},
    ...     "seeds": 4,
    ... }), sizes=(8, 8))
    >>> plan.models, plan.cells, plan.shards
    (24, 6, 4)
    >>> cell, run = plan.at(22)
    >>> cell.values, run
    ({'model.n': 20, 'world.p': 0.01}, 2)
    >>> plan.shard(3)
    Shard(number=3, cells=range(4, 6), runs=range(0, 4))
    """

    configuration: SweepConfiguration
    sizes: tuple[int, ...]
    rounds: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        sizes = tuple(self.sizes)
        if len(sizes) != self.blocks or not all(isinstance(s, int) and s >= 1 for s in sizes):
            raise ValueError(
                f"Plan(sizes={shortened(sizes)}): a size of at least 1 for each of the "
                f"{self.blocks} blocks"
            )
        object.__setattr__(self, "sizes", sizes)
        if self.configuration.refine is None:
            if self.rounds is not None:
                raise ValueError("Plan(rounds=…): a sweep without refinement has no rounds")
            return
        rounds = (self.coarse(),) if self.rounds is None else self.rounds
        chosen = [cell for each in rounds for cell in each]
        sound = all(type(cell) is int and 0 <= cell < self.grid for cell in chosen)
        if not sound or len(set(chosen)) < len(chosen):
            raise ValueError("Plan(rounds=…): each holds cells of the plan, and each cell once")
        object.__setattr__(self, "rounds", tuple(tuple(sorted(each)) for each in rounds))

    # Axes

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The axes, slowest first; of a refined axis the fine points."""
        return self.configuration.fine_axes

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The cells along every axis; cells are numbered with the last axis fastest."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def grid(self) -> int:
        """The cells of the whole grid, trained or not."""
        return prod(self.shape)

    @property
    def blocks(self) -> int:
        """Settings of model and training."""
        return blocks(self.axes)

    @property
    def block_cells(self) -> int:
        """The cells of the whole grid in every block."""
        return self.grid // self.blocks

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the keys of the axes in tables: the last part where that is unique."""
        keys = self._keys
        short = [key.rpartition(".")[2] for key in keys]
        return tuple(
            name if short.count(name) == 1 and name not in _TAKEN else key.replace(".", "_")
            for key, name in zip(keys, short, strict=True)
        )

    @property
    def _keys(self) -> list[str]:
        return [key for axis in self.axes for key in axis.keys]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The column of each axis; of keys that are zipped, that of the first."""
        starts = accumulate((len(axis.keys) for axis in self.axes), initial=0)
        return tuple(self.columns[start] for start, _ in zip(starts, self.axes, strict=False))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """How many fine points lie from one coarse point to the next; 0 where not refined."""
        refine = self.configuration.refine
        refined = refine.axes if refine else ()
        coarse = {axis.keys[0]: axis for axis in self.configuration.axes}
        return tuple(
            2 ** self.configuration.halvings(coarse[axis.keys[0]]) if axis.keys[0] in refined else 0
            for axis in self.axes
        )

    @property
    def logarithmic(self) -> tuple[bool, ...]:
        """Which axes are ranges that are evenly spaced in the logarithm."""
        firsts = (axis.series[0] for axis in self.axes)
        return tuple(isinstance(one, Spaced) and one.log for one in firsts)

    def values(self, axis: int) -> Sequence[Any]:
        """The values along an axis; of keys that are zipped, those of the first."""
        return self.axes[axis].series[0]

    def coordinates(self, cell: int) -> tuple[int, ...]:
        """The place of a cell along every axis; `cell_at` is the inverse."""
        self._check("cell", cell, self.grid)
        places = []
        for length in reversed(self.shape):
            cell, place = divmod(cell, length)
            places.append(place)
        return tuple(reversed(places))

    def cell_at(self, coordinates: Sequence[int]) -> int:
        """The number of the cell at these places along the axes."""
        if len(coordinates) != len(self.shape):
            raise ValueError(
                f"cell_at({coordinates}): one place for each of {len(self.shape)} axes"
            )
        cell = 0
        for place, length in zip(coordinates, self.shape, strict=True):
            self._check("place", place, length)
            cell = cell * length + int(place)
        return cell

    def coarse(self) -> tuple[int, ...]:
        """The cells that refinement begins with: the coarse points of refined axes."""
        places = (range(0, n, step or 1) for n, step in zip(self.shape, self.steps, strict=True))
        return tuple(self.cell_at(each) for each in product(*places))

    # Cells and models

    @cached_property
    def cells(self) -> int:
        """The cells that are trained; with refinement, those chosen so far."""
        return self.grid if self.rounds is None else sum(map(len, self.rounds))

    @property
    def models(self) -> int:
        """The models that are trained; with refinement, those chosen so far."""
        return self.cells * self.configuration.seeds

    def cell(self, number: int) -> Cell:
        """What the cell of a number is; IndexError where the plan has none."""
        values = self.values_of(number)
        block = number // self.block_cells
        known = self._known.get(block)
        if known is None:
            known = self.configuration.block(values)
            self._known.clear()
            self._known[block] = known
        model, training = known
        world = self.configuration.world_of(model, values)
        return Cell(number, values, model, world, training)

    def at(self, index: int) -> tuple[Cell, int]:
        """The cell and the run number of a model; index = cell * seeds + run."""
        self._check("index", index, self.grid * self.configuration.seeds)
        number, run = divmod(index, self.configuration.seeds)
        return self.cell(number), run

    def row(self, cell: int) -> dict[str, bool | int | float | str]:
        """The values of a cell under the names of `columns`, of one type a column.

        Lists and tables are their JSON text.
        """
        places = self.coordinates(cell)
        plain = [v for axis, at in zip(self.axes, places, strict=True) for v in axis.plain(at)]
        return dict(zip(self.columns, plain, strict=True))

    @cached_property
    def _known(self) -> dict[int, tuple[ToyModel, Training]]:
        """The block that was asked for last, as cells come by block."""
        return {}

    def values_of(self, cell: int) -> dict[str, Any]:
        """The values of the axes of a cell, by key."""
        values: dict[str, Any] = {}
        for axis, place in zip(self.axes, self.coordinates(cell), strict=True):
            values |= axis.at(place)
        return values

    def cells_where(self, **values: Any) -> Iterator[int]:
        """The numbers of the cells with these values, by column, in increasing order.

        Raises ValueError for a column that is no axis and a value that is not on it.
        """
        unknown = sorted(values.keys() - set(self.columns))
        if unknown:
            said = suggestion(unknown[0], list(self.columns))
            raise ValueError(f"cells_where({unknown[0]}=…): {said}")
        keys = dict(zip(self.columns, self._keys, strict=True))
        wanted = {keys[name]: value for name, value in values.items()}
        places = [axis.places(wanted) for axis in self.axes]
        if self.rounds is None or prod(map(len, places)) <= self.cells:
            cells = (self.cell_at(each) for each in products(places))
            return (cell for cell in cells if self.rounds is None or cell in self._chosen)
        # Far fewer cells are chosen than the fine grid has.
        within = [each if isinstance(each, range) else set(each) for each in places]
        found = ((cell, self.coordinates(cell)) for cell in sorted(self._chosen))
        return (cell for cell, at in found if all(a in w for a, w in zip(at, within, strict=True)))

    @cached_property
    def _chosen(self) -> dict[int, int]:
        """The place of each chosen cell among all, in the order of the rounds."""
        every = (cell for each in self.rounds or () for cell in each)
        return {cell: place for place, cell in enumerate(every)}

    # Shards

    @cached_property
    def shards(self) -> int:
        """The shards that the models are cut into."""
        last = self._part(len(self._firsts) - 1)
        return last.first + self._shards_in(len(last.cells), last.size)

    def shard(self, number: int) -> Shard:
        """What a shard holds; IndexError where the plan has none."""
        self._check("shard", number, self.shards)
        part = self._part(bisect_right(self._firsts, number) - 1)
        at, seeds = number - part.first, self.configuration.seeds
        if part.size < seeds:
            pieces = -(-seeds // part.size)
            cell, piece = divmod(at, pieces)
            return Shard(number, part.cells[cell : cell + 1], _piece(seeds, pieces, piece))
        pieces = -(-len(part.cells) // (part.size // seeds))
        cells = _piece(len(part.cells), pieces, at)
        return Shard(number, part.cells[cells.start : cells.stop], range(seeds))

    def shards_of(self, cell: int) -> range:
        """The shards that hold models of a cell; none where refinement has not chosen it."""
        self._check("cell", cell, self.grid)
        if self.rounds is not None and cell not in self._chosen:
            return range(0)
        part = self._part(self._part_of(cell))
        place, seeds = part.cells.index(cell), self.configuration.seeds
        if part.size < seeds:
            pieces = -(-seeds // part.size)
            return range(part.first + place * pieces, part.first + (place + 1) * pieces)
        pieces = -(-len(part.cells) // (part.size // seeds))
        # The piece whose range holds the place, as `_piece` cuts.
        shard = part.first + ((place + 1) * pieces - 1) // len(part.cells)
        return range(shard, shard + 1)

    def with_rounds(self, rounds: Sequence[Sequence[int]]) -> "Plan":
        """This plan with these rounds of refinement, the coarse one first."""
        return replace(self, rounds=tuple(tuple(each) for each in rounds))

    def _shards_in(self, cells: int, size: int) -> int:
        seeds = self.configuration.seeds
        return cells * -(-seeds // size) if size < seeds else -(-cells // (size // seeds))

    @cached_property
    def _groups(self) -> list[tuple[int, tuple[int, ...]]] | None:
        """With refinement: the chosen cells of a block in a round, in order, and the block."""
        if self.rounds is None:
            return None
        width = self.block_cells
        return [
            (block, tuple(cells))
            for each in self.rounds
            for block, cells in groupby(each, lambda cell: cell // width)
        ]

    @cached_property
    def _firsts(self) -> list[int]:
        """The first shard of every part."""
        if self._groups is None:
            counts = (self._shards_in(self.block_cells, size) for size in self.sizes)
        else:
            counts = (self._shards_in(len(c), self.sizes[b]) for b, c in self._groups)
        return list(accumulate(counts, initial=0))[:-1]

    def _part(self, number: int) -> _Part:
        if self._groups is None:
            width = self.block_cells
            cells: Sequence[int] = range(number * width, (number + 1) * width)
            return _Part(self._firsts[number], cells, self.sizes[number])
        block, cells = self._groups[number]
        return _Part(self._firsts[number], cells, self.sizes[block])

    @cached_property
    def _part_of_chosen(self) -> list[int]:
        """Where each part begins among the chosen cells."""
        return list(accumulate((len(cells) for _, cells in self._groups or ()), initial=0))

    def _part_of(self, cell: int) -> int:
        if self._groups is None:
            return cell // self.block_cells
        return bisect_right(self._part_of_chosen, self._chosen[cell]) - 1

    def _check(self, name: str, number: int, count: int) -> None:
        if not 0 <= number < count:
            raise IndexError(f"{name} {number}: this plan has {count}, numbered from 0")

    # Files

    def describe(self) -> dict[str, Any]:
        """The plan as plain JSON values; `from_description` is the inverse."""
        plain = {
            "configuration": self.configuration.model_dump(mode="json"),
            "sizes": list(self.sizes),
        }
        return plain if self.rounds is None else plain | {"rounds": [list(r) for r in self.rounds]}

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "Plan":
        """The plan that `describe` described; ConfigurationError where it is none."""
        rounds = described.get("rounds")
        return cls(
            parse(described["configuration"]),
            tuple(described["sizes"]),
            None if rounds is None else tuple(tuple(each) for each in rounds),
        )


def _piece(count: int, pieces: int, number: int) -> range:
    """One of `pieces` ranges of nearly equal length that make up range(count)."""
    return range(number * count // pieces, (number + 1) * count // pieces)
