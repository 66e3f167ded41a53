"""What is written in LLVM's instructions earns at least 1.3 times over plain numba loops.

Each piece of `superpose.kernels` that numba's own language was not enough for, against plain loops
that do the same work on the same data: to the bit where integers decide, else to float32 rounding,
which is checked first. The plain sides, in loops.py or twins beside the kernels, are the fastest
loops we know; where there are two, the faster one counts. On one thread, the sides in turns, with
the data in several places of memory (which one matters up to 1.5 times); µs of processor time, the
least of all rounds.

    python benchmarks/instructions.py [--quick] [--table docs/engine.md]
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import loops
import numpy as np
import tables
from numba import njit
from opponents import HOME

import engine
from superpose import ToyModel, records
from superpose.kernels import cells, products, rows, small, sparse
from superpose.kernels.compiling import FASTMATH
from superpose.kernels.lanes import LANES

ASKED = 1.3


class Piece(NamedTuple):
    """One comparison. All sides take `data`, and may change it; `result` is what must agree."""

    name: str
    written: Callable
    plain: tuple[Callable, ...]
    data: tuple
    result: Callable[[tuple], np.ndarray]
    exact: bool = False


def drawing() -> Iterator[Piece]:
    """The rows of a tile, each with a key of its own, as `draws.draw_tile` draws them."""
    for count, width in ((20, 128), (2, 1024)):
        rng, tile = np.random.default_rng(0), np.zeros(count * width, np.float32)
        keys = rng.integers(2**64, size=count, dtype=np.uint64)
        on = np.full(count, 0.1 * 2**32, np.uint32) | np.uint32(1)
        scale = np.full(count, 20 / 2**32, np.float32)
        for signed in (False, True):
            name = f"draw_set, {count} rows of {width}{', signed' if signed else ''}"
            sides = drawn(cells.draw_set), (drawn(cells.plain_set),)
            data = (tile, width, keys, on, scale, signed)
            yield Piece(name, *sides, data, lambda data: data[0], True)


def gradients() -> Iterator[Piece]:
    """The small way through one tile, without the loss."""
    rng = np.random.default_rng(0)
    for n, m in ((2, 1), (5, 2), (20, 5)):
        width, model = int(small.length(n)), ToyModel(n=n, m=m)
        address = small.gradient(n, m, small.variant(model, False, False)).address
        tile = np.where(rng.random(n * width) < 0.3, rng.random(n * width), 0.0)
        theta = 0.5 * rng.standard_normal(n * m + n, np.float32)
        # What is written needs none for small shapes, the plain sides do.
        room = max(small.work_size(n, m), (2 * m + 1) * width)
        work, importance = np.zeros(room, np.float32), np.full(n, 0.7, np.float32)
        about = (work, theta, np.zeros_like(theta), importance, (n, m))
        data = (address, tile.astype(np.float32), width, *about)
        plain = (loops.plain_gradient(n, m, wide=True),)
        if n * m <= 16:
            plain = (*plain, loops.plain_gradient(n, m, wide=False))
        name = f"small.add_gradient ({n}, {m})"
        yield Piece(name, written_gradient, plain, data, lambda data: data[5])


def multiplying() -> Iterator[Piece]:
    """The products of the dense way through a tile, against both kinds of plain loops."""
    rng, none, one, width = np.random.default_rng(0), np.intp(0), np.intp(1), np.intp(128)
    for n, m in ((80, 20), (400, 30)):
        W, x, h, g = (rng.standard_normal(size * width, np.float32) for size in (n, n, m, n))
        columns, band = np.intp(m), np.intp(48)
        into = (np.zeros_like(x), none, width, True)
        hidden = (into, (W, none, one, columns), (x, none, width, band), m, width)
        output = (into, (W, none, columns, one), (h, none, width, columns), 48, width)
        sums = (np.zeros(n * m, np.float32), none, columns)
        slopes = (sums, (g, none, x, none, 2), (h, none, h[::-1].copy(), none, width), n, m)
        product, dots = (products.product, products.plain_product), (products.dots,)
        for name, (written, *twin), blocked, data in (
            ("product, h", product, loops.plain_blocks, hidden),
            ("product, x̂", product, loops.plain_blocks, output),
            ("dots", (*dots, products.plain_dots), loops.plain_dot_blocks, slopes),
        ):
            for kind, plain in (("twin", tuple(twin)), ("blocks", (blocked,))):
                about = f"{name} ({n}, {m}), {kind}"
                yield Piece(about, written, plain, data, lambda data: data[0][0])


def listing() -> Iterator[Piece]:
    """Masks and sums of rows, as the sparse way needs them."""
    rng = np.random.default_rng(0)
    for n, m, p in ((200, 20, 0.02), (400, 30, 0.01)):
        shape, width = f"({n}, {m}), p = {p:g}", (m + LANES) // LANES * LANES
        on = rng.random((12, n)) < p
        start, column = np.append(0, on.sum(1).cumsum()), np.nonzero(on)[1].astype(np.int32)
        lists = (start, column, rng.random(column.size, np.float32), 0, 12)
        work = rng.random((2 * n + 36) * width, np.float32)
        W, slope, source, out = (k * width for k in (0, n, 2 * n, 2 * n + 12))
        add = ((slope, width), (source, width))
        take = ((W, width), (source, width), (out, width))
        for name, places in (("sum_rows", take), ("add_to_rows", add), ("trade_rows", take + add)):
            written, plain = getattr(rows, name), loops.PLAIN_ROWS[name]
            data = (width, lists, work, places)
            yield Piece(f"{name} {shape}", written, (plain,), data, lambda data: data[2])
        samples = sparse.TILE
        tile = np.where(rng.random(n * samples) < p, rng.random(n * samples), 0.0)
        found = (np.zeros(samples + 1, np.int64), np.zeros(tile.size, np.int32))
        data = (tile.astype(np.float32), samples, n, *found, np.zeros(tile.size, np.float32))
        written, plain = sparse.gather, (loops.plain_gather,)
        yield Piece(f"gather {shape}", written, plain, data, lambda data: np.concatenate(data[3:]))
        for share in (0.03, 0.5):
            pre = (rng.random(12 * loops.APART) - (1.0 - share)).astype(np.float32)
            data = (pre, n, np.zeros(n + 8, np.int32), np.zeros(12, np.int64))
            sides = (written_list, (loops.plain_list, loops.plain_list_all))
            name = f"_list_on of {n}, {share:.0%} on"
            yield Piece(name, *sides, data, lambda data: np.append(data[3], data[2][: data[3][-1]]))


# What calls the written pieces where they cannot be called from Python.


def drawn(draw: Any) -> Any:
    @njit
    def draw_rows(tile, width, keys, on, scale, signed):
        for s in range(keys.size):
            at = max(s * width, 0)
            draw(tile[at : at + width], (0, width), keys[s], on[s], scale[s], signed)

    return draw_rows


@njit
def written_gradient(address, tile, width, work, theta, slope, importance, shape):
    l1, tied = np.float32(0.0), True
    small.add_gradient(address, tile, width, work, theta, slope, importance, l1, shape, tied)


@njit(fastmath=FASTMATH)
def written_list(pre, size, places, behind):
    for s in range(len(behind)):
        behind[s] = sparse._list_on(pre, (s * loops.APART, size), True, places, 0)


def compared(piece: Piece, options: argparse.Namespace) -> dict:
    """Check that the sides agree, then time them in turns."""
    sides, rng = (*piece.plain, piece.written), np.random.default_rng(0)
    found = []
    for side in sides:
        data = placed(piece.data, rng)
        side(*data)
        found.append(piece.result(data))
    close = np.array_equal if piece.exact else agree
    if not all(close(each, found[-1]) for each in found):
        raise RuntimeError(f"{piece.name}: the sides do not agree")
    runs = [repeated(side) for side in sides]
    data, best = placed(piece.data, rng), np.full(len(sides), np.inf)
    counts = [calibrated(run, data, options.seconds) for run in runs]
    for turn in range(options.rounds):
        if turn % 4 == 0:
            data = placed(piece.data, rng)
        for index, (run, count) in enumerate(zip(runs, counts, strict=True)):
            best[index] = min(best[index], spent(run, count, data) / count * 1e6)
    plain, written = float(best[:-1].min()), float(best[-1])
    return {"piece": piece.name, "plain": plain, "written": written, "ratio": plain / written}


def agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two sums differ by no more than float32 rounding of their terms."""
    return np.allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(b).max()))


def repeated(function: Any) -> Any:
    @njit
    def run(count, data):
        for _ in range(count):
            function(*data)

    return run


def spent(run: Callable, count: int, data: tuple) -> float:
    start = process_time()
    run(count, data)
    return process_time() - start


def calibrated(run: Callable, data: tuple, seconds: float) -> int:
    """Repetitions that take about `seconds`."""
    run(1, data)
    count = 1
    while (taken := spent(run, count, data)) < seconds / 3:
        count *= 3
    return max(1, round(count * seconds / taken))


def placed(data: Any, rng: np.random.Generator) -> Any:
    """A copy whose arrays begin at cache lines drawn at random."""
    if isinstance(data, tuple):
        return tuple(placed(each, rng) for each in data)
    if not isinstance(data, np.ndarray):
        return data
    room = np.empty(data.nbytes + 8192, np.uint8)
    begin = -room.ctypes.data % 64 + 64 * int(rng.integers(64))
    copied = room[begin : begin + data.nbytes].view(data.dtype)
    copied[:] = data
    return copied


def markdown(found: dict) -> str:
    """The rows as a table, and what they say about the claim."""
    lines = [
        f"| {row['piece']} | {short(row['plain'])} | {short(row['written'])} | {row['ratio']:.2f} |"
        for row in found["rows"]
    ]
    head = ["| piece | plain loops, µs | instructions, µs | ratio |", "|---|---|---|---|"]
    return "\n".join([*head, *lines, "", f"{verdict(found['rows'])}."])


def short(number: float) -> str:
    """Three digits, never an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def verdict(rows: list[dict]) -> str:
    """How many rows are below what is asked for."""
    below = [row["piece"] for row in rows if row["ratio"] < ASKED]
    text = f"At least {ASKED} in {len(rows) - len(below)} of {len(rows)} rows"
    return text + (f"; not in: {'; '.join(below)}" if below else "")


def main() -> None:
    """Measure, print and write; or fill in the page's table."""
    parser = argparse.ArgumentParser(description="hand-written instructions against plain loops")
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--table", type=Path, help="fill in this page's table; measure nothing")
    parser.add_argument("--out", type=Path, help="else results/instructions.json, beside this")
    options = parser.parse_args()
    quick = options.quick
    options.rounds, options.seconds = (4, 0.001) if quick else (48, 0.004)
    name = f"results/instructions{'-quick' if quick else ''}.json"
    options.out = options.out or HOME / name
    if options.table:
        tables.TABLES["instructions"] = markdown
        tables.fill(options.table, json.loads(options.out.read_text("utf-8")))
        return
    about, before, measured = engine.machine(), os.getloadavg()[0], []
    for pieces in (drawing, gradients, multiplying, listing):
        for piece in pieces():
            measured.append(row := compared(piece, options))
            print(
                f"{row['piece']:36} plain {row['plain']:9.3f} µs, written {row['written']:8.3f} µs,"
                f" ratio {row['ratio']:6.2f}",
                flush=True,
            )
    print(verdict(measured))
    after = os.getloadavg()[0]
    # At the end one of the running processes is this one.
    quiet = max(before, after - 1) <= about["cores"] / 4
    word = "quiet" if quiet else "NOT quiet, so the times are too long"
    print(f"load {before:.1f} before, {after:.1f} after: {word}")
    load = {"load_before": before, "load_after": after, "quiet": quiet}
    found = {"machine": about | load, "rounds": options.rounds, "rows": measured}
    records.write_json(options.out, {"instructions": found})
    print(options.out)


if __name__ == "__main__":
    main()
