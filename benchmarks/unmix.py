"""How fast sparse autoencoders train with superpose, and whether they are as good as others'.

The opponents are SAELens, dictionary_learning, overcomplete and sparsify, each in an environment of
its own (`python benchmarks/peers/make.py` makes them) and trained by its own loop, and a careful
loop of plain PyTorch. All get equal data in memory (random unit directions, sparse uniform
amplitudes, no noise), width, batch, steps, float32, Adam with one schedule, one thread and one
core. The sides train in turns, piece by piece, so that all pass through the same stages of a
training; a cell is the median over the pieces, by processor time, with wall time beside it.

- `topk`, `codes`: every code that others have too.
- `shapes`: TopK at two more sizes.
- `stack`: eight members (seeds and sparsities) on one stream, against our single runs, the plain
  loop and SAELens training one after another, by whole calls; with memory.
- `floor`: the encoder's product alone, at the rate of the machine's best matrix product, which is
  timed in turns with pieces of the training on the same core.
- `quality`: whole trainings over seeds; explained variance and MMCS on samples held out. A ratio
  counts where ours are no worse: the interval of the paired difference reaches 0 or more. Trainings
  that the file has are not done again; other work on the machine does no harm here.

A part's results replace those in the file, so a full run can be had in pieces.

    python benchmarks/unmix.py [--quick] [--group topk codes …] [--code jumprelu …]
    python benchmarks/unmix.py --table docs/unmix-speed.md
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import tables
import torch
import unmix_tables
from peers import make
from threadpoolctl import threadpool_limits
from unmix_sides import ALL, HOME, OURS, PEERS_OF, PLAIN, Data, Shape, Worker, data, scores
from unmix_sides import settings as settings_of
from unmix_sides import sides as sides_of

from engine import machine
from superpose import records
from superpose.kernels.autoencoder import encoding

SMALL = Shape()
SHAPES = (SMALL, Shape(d=384, width=3072, k=16), Shape(d=768, width=12288, k=32, batch=2048))
LONG = {"topk": 3_000_000}
"""Samples of a whole training; 1,000,000 for codes that are not here."""

UNIQUE = 1_000_000
"""Samples that lie in memory at most; a longer training sees them again."""

SPARSITIES, SEEDS = (5, 10, 20, 40), 2
"""Of the stack of eight."""


def in_turns(
    asked: dict[str, dict], rounds: int, steps: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`[rounds, 2]` processor and wall seconds a step of each worker, and the most memory."""
    workers = {name: Worker(each.pop("side")) for name, each in asked.items()}
    try:
        for name, worker in workers.items():
            worker.ask(make=asked[name])
        times: dict[str, list[np.ndarray]] = {name: [] for name in workers}
        names = list(workers)
        for turn in range(rounds):
            # Nobody always comes after the same neighbour.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                times[name].append(workers[name].train(steps))
        return {name: np.array(spent) for name, spent in times.items()}
    finally:
        for worker in workers.values():
            worker.close()


def against_peers(code: str, shape: Shape, options: argparse.Namespace, pieces: int) -> dict:
    """One row: a code at a shape, all sides."""
    with TemporaryDirectory(dir=options.folder) as folder:
        samples = options.steps * SMALL.batch if shape == SMALL else 65_536
        found = data(Path(folder), shape, min(samples, UNIQUE), seed=0, held=16)
        asked = {
            side: settings_of(code, side, shape, found, options.steps) | {"side": side}
            for side in chosen(code, options)
        }
        times = in_turns(asked, options.rounds, pieces)
    each = {side: spent / shape.batch * 1e6 for side, spent in times.items()}
    median = {side: np.median(spent, 0).tolist() for side, spent in each.items()}
    row = {
        "code": code,
        "shape": asdict(shape),
        "sides": {
            side: {
                "us": median[side][0],
                "us_wall": median[side][1],
                "pieces": each[side][:, 0].tolist(),
                "late": float(np.median(each[side][-max(1, len(each[side]) // 3) :, 0])),
            }
            for side in each
        },
        "floor_flop": shape.floor,
    }
    print(unmix_tables.side_lines(row, str(shape)), flush=True)
    return row


def chosen(code: str, options: argparse.Namespace) -> list[str]:
    """The sides of a code that were asked for."""
    return [side for side in sides_of(code) if not options.sides or side in options.sides]


def topk(options: argparse.Namespace) -> dict:
    """TopK at the small shape."""
    return {"rows": [against_peers("topk", SMALL, options, options.piece)]}


def codes(options: argparse.Namespace) -> dict:
    """All other codes."""
    names = options.code or [code for code in PEERS_OF if code != "topk"]
    rows = [against_peers(code, SMALL, options, options.piece) for code in names]
    kept = [row for row in earlier(options, "codes") if row["code"] not in names]
    return {"rows": kept + rows}


def earlier(options: argparse.Namespace, group: str) -> list[dict]:
    """Rows of the file."""
    return options.done.get(group, {}).get("rows", [])


def shapes(options: argparse.Namespace) -> dict:
    """TopK at two more sizes; the pieces are shorter where a step takes longer."""
    rows = []
    for shape in SHAPES[1 : 2 if options.quick else None]:
        work = SMALL.floor * SMALL.batch / shape.floor / shape.batch
        rows.append(against_peers("topk", shape, options, max(1, round(options.piece * work))))
    return {"rows": rows}


def stack(options: argparse.Namespace) -> dict:
    """Whole calls: a stack, and its members one by one: ours, the plain loop's, SAELens's."""
    rows = []
    wide = Shape(batch=SMALL.batch)
    for shape in (wide, Shape(width=512, d=64), Shape(width=256, d=64)):
        with TemporaryDirectory(dir=options.folder) as folder:
            found = data(Path(folder), shape, 65_536, seed=0, held=16)
            rows.append(stacked(shape, found, options))
        print(unmix_tables.stack_line(rows[-1]), flush=True)
    return {"rows": rows, "sparsities": SPARSITIES, "seeds": SEEDS}


def stacked(shape: Shape, found: Data, options: argparse.Namespace) -> dict:
    """One width."""
    steps = options.whole
    one = settings_of("topk", OURS, shape, found, steps)
    single = [one | {"k": k, "seed": seed} for k in SPARSITIES for seed in range(SEEDS)]
    asked = {"stack": [one | {"stack": SPARSITIES, "seeds": SEEDS}], "loop": single}
    workers = {name: Worker(OURS) for name in asked}
    for name in list(asked):
        asked[f"{name}{unmix_tables.TWO}"] = asked[name]
        workers[f"{name}{unmix_tables.TWO}"] = Worker(OURS, threads=2)
    for side in (PLAIN, "saelens") if make.python("saelens").exists() else (PLAIN,):
        theirs = settings_of("topk", side, shape, found, steps)
        asked[side] = [theirs | {"k": each["k"], "seed": each["seed"]} for each in single]
        workers[side] = Worker(side)
    times: dict[str, list[np.ndarray]] = {name: [] for name in workers}
    memory = {}
    for name, worker in workers.items():
        # The first training of a process compiles.
        worker.ask(whole=[settings | {"steps": 2} for settings in asked[name][:1]])
    for _ in range(options.rounds):
        for name, worker in workers.items():
            answer = worker.ask(whole=asked[name])
            times[name].append(np.array(answer["seconds"]) / answer["steps"] / shape.batch * 1e6)
            memory[name] = answer["peak"]
    for worker in workers.values():
        worker.close()
    median = {name: np.median(spent, 0).tolist() for name, spent in times.items()}
    return {
        "shape": asdict(shape),
        "members": len(single),
        "steps": steps,
        "us": {name: spent[0] for name, spent in median.items()},
        "us_wall": {name: spent[1] for name, spent in median.items()},
        "peak_gb": {name: size / 1e9 for name, size in memory.items()},
    }


def floor(options: argparse.Namespace) -> dict:
    """How near a step comes to its encoder's product, both in turns on one core."""
    rows = []
    with on_the_workers_core():
        for shape in SHAPES[: 1 if options.quick else None]:
            with TemporaryDirectory(dir=options.folder) as folder:
                found = data(Path(folder), shape, 65_536, seed=0, held=16)
                rows.append(near(shape, found, options))
            print(unmix_tables.floor_line(rows[-1]), flush=True)
    return {"rows": rows, "asked": 0.6}


@contextmanager
def on_the_workers_core() -> Iterator[None]:
    """Cores differ from one another, and each from minute to minute."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def near(shape: Shape, found: Data, options: argparse.Namespace) -> dict:
    """One size: pieces of a training and products in turns, the median of each and the best."""
    work = SMALL.floor * SMALL.batch / shape.floor / shape.batch
    pieces, turns = max(1, round(options.piece * work)), 4 * options.rounds
    worker = Worker(OURS)
    rates, us = [], []
    try:
        worker.ask(make=settings_of("topk", OURS, shape, found, turns * pieces + 5))
        for _ in range(turns):
            us.append(float(worker.train(pieces)[0]) / shape.batch * 1e6)
            rates.append(products(options))
    finally:
        worker.close()
    medians = {name: float(np.median([rate[name] for rate in rates])) for name in rates[0]}
    by = max(medians, key=lambda name: medians[name])
    floors = [shape.floor / rate * 1e6 for rate in (medians[by], max(r[by] for r in rates))]
    return {
        "shape": asdict(shape),
        "us": float(np.median(us)),
        "gflops": medians[by] / 1e9,
        "by": by,
        "floor_us": floors[0],
        "share": floors[0] / float(np.median(us)),
        "share_of_best": floors[1] / min(us),
    }


def products(options: argparse.Namespace) -> dict[str, float]:
    """Floating operations a second of matrix products, by whose they are."""
    rng, found = np.random.default_rng(0), {}
    for rows, inner, columns in ((4096, 128, 1024), (2048, 768, 4096), (2048, 2048, 2048)):
        a = rng.random((rows, inner), np.float32)
        b = rng.random((inner, columns), np.float32)
        one, other = torch.from_numpy(a), torch.from_numpy(b)
        encoder = encoding.encoder(inner, columns, -1)
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "NumPy": (rows, lambda a=a, b=b: a @ b),
            "PyTorch": (rows, lambda a=one, b=other: a @ b),
            "superpose": (
                encoding.CHUNK,
                lambda encoder=encoder, terms=inner + 1: encoding.pre_activations(
                    encoder, encoding.CHUNK, terms
                ),
            ),
        }
        for name, (count, way) in ways.items():
            work = 2.0 * count * inner * columns
            repeats = max(3, round(options.repeats * 1e9 / work))
            found[f"{name}, {count}×{inner}×{columns}"] = work / typical(way, repeats)
    return found


def typical(way: Callable[[], object], repeats: int) -> float:
    """Median of processor seconds."""
    way()
    times = []
    for _ in range(repeats):
        begin = process_time()
        way()
        times.append(process_time() - begin)
    return statistics.median(times)


def quality(options: argparse.Namespace) -> dict:
    """Whole trainings over seeds."""
    known = {
        (run["code"], run["side"], run["seed"]): run
        for run in options.done.get("quality", {}).get("runs", [])
        if run["steps"] == whole_steps(run["code"], options)
    }
    for code in options.code or PEERS_OF:
        for seed in range(options.seeds):
            with TemporaryDirectory(dir=options.folder) as folder:
                missing = [
                    side
                    for side in chosen(code, options)
                    if options.again or (code, side, seed) not in known
                ]
                count = min(whole_steps(code, options) * SMALL.batch, UNIQUE)
                found = data(Path(folder), SMALL, count, seed) if missing else None
                for side in missing:
                    assert found is not None
                    run = trained(code, side, seed, found, options)
                    known[code, side, seed] = run
                    print(unmix_tables.run_line(run), flush=True)
                    save(options, "quality", {"runs": list(known.values())})
    return {"runs": list(known.values())}


def whole_steps(code: str, options: argparse.Namespace) -> int:
    """Steps of a whole training."""
    return -(-(options.samples or LONG.get(code, 1_000_000)) // SMALL.batch)


def trained(code: str, side: str, seed: int, found: Data, options: argparse.Namespace) -> dict:
    """One whole training and its scores."""
    steps = whole_steps(code, options)
    worker = Worker(side)
    try:
        worker.ask(make=settings_of(code, side, SMALL, found, steps, seed))
        with TemporaryDirectory(dir=options.folder) as folder:
            asked = {"held": str(found.held), "folder": folder}
            answer = worker.ask(finish=asked)
            scored = scores(found, Path(folder))
    finally:
        worker.close()
    each = np.array(answer["seconds"]) / answer["steps"] / SMALL.batch * 1e6
    about = {"code": code, "side": side, "seed": seed, "steps": steps}
    return about | scored | {"l0": answer["l0"], "us": each[0], "us_wall": each[1]}


GROUPS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "topk": topk,
    "codes": codes,
    "shapes": shapes,
    "stack": stack,
    "floor": floor,
    "quality": quality,
}


def save(options: argparse.Namespace, group: str, found: dict) -> None:
    """Put a group into the file."""
    options.done[group] = {"machine": options.about} | found
    records.write_json(options.out, options.done)


def run(options: argparse.Namespace) -> None:
    """Run the groups, print their rows and write each group as soon as it is done."""
    options.done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    about = machine() | {"peers": make.PEERS}
    absent = [peer for peer in make.PEERS if not make.python(peer).exists()]
    if absent:
        print(f"not installed: {', '.join(absent)}; python benchmarks/peers/make.py makes them")
    for group in options.group:
        print(f"\n{group}")
        before = os.getloadavg()[0]
        options.about = about | {"load_before": before, "load_after": before, "quiet": False}
        found = GROUPS[group](options)
        after = os.getloadavg()[0]
        # At the end one of the running processes is a worker of this script.
        quiet = max(before, after - 1) <= about["cores"] / 4
        options.about |= {"load_after": after, "quiet": quiet}
        word = "quiet" if quiet else "NOT quiet, so the times are too long"
        print(f"load {before:.1f} before, {after:.1f} after: {word}")
        save(options, group, found)
    print(unmix_tables.verdict(options.done))
    print(f"\n{options.out}")


def main() -> None:
    """Read the options and keep every library to one thread."""
    parser = argparse.ArgumentParser(description="training sparse autoencoders, and others' ways")
    parser.add_argument("--quick", action="store_true", help="short pieces, few rounds and seeds")
    parser.add_argument("--group", nargs="+", choices=GROUPS, help="these parts; else all")
    parser.add_argument("--code", nargs="+", choices=PEERS_OF, help="of `codes` and `quality`")
    parser.add_argument("--sides", nargs="+", choices=ALL, help="else all")
    parser.add_argument("--rounds", type=int, help="else 6")
    parser.add_argument("--seeds", type=int, help="of `quality`; else 5")
    parser.add_argument("--samples", type=int, help="of a whole training of `quality`")
    parser.add_argument("--again", action="store_true", help="of `quality`: train all anew")
    parser.add_argument("--folder", type=Path, help="where samples lie meanwhile; else /tmp")
    parser.add_argument("--table", type=Path, help="fill in this page's tables; measure nothing")
    parser.add_argument("--out", type=Path, help="else results/unmix.json, beside this script")
    options = parser.parse_args()
    quick = options.quick
    options.group = options.group or (["topk", "floor"] if quick else list(GROUPS))
    options.rounds = options.rounds or (2 if quick else 6)
    options.seeds = options.seeds or (2 if quick else 5)
    options.samples = options.samples or (40_000 if quick else None)
    # The pieces pass through a whole training of 1,000,000 samples, but for its two ends.
    options.steps = 40 if quick else 245
    options.piece = 2 if quick else (options.steps - 5) // options.rounds
    options.whole, options.repeats = (3, 2) if quick else (48, 10)
    options.out = options.out or HOME / f"results/unmix{'-quick' if quick else ''}.json"
    if options.table:
        tables.TABLES.update(unmix_tables.TABLES)
        tables.fill(options.table, json.loads(options.out.read_text("utf-8")))
        return
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    with threadpool_limits(1):
        run(options)


if __name__ == "__main__":
    main()
