"""How many shards a second a driver hands out to Ray, and what a shard costs beside its training.

    python benchmarks/cluster.py [results.json]

Driver, scheduler and workers share this machine, so the rates are lower bounds for a driver that
has a core to itself. First a sweep of tiny shards, by Ray and by local processes, one worker each:
the seconds from the first that is written to the last. Then shards that are done already, where a
worker looks at the store and says so, at several numbers of shards in flight.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from engine import machine
from superpose.sweep import Processes, Ray, Sweep, parse
from superpose.sweep.run import run

SHARDS = 400
WINDOWS = (4, 64)  # fewer than shards: each number is in flight once
ROUNDS = 5


def made(folder):
    given = {
        "model": {"n": 2, "m": 1},
        "training": {"steps": 20, "batch": 16},
        "seeds": SHARDS,
        "axes": {"world.p": [1.0]},
        "keep": {"weights": "none"},
    }
    return Sweep.create(str(folder), parse(given), sizes=(1,))


def handed_out(pool, window):
    """Shards a second, of those that are done."""
    count = 4 * SHARDS
    began, submitted, heard = time.perf_counter(), 0, 0
    while heard < count:
        while submitted < count and submitted - heard < window:
            pool.submit(submitted % SHARDS)
            submitted += 1
        heard += len(pool.hear(1.0))
    return count / (time.perf_counter() - began)


def written(executor, folder):
    """Seconds a shard, from the first that is written to the last."""
    sweep, times = made(folder), []
    run(sweep, executor, lambda done, total, failed: times.append(time.perf_counter()))
    assert len(sweep.done()) == SHARDS
    return (times[-1] - times[1]) / (SHARDS - 1)


def main():
    found = machine()
    with tempfile.TemporaryDirectory() as folder:
        for name, executor in (("ray", Ray(workers=1)), ("processes", Processes(workers=1))):
            found[f"ms a shard, {name}"] = 1e3 * written(executor, Path(folder) / name)
        sweep = Sweep.open(Path(folder) / "ray")
        pool = Ray(workers=2).start(sweep.folder.where)
        handed_out(pool, 64)  # both workers have loaded everything
        for window in WINDOWS:
            rate = statistics.median(handed_out(pool, window) for _ in range(ROUNDS))
            found[f"shards/s, {window} in flight"] = rate
        pool.close(now=True)
    for name, value in found.items():
        print(f"{name:<28} {value:.4g}" if isinstance(value, float) else f"{name:<28} {value}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
