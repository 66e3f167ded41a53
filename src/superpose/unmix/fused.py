"""Training on a CPU at the price of what is active: the ways of `kernels.autoencoder`.

Each equals the definition, the code's `objective`, in value and in every gradient, up to the
rounding of float32.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from superpose.kernels.autoencoder import (
    adam,
    batch,
    dense,
    encoding,
    lists,
    prices,
    reached,
    selection,
    topk,
)
from superpose.unmix.codes import L1, BatchTopK, Code, Gated, JumpReLU, Matryoshka, TopK
from superpose.unmix.optimiser import BETA_1, BETA_2, Adam
from superpose.unmix.plain import Slope
from superpose.unmix.weights import Layout, aligned

NAN = float("nan")
PENALTIES = ("abs", "sqrt", "tanh")
Array = NDArray[Any]
Entries = tuple[Array, Array, Array]


def serves(code: Code) -> bool:
    """Whether kernels know the code: exactly, not a class derived from it.

    >>> serves(TopK(d_sae=4, k=1))
    True
    """
    return type(code) in _WAYS


class Batch(NamedTuple):
    """What a step is given."""

    theta: Array
    x: Array
    target: Array
    dead: Array


class Fused:
    """The gradient of one member, float32, on one thread; memory is reused from step to step.

    Bits depend neither on threads nor on where arrays lie in memory.
    """

    def __init__(self, code: Code, layout: Layout) -> None:
        self.code, self.layout = code, layout
        sizes = [int(np.prod(shape)) for shape in layout.shapes.values()]
        self.at = tuple(int(end) for end in np.cumsum([0, *sizes]))[: len(sizes)]
        self.slope = aligned(layout.size)
        self.totals = aligned(layout.d_out)
        b_dec = self.at[3] if layout.subtract else -1
        self.encoder = encoding.encoder(layout.d_in, layout.d_sae, b_dec)
        self.way = _WAYS[type(code)]
        self.room: Any = None
        self.samples = 0

    def gradient(
        self,
        theta: Float[np.ndarray, " size"],
        x: Float[np.ndarray, "batch d_in"],
        target: Float[np.ndarray, "batch d_out"],
        dead: Bool[np.ndarray, " d_sae"],
    ) -> Slope:
        """The slope at the parameters `theta` on one batch; `dead` latents may be taught."""
        inputs = _plain(x)
        if len(x) != self.samples:
            self.samples, self.room = len(x), _ROOMS.get(type(self.code), _Reach)(self, len(x))
        self.slope[:] = 0.0
        self.totals[:] = 0.0
        shape = self.layout.d_sae, self.layout.d_in
        encoding.pack(self.encoder.panels, theta, self.at[0], self.at[2], *shape)
        given = Batch(theta, inputs, inputs if target is x else _plain(target), dead)
        return self.way(self, self.room, given)

    def finish(self, theta: Array) -> None:
        """The last of the gradient, for what has gone into `totals` and all others."""
        scale = np.float32(2.0 / self.samples)
        at = self.at[:4]
        lists.finish(self.slope, theta, at, self.totals, scale, self.layout.subtract)


class FusedAdam(Adam):
    """Adam in one pass over the parameters."""

    def step(self, gradient: Any, rate: float) -> None:
        """One step down the gradient, which is written over."""
        self.steps += 1
        size = rate / (1 - BETA_1**self.steps)
        root = (1 - BETA_2**self.steps) ** -0.5
        layout = self.layout
        decoder = layout.d_sae * layout.d_in, layout.d_sae, layout.d_out
        pace = np.float32(size), np.float32(root)
        adam.descend(self.theta, (self.mean, self.square), gradient, decoder, pace)


def _plain(array: Array) -> Array:
    """As kernels take arrays: for each other kind they would be compiled anew."""
    return np.require(array, np.float32, ["C", "W"])


class _Selection:
    """What a way works with where so many latents are kept, for one number of samples."""

    def __init__(self, fused: Fused, samples: int) -> None:
        code, layout = fused.code, fused.layout
        assert isinstance(code, TopK | BatchTopK | Matryoshka)
        self.k = code.k
        width, self.number = fused.encoder.width, samples * code.k
        length = self.number if isinstance(code, TopK) else 2 * self.number + width
        self.widths = code.widths if isinstance(code, Matryoshka) else (layout.d_sae,)
        self.error = aligned((len(self.widths), samples, layout.d_out))
        self.entries = _entries(samples, length)
        self.turned = _turned(layout.d_sae, self.number)
        self.g = aligned(self.number)
        if isinstance(code, TopK):
            self.row = selection.row_room(code.k, layout.d_sae)
        else:
            self.row = batch.row_room(width, length)
        self.guess = selection.TINY


class _Reach:
    """What a way works with where latents are on above a level, for one number of samples."""

    def __init__(self, fused: Fused, samples: int) -> None:
        code, layout, encoder = fused.code, fused.layout, fused.encoder
        gates = isinstance(code, Gated)
        if isinstance(code, L1):
            self.kind = (prices.ABS, prices.SQRT, prices.TANH)[PENALTIES.index(code.penalty)]
        else:
            self.kind = prices.GATE if gates else prices.JUMP
        self.half = np.float32(code.bandwidth / 2 if isinstance(code, JumpReLU) else 0.0)
        self.dense = dense.room(encoder, layout.d_in, layout.d_out, gates)
        length = reached.most_entries(samples, self.dense, encoder)
        self.error = aligned((samples, layout.d_out))
        self.entries = _entries(samples, length)
        self.turned = _turned(layout.d_sae, length)
        self.g = aligned(length)
        self.alone, self.magnitude = (aligned(length if gates else 0) for _ in range(2))
        self.place = np.zeros(encoder.width, np.int32)
        self.spans = np.zeros((samples, 2), np.int64)
        self.bound = np.zeros(encoder.width, np.float32)
        self.vectors = tuple(np.zeros(layout.d_sae, np.float32) for _ in range(3))
        self.sums = tuple(np.zeros(layout.d_sae, np.float32) for _ in range(3))
        self.active = np.zeros(layout.d_sae, np.int64)

    def begin(self, extras: list[Array]) -> None:
        """Take up the trained vectors of a step, and forget the last one."""
        level, gain, shift = self.vectors
        if self.kind == prices.JUMP:
            np.exp(extras[0], out=level)
            np.subtract(level, self.half, out=self.bound[: len(level)])
        elif self.kind == prices.GATE:
            np.exp(extras[0], out=gain)
            shift[:] = extras[1]
        for each in (*self.sums, self.active):
            each[:] = 0


def _top(fused: Fused, room: _Selection, given: Batch) -> Slope:
    taught = _taught(fused, given)
    kept = room.entries, room.k, room.row
    topk.select(given.x, given.theta, fused.encoder, kept, taught)
    return _selected(fused, room, given, taught, NAN)


def _shared_out(fused: Fused, room: _Selection, given: Batch) -> Slope:
    taught = _taught(fused, given)
    kept = room.entries, room.entries[2].view(np.uint32), room.number, room.row
    smallest = batch.select(given.x, given.theta, fused.encoder, kept, room.guess, taught)
    room.guess = max(batch.CLOSENESS * smallest, selection.TINY)
    return _selected(fused, room, given, taught, float(smallest))


def _selected(fused: Fused, room: _Selection, given: Batch, taught: Any, smallest: float) -> Slope:
    """The slope where every entry is a latent that is on and selected."""
    theta, samples = given.theta, len(given.x)
    widths = room.widths
    W, totals = fused.at[1], fused.totals
    places = W, fused.at[3], np.array(widths, np.int64)
    all_squared, squared = lists.nested_errors(
        room.error, given.target, room.entries, theta, places, totals
    )
    lists.turn(room.entries, room.turned)
    scale = np.float32(2.0 / samples / len(widths))
    for error, (first, last) in zip(room.error, pairwise((0, *widths)), strict=True):
        where = W, first, last, scale
        lists.meet(fused.slope, theta, room.turned, error, room.g, where)
    lists.gather(fused.slope, room.turned, given.x, room.g, fused.at[::2][:2])
    totals *= np.float32(1 / len(widths))
    loss = all_squared / samples / len(widths) + _auxiliary(fused, room, given, taught)
    fused.finish(theta)
    active, fired = int(room.entries[0][-1]), np.diff(room.turned[0]) > 0
    return Slope(loss, squared, active, fired, fused.slope, smallest)


def _taught(fused: Fused, given: Batch) -> Any:
    """What listing dead latents takes: them, a row of them, and room for lists."""
    latents = np.flatnonzero(given.dead if fused.code.auxk else given.dead[:0]).astype(np.int32)
    number = len(latents)
    k = max(1, min(fused.layout.d_out // 2, number))
    row = np.full(-(-number // encoding.WORD) * encoding.WORD, -1.0, np.float32)
    samples = len(given.x) if number else 0
    entries = _entries(samples, samples * k)
    return latents, (row, row.view(np.uint32)), (entries, k, selection.row_room(k, number))


def _auxiliary(fused: Fused, room: _Selection, given: Batch, taught: Any) -> float:
    """Add the slopes of the auxiliary term; gives the term. The errors are written over."""
    latents, _, (entries, k, _) = taught
    if len(latents) == 0:
        return 0.0
    theta, samples, d_sae = given.theta, len(given.x), fused.layout.d_sae
    error, weight = room.error[-1], fused.code.auxk
    ignored = np.zeros_like(fused.totals)
    squared = lists.errors(error, entries, theta, fused.at[1], ignored)
    turned, g = _turned(d_sae, samples * k), aligned(samples * k)
    lists.turn(entries, turned)
    where = fused.at[1], 0, d_sae, np.float32(weight * 2.0 / samples)
    lists.meet(fused.slope, theta, turned, error, g, where)
    lists.gather(fused.slope, turned, given.x, g, fused.at[::2][:2])
    return weight * squared / samples


def _reached(fused: Fused, room: _Reach, given: Batch) -> Slope:
    """The slope where a latent is on above a level of its own."""
    code, samples = fused.code, len(given.x)
    extras = [given.theta[at : at + fused.layout.d_sae] for at in fused.at[4:]]
    room.begin(extras)
    places = given.x, given.target, given.theta, fused.slope, fused.at[:4], fused.totals
    price = np.float32(getattr(code, "coefficient", 0.0) / samples)
    numbers = np.float32(2.0 / samples), price, room.half
    law = room.kind, room.vectors, numbers, room.sums, room.active
    listing = (room.vectors[0], room.bound, room.half), room.place, room.spans
    listed, squared, alone, paid = reached.select(
        places, fused.encoder, room.entries, listing, room.dense, law
    )
    spans = room.spans[:listed]
    found = (_listed_gates if room.kind == prices.GATE else _listed)(
        fused, room, given, spans, price
    )
    squared, alone, paid = squared + found[0], alone + found[1], paid + found[2]
    lists.gather(fused.slope, room.turned, given.x, room.g, fused.at[::2][:2])
    active = int(room.active.sum())
    loss = (squared + alone) / samples + float(price) * paid
    if isinstance(code, JumpReLU):
        excess = active / samples / code.l0 - 1.0
        loss += code.strength * excess**2
        weight = np.float32(2.0 * code.strength * excess / code.l0 / samples)
        by_level, _, near = room.sums
        level = room.vectors[0]
        slopes = (-level / np.float32(code.bandwidth) * (level * by_level + weight * near),)
    else:
        slopes = room.vectors[1] * room.sums[0], room.sums[1]
    for at, slope in zip(fused.at[4:], slopes, strict=False):
        fused.slope[at : at + len(slope)] = slope
    fused.finish(given.theta)
    return Slope(loss, squared, active, room.active > 0, fused.slope, NAN)


def _listed(
    fused: Fused, room: _Reach, given: Batch, spans: Array, price: np.float32
) -> tuple[float, float, float]:
    """What `reached.select` has listed: leaves g, and gives squared error, 0 and prices."""
    squared = _errors(fused, room, given, spans, room.entries[2], fused.totals)
    lists.turn(room.entries, room.turned)
    begin, _, number = room.turned
    where = fused.at[1], 0, fused.layout.d_sae, np.float32(2.0 / len(given.x))
    lists.meet(fused.slope, given.theta, room.turned, room.error, room.g, where)
    reached.count_active(begin, number, room.active)
    if room.kind == prices.JUMP:
        reached.jump(room.sums[::2], room.turned, room.g, room.vectors[0], room.half)
        return squared, 0.0, 0.0
    count = int(begin[-1])
    reached.add_prices(room.g, number, count, room.kind, price)
    return squared, 0.0, reached.prices(number, count, room.kind)


def _listed_gates(
    fused: Fused, room: _Reach, given: Batch, spans: Array, price: np.float32
) -> tuple[float, float, float]:
    """`_listed` where entries are gates: their own errors first, through W held fixed."""
    _, gain, shift = room.vectors
    alone = _errors(fused, room, given, spans, room.entries[2], np.zeros_like(fused.totals))
    lists.turn(room.entries, room.turned)
    begin, sample, gate = room.turned
    where = fused.at[1], 0, fused.layout.d_sae, np.float32(2.0 / len(given.x))
    lists.meet_fixed(given.theta, room.turned, room.error, room.alone, where)
    reached.open_lists(room.magnitude, room.entries, gain, shift)
    squared = _errors(fused, room, given, spans, room.magnitude, fused.totals)
    reached.open_gates(room.magnitude, gate, begin, gain, shift)
    opened = begin, sample, room.magnitude
    lists.meet(fused.slope, given.theta, opened, room.error, room.g, where)
    reached.count_active(begin, room.magnitude, room.active)
    slopes = room.g, room.alone
    reached.close_gates(room.sums[:2], begin, (gate, room.magnitude), slopes, gain, price)
    return squared, alone, reached.prices(gate, int(begin[-1]), prices.GATE)


def _errors(
    fused: Fused, room: _Reach, given: Batch, spans: Array, value: Array, totals: Array
) -> float:
    """Errors of the samples that have lists; gives their squared sum."""
    start, column, _ = room.entries
    squared = 0.0
    for first, last in spans.tolist():
        error, entries = room.error[first:last], (start[first : last + 1], column, value)
        lists.begin_errors(error, given.target[first:last], given.theta, fused.at[3])
        squared += lists.errors(error, entries, given.theta, fused.at[1], totals)
    return squared


def _entries(samples: int, length: int) -> Entries:
    return np.zeros(samples + 1, np.int64), np.empty(length, np.int32), aligned(length)


def _turned(d_sae: int, length: int) -> Entries:
    """Entries latent by latent."""
    return np.zeros(d_sae + 1, np.int64), np.empty(length, np.int32), aligned(length)


_ROOMS = {TopK: _Selection, BatchTopK: _Selection, Matryoshka: _Selection}
_WAYS: dict[type[Code], Callable[..., Slope]] = {
    TopK: _top,
    BatchTopK: _shared_out,
    Matryoshka: _shared_out,
    L1: _reached,
    JumpReLU: _reached,
    Gated: _reached,
}
