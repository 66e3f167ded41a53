"""Training a stack of models: cut into shards, one a thread at a time, each through all steps.

A shard holds a few models of one world. What becomes of a model depends on the model, its world,
the recipe, the seed and its number alone, never on how stacks are cut or in which order shards
come.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Lock
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from torch import nn

from superpose.engine import states
from superpose.engine.backends import Backend, backend, initial, shapes_of
from superpose.engine.compiling import announced
from superpose.engine.losses import evaluate
from superpose.engine.states import Rows
from superpose.engine.training import Training
from superpose.features import Features
from superpose.kernels import streams
from superpose.models import ToyModel

Progress = Callable[[int, int], None]
"""Called with (models done, models in all) as training goes on."""

CHECK = 1000
"""At multiples of this many steps, models that have diverged are taken out."""

MODELS = 256
"""Models in a shard, at most."""

# A call of a backend ends after about this time, so that an interruption is heard.
_SECONDS = 0.5


class Start(NamedTuple):
    """Where training goes on: after `steps` steps, with what was kept up to there."""

    steps: int
    rows: Rows  # [cells]
    past: Rows  # [snapshots so far, cells]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What decides the result of a stack; a cell is one run of one world."""

    model: ToyModel | nn.Module
    worlds: tuple[Features, ...]
    training: Training
    seed: int
    numbers: Int[np.ndarray, "worlds models"]
    backend: str
    restarts: int = 1
    start: Start | None = None

    @property
    def first(self) -> int:
        """Steps taken before it begins."""
        return self.start.steps if self.start else 0

    @property
    def runs(self) -> int:
        """Models of each world that are kept."""
        return self.numbers.shape[1] // self.restarts


class _Shard(NamedTuple):
    """Models `begin … end` of the list of a world."""

    world: int
    begin: int
    end: int


@dataclass(slots=True, eq=False)
class Stack:
    """What a job leaves: the cells at the end and at the snapshots, with their model numbers."""

    end: Rows  # [cells]
    kept: Rows  # [snapshots, cells]
    index: Int[np.ndarray, " cells"]
    lock: Lock = field(default_factory=Lock)

    def merge(self, cells: Int[np.ndarray, " best"], best: "Stack") -> None:
        """Take in the best models of a shard where they are better than what is there."""
        with self.lock:
            old = self.index[cells]
            loss, known = (_sortable(each) for each in (best.end.loss, self.end.loss[cells]))
            better = (old < 0) | (loss < known) | ((loss == known) & (best.index < old))
            at = cells[better]
            self.end.put(at, best.end[better])
            self.kept.put((slice(None), at), best.kept[:, better])
            self.index[at] = best.index[better]


def carry_out(job: Job, progress: Progress | None = None) -> Stack:
    """Train every model of the job; of each run's restarts the best is kept."""
    with announced():
        ways = {world: backend(job.model, world, job.training, job.backend) for world in job.worlds}
        size, cells = states.size(shapes_of(job.model)), len(job.worlds) * job.runs
        stack = Stack(
            end=Rows.empty((cells,), size),
            kept=Rows.empty((len(job.training.snapshots), cells), size),
            index=np.full(cells, -1),
        )

        def work(shard: _Shard, tell: Callable[[int], None]) -> None:
            way = ways[job.worlds[shard.world]]
            part = _begun(job, shard, size)
            _train(job, shard, way, part, tell)
            _finish(job, shard, way, part, stack)

        whole = any(way.whole for way in ways.values())
        _in_threads(work, _cut(job, whole), job, progress)
    return stack


def threads() -> int:
    """Threads that train models: SUPERPOSE_THREADS, or the cores this process may use."""
    asked = os.environ.get("SUPERPOSE_THREADS", "")
    if asked:
        if not asked.isdigit() or asked == "0":
            raise ValueError(f"SUPERPOSE_THREADS={asked!r}: a whole number of at least 1")
        return int(asked)
    # Python 3.13 has os.process_cpu_count; macOS has no affinity to ask for.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cut(job: Job, whole: bool) -> list[_Shard]:
    worlds, models = job.numbers.shape
    # Several shards for each of several threads, so that none waits long for the last.
    share = -(-worlds * models // (8 * threads() if threads() > 1 else 1))
    step = models if whole else max(1, min(MODELS, share))
    return [
        _Shard(w, begin, min(begin + step, models))
        for w in range(worlds)
        for begin in range(0, models, step)
    ]


def _begun(job: Job, shard: _Shard, size: int) -> Stack:
    """The models of a shard before the first step."""
    numbers = job.numbers[shard.world, shard.begin : shard.end]
    snapshots = job.training.snapshots
    kept = Rows.empty((len(snapshots), numbers.size), size)
    if job.start is None:
        rows = Rows.empty(numbers.shape, size)
        rows.theta[:] = initial(job.model, job.seed, numbers)
        if 0 in snapshots:
            kept.put(0, rows)
    else:
        offset = shard.world * job.runs
        cells = slice(offset + shard.begin, offset + shard.end)
        rows, past = job.start.rows[cells], job.start.past[:, cells]
        kept.put(slice(0, len(past.loss)), past)
    return Stack(end=rows, kept=kept, index=numbers)


def _segments(job: Job) -> Iterator[tuple[int, int]]:
    """(first, last) step of each stretch between things to see to."""
    training, stop = job.training, job.training.stop
    ends = {*training.snapshots, *range(0, training.steps, CHECK), training.steps}
    if stop is not None:
        ends |= {*range(0, training.steps, stop.window)}
    stops = sorted(end for end in ends if end > job.first)
    return zip([job.first, *stops[:-1]], stops, strict=True)


def _train(job: Job, shard: _Shard, way: Backend, part: Stack, tell: Callable[[int], None]) -> None:
    """Take the models of a shard through all steps, in place."""
    training, rows = job.training, part.end
    keys = np.array([streams.stream_key(job.seed, int(k)) for k in part.index], np.uint64)
    rates = np.atleast_2d(training.learning_rates(part.index)).astype(np.float32)
    going = (rows.steps == job.first) & ~_halted(training, rows, job.first)
    for first, last in _segments(job):
        at = np.arange(going.size) if way.whole else np.flatnonzero(going)
        everyone = bool(going.all())
        now = rows if everyone else rows[at]
        step = max(1, int(_SECONDS / way.seconds / max(at.size, 1)))
        for a in range(first, last, step):
            z = min(a + step, last)
            if going.any():
                pace = rates[at if len(rates) > 1 else slice(None), a:z]
                losses = np.empty((at.size, z - a if training.stop else 0), np.float32)
                way.advance(now.theta, now.moments, keys[at], np.ascontiguousarray(pace), losses, a)
                if training.stop:
                    training.stop.see(now.watch, losses)
            tell((z - a) * going.size)
        now.steps[:] = last
        if training.stop and last % training.stop.window == 0:
            training.stop.judge(now.watch)
        if not everyone:
            rows.put(at[going[at]], now[going[at]])
        going &= ~_halted(training, rows, last)
        if last in training.snapshots:
            part.kept.put(training.snapshots.index(last), rows)


def _halted(training: Training, rows: Rows, step: int) -> Bool[np.ndarray, " models"]:
    """Which models take no further step: diverged, where that is looked for, or at a plateau."""
    halted = np.zeros(len(rows.loss), bool)
    if step and step % CHECK == 0:
        halted |= ~np.isfinite(rows.theta).all(1)
    return halted | training.stop.over(rows.watch) if training.stop else halted


def _finish(job: Job, shard: _Shard, way: Backend, part: Stack, stack: Stack) -> None:
    """Work out losses and hand the best of each run's restarts over."""
    world = job.worlds[shard.world]

    def losses(rows: Rows) -> None:
        found = evaluate(job.model, world, rows.theta, way.shapes, job.seed)
        rows.loss[:], rows.loss_se[:] = found

    losses(part.end)
    runs = np.arange(shard.begin, shard.end) // job.restarts
    order = np.lexsort((part.index, _sortable(part.end.loss), runs))
    best = order[np.unique(runs[order], return_index=True)[1]]
    if not way.whole:  # the others' snapshots are of no use
        part, best = Stack(part.end[best], part.kept[:, best], part.index[best]), slice(None)
    past = len(job.start.past.loss) if job.start else 0
    for s in range(past, len(job.training.snapshots)):
        at_step = part.kept[s]
        losses(at_step)
        part.kept.put(s, at_step)
    cells = shard.world * job.runs + np.unique(runs)
    stack.merge(cells, Stack(part.end[best], part.kept[:, best], part.index[best]))


def _sortable(loss: np.ndarray) -> np.ndarray:
    return np.nan_to_num(loss, nan=np.inf)


class _InterruptedError(Exception):
    """Another shard has failed, or the user wants to stop."""


def _in_threads(
    work: Callable[[_Shard, Callable[[int], None]], None],
    shards: Sequence[_Shard],
    job: Job,
    progress: Progress | None,
) -> None:
    """Do the shards in threads; here only their progress and end are heard of."""
    heard: SimpleQueue[int | Future] = SimpleQueue()
    stop = Event()

    def tell(model_steps: int) -> None:
        if stop.is_set():
            raise _InterruptedError
        heard.put(model_steps)

    total, left, steps, shown = job.numbers.size, len(shards), 0, 0
    length = max(1, job.training.steps - job.first)
    with ThreadPoolExecutor(threads()) as pool:
        try:
            for shard in shards:
                pool.submit(work, shard, tell).add_done_callback(heard.put)
            while left:
                news = heard.get()
                if isinstance(news, Future):
                    news.result()
                    left -= 1
                else:
                    steps += news
                done = min(steps // length, total - 1) if left else total
                if progress and done > shown:
                    progress(done, total)
                    shown = done
        finally:
            # On an error or Ctrl-C the shards not yet begun are dropped, the others end soon.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
