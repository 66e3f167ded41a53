"""Training stacks of toy models: one loop for any worlds, on the fused kernel or in PyTorch."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from superpose import measures, records, theory
from superpose.features import Features, Law
from superpose.kernels import cpu
from superpose.models import ToyModel, ToyNetwork

Progress = Callable[[int, int], None]
"""Called with (models done, models in all) as training goes on."""

SAMPLES_FOR_LOSS = 65_536
"""Fresh samples that estimate a loss for which theory has no closed form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to train: AdamW on fresh batches; every field is the notebook's default.

    `schedule` takes the learning rate from `lr` to zero: "constant" (not at all), "linear" or
    "cosine" (a quarter wave). `snapshots` are the numbers of steps after which to keep W and b.
    Raises ValueError for numbers that cannot be.

    >>> Training(steps=4, lr=1.0, schedule="linear").learning_rates()
    array([1.  , 0.75, 0.5 , 0.25])
    """

    steps: int = 10_000
    batch: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    snapshots: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "snapshots", tuple(int(s) for s in self.snapshots))
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Training({name}={value!r}): a whole number of at least 1")
        if not 0.0 < self.lr < np.inf:
            raise ValueError(f"Training(lr={self.lr!r}): the learning rate is positive and finite")
        if not np.isfinite(self.weight_decay):
            raise ValueError(f"Training(weight_decay={self.weight_decay!r}): it is finite")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise ValueError(
                f'Training(schedule={self.schedule!r}): "constant", "linear" or "cosine"'
            )
        if list(self.snapshots) != sorted({s for s in self.snapshots if 0 <= s <= self.steps}):
            raise ValueError(
                f"Training(snapshots={self.snapshots}): increasing numbers of steps "
                f"between 0 and {self.steps}"
            )

    def learning_rates(self) -> Float[np.ndarray, " steps"]:
        """The learning rate of every step, float64."""
        part = np.arange(self.steps) / self.steps
        shape = {
            "constant": np.ones_like(part),
            "linear": 1.0 - part,
            "cosine": np.cos(0.5 * np.pi * part),
        }
        return self.lr * shape[self.schedule]


@dataclass(frozen=True, slots=True)
class Snapshots:
    """W `[snapshot, *run, n, m]` and b `[snapshot, *run, n]` after `steps` steps each."""

    steps: tuple[int, ...]
    W: Float[Tensor, "snapshot *run n m"]
    b: Float[Tensor, "snapshot *run n"]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A trained stack: the stack axes `*run` are `[runs]`, or `[worlds, runs]` over worlds.

    `loss` is the exact expected loss (`loss_se` 0) where theory has it, else an estimate on
    fresh samples with its standard error; it is NaN for a model that diverged. `index` holds the
    run number that, with `seed`, determines each model.
    """

    model: ToyModel
    worlds: tuple[Features, ...]
    training: Training
    seed: int
    index: Int[np.ndarray, "*run"]
    W: Float[Tensor, "*run n m"]
    b: Float[Tensor, "*run n"]
    loss: Float[Tensor, "*run"]
    loss_se: Float[Tensor, "*run"]
    snapshots: Snapshots
    kernel: str

    @property
    def diverged(self) -> Tensor:
        """Which models ended with a NaN or an overflow, bool `[*run]`; try a lower `lr`."""
        return ~torch.isfinite(self.loss)

    def best(self) -> "Run":
        """The model of lowest loss of each world, as a stack with one run.

        >>> run = train(ToyModel(n=2, m=1), Features(n=2), Training(steps=10), runs=4)
        >>> run.best().loss == run.loss.min()
        tensor([True])
        """
        at = self.loss.nan_to_num(nan=torch.inf).argmin(-1, keepdim=True)
        return self._take(at)

    def _take(self, at: Int[Tensor, "*run"]) -> "Run":
        def take(array: Tensor, trailing: int) -> Tensor:
            leading = array.ndim - at.ndim - trailing
            index = at.reshape((1,) * leading + at.shape + (1,) * trailing)
            return torch.take_along_dim(array, index, dim=leading + at.ndim - 1)

        kept = Snapshots(self.snapshots.steps, take(self.snapshots.W, 2), take(self.snapshots.b, 1))
        return replace(
            self,
            index=np.take_along_axis(self.index, at.numpy(), -1),
            W=take(self.W, 2),
            b=take(self.b, 1),
            loss=take(self.loss, 0),
            loss_se=take(self.loss_se, 0),
            snapshots=kept,
        )

    def module(self, *at: int) -> ToyNetwork:
        """One model as an nn.Module: `module(run)`, or `module(world, run)` over worlds."""
        if len(at) != self.loss.ndim:
            axes = ["run"] if self.loss.ndim == 1 else ["world", "run"]
            raise ValueError(f"module{at}: this stack has the axes {axes}; give one index for each")
        return ToyNetwork(self.model, self.W[at], self.b[at])

    def table(self, rows: Literal["models", "features"] = "models") -> pa.Table:
        """One row a model, or one row a model and feature.

        Both have `world`, `p` (mean over the features), `run`; models add the losses and the
        measures of the whole, features add `importance` and the measures of each.
        """
        if rows not in ("models", "features"):
            raise ValueError(f'table(rows={rows!r}): "models" or "features"')
        worlds, runs, n = len(self.worlds), self.index.shape[-1], self.model.n
        key = {
            "world": np.repeat(np.arange(worlds), runs),
            "p": np.repeat([w.probability.mean() for w in self.worlds], runs),
            "run": self.index.ravel(),
        }
        if rows == "models":
            return pa.table(key | _flat(self._model_measures(), 1))
        key = {name: np.repeat(column, n) for name, column in key.items()}
        key["feature"] = np.tile(np.arange(n), worlds * runs)
        key["importance"] = np.repeat(
            np.stack([w.importances for w in self.worlds]), runs, axis=0
        ).ravel()
        return pa.table(key | _flat(self._feature_measures(), n))

    def _model_measures(self) -> dict[str, Tensor]:
        W = self.W
        return {
            "loss": self.loss,
            "loss_se": self.loss_se,
            "capacity": measures.capacity(W),
            "dims_per_feature": measures.dims_per_feature(W),
            "represented": measures.represented(W).sum(-1),
            "polysemanticity": measures.polysemanticity(W).double().mean(-1),
        }

    def _feature_measures(self) -> dict[str, Tensor]:
        return {
            "norm": measures.feature_norms(self.W),
            "bias": self.b,
            "interference": measures.interference(self.W),
            "dimensionality": measures.dimensionality(self.W),
        }

    def save(self, folder: str | Path) -> Path:
        """Write the run to a folder, atomically; the same run gives the same bytes."""
        about = {
            "model": asdict(self.model),
            "worlds": [describe_world(world) for world in self.worlds],
            "training": asdict(self.training) | {"snapshots": list(self.training.snapshots)},
            "seed": self.seed,
            "kernel": self.kernel,
        }
        arrays = {
            "index": self.index,
            "W": self.W.numpy(),
            "b": self.b.numpy(),
            "loss": self.loss.numpy(),
            "loss_se": self.loss_se.numpy(),
            "snapshots.W": self.snapshots.W.numpy(),
            "snapshots.b": self.snapshots.b.numpy(),
        }
        return records.save(folder, kind="run", about=about, arrays=arrays)


def stack(runs: Sequence[Run]) -> Run:
    """Join runs over worlds, trained alike, into one over all their worlds.

    Raises ValueError for runs that differ in anything but their worlds.
    """
    first = runs[0]
    for run in runs:
        if run.W.ndim < 4:
            raise ValueError(
                "stack: train each run on a list of worlds, which has an axis for them"
            )
        if (run.model, run.training, run.seed, run.kernel) != (
            first.model,
            first.training,
            first.seed,
            first.kernel,
        ):
            raise ValueError("stack: the runs differ in model, training, seed or kernel")
    return replace(
        first,
        worlds=tuple(world for run in runs for world in run.worlds),
        index=np.concatenate([run.index for run in runs]),
        snapshots=Snapshots(
            first.snapshots.steps,
            torch.cat([run.snapshots.W for run in runs], 1),
            torch.cat([run.snapshots.b for run in runs], 1),
        ),
        **{
            name: torch.cat([getattr(run, name) for run in runs])
            for name in ("W", "b", "loss", "loss_se")
        },
    )


def load(folder: str | Path) -> Run:
    """Read a run written by `Run.save`; raises records.RecordError where a byte has changed."""
    record = records.load(folder, kind="run")
    about, arrays = record.about, {k: torch.from_numpy(v) for k, v in record.arrays.items()}
    training = Training(**about["training"])
    return Run(
        model=ToyModel(**about["model"]),
        worlds=tuple(world_from(d) for d in about["worlds"]),
        training=training,
        seed=about["seed"],
        index=record.arrays["index"],
        snapshots=Snapshots(training.snapshots, arrays["snapshots.W"], arrays["snapshots.b"]),
        kernel=about["kernel"],
        **{name: arrays[name] for name in ("W", "b", "loss", "loss_se")},
    )


def describe_world(world: Features) -> dict[str, Any]:
    """A world as plain JSON values; `world_from` is the inverse."""
    law = {"name": type(world.law).__name__.lower(), **asdict(world.law)}
    plain = {"n": world.n, "p": world.p, "importance": world.importance, "law": law}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def world_from(described: dict[str, Any]) -> Features:
    """The world that `describe_world` described."""
    law = dict(described["law"])
    kinds = {kind.__name__.lower(): kind for kind in get_args(Law)}
    return Features(**{**described, "law": kinds[law.pop("name")](**law)})


def train(
    model: ToyModel,
    world: Features | Sequence[Features],
    training: Training | None = None,
    *,
    runs: int | range = 8,
    seed: int = 0,
    backend: Literal["auto", "torch", "cpu"] = "auto",
    progress: Progress | None = None,
) -> Run:
    """Train `runs` models of each world from scratch.

    A model depends on (model, its world, training, seed, run number) alone: `runs=range(37, 38)`
    trains number 37 to the same bits as in a stack of a thousand, and a list of worlds gives
    each the same numbers (the same initial weights and random stream: paired comparisons).
    "auto" is "cpu", the fused kernel with one model a thread (as many threads as the process may
    use, or SUPERPOSE_THREADS); "torch" is the plain definition on the same batches, slow.
    Raises ValueError where sizes do not fit.

    >>> run = train(ToyModel(n=5, m=2), Features(n=5, p=0.05), Training(steps=100), runs=3)
    >>> run.W.shape, run.loss.shape
    (torch.Size([3, 5, 2]), torch.Size([3]))
    """
    training = Training() if training is None else training
    worlds = (world,) if isinstance(world, Features) else tuple(world)
    numbers = range(runs) if isinstance(runs, int) else runs
    _check(model, worlds, numbers, seed, backend)
    cells = [(w, r) for w in worlds for r in numbers]
    one = _train_torch if backend == "torch" else _train_cpu
    # Compiling before the threads start keeps them from doing it all at once.
    kernels = {w: cpu.training_kernel(model, w.law) for w in set(worlds)}
    kept = torch.empty(len(cells), len(training.snapshots) + 1, model.n, model.m + 1)

    def cell(i: int) -> None:
        w, r = cells[i]
        for k, (W, b) in enumerate(one(model, w, training, (seed, r), kernels[w])):
            kept[i, k, :, :-1], kept[i, k, :, -1] = torch.as_tensor(W), torch.as_tensor(b)

    _in_threads(cell, len(cells), progress)
    shape = (len(numbers),) if isinstance(world, Features) else (len(worlds), len(numbers))
    stack = kept.unflatten(0, shape).movedim(len(shape), 0)
    W, b = stack[-1, ..., :-1].contiguous(), stack[-1, ..., -1].contiguous()
    loss, se = _losses(model, worlds, W, b, seed)
    return Run(
        model=model,
        worlds=worlds,
        training=training,
        seed=seed,
        index=np.broadcast_to(np.asarray(numbers), shape).copy(),
        W=W,
        b=b,
        loss=loss,
        loss_se=se,
        snapshots=Snapshots(
            tuple(training.snapshots),
            stack[:-1, ..., :-1].contiguous(),
            stack[:-1, ..., -1].contiguous(),
        ),
        kernel="torch" if backend == "torch" else cpu.VERSION,
    )


def _check(
    model: ToyModel, worlds: tuple[Features, ...], numbers: range, seed: int, backend: str
) -> None:
    if not worlds or not len(numbers):
        raise ValueError("train: there is nothing to train; give at least one world and one run")
    if numbers[0] < 0 or numbers[-1] < 0 or seed < 0:
        raise ValueError(f"train(runs={numbers}, seed={seed}): run numbers and seed start at 0")
    for world in worlds:
        if world.n != model.n:
            raise ValueError(
                f"train: the model has n={model.n} features but the world has n={world.n}; "
                "make them equal"
            )
    if backend not in ("auto", "torch", "cpu"):
        raise ValueError(f'train(backend={backend!r}): "auto", "torch" or "cpu"')


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


def _in_threads(work: Callable[[int], None], count: int, progress: Progress | None) -> None:
    with ThreadPoolExecutor(threads()) as pool:
        futures = [pool.submit(work, i) for i in range(count)]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                if progress:
                    progress(done, count)
        finally:
            # On an error or Ctrl-C the models not yet begun are dropped.
            pool.shutdown(wait=True, cancel_futures=True)


def _segments(training: Training) -> Iterator[tuple[int, int]]:
    """(first, last) step of each stretch of training between things to keep."""
    stops = [*training.snapshots, training.steps]
    return zip([0, *stops[:-1]], stops, strict=True)


def _train_cpu(model, world, training, number, kernel):
    W, b = (a.numpy() for a in model.initial(*number))
    moments = np.zeros((2, model.n, model.m + 1), np.float32)
    importance = world.importances.astype(np.float32)
    key, law = np.uint64(cpu.stream_key(*number)), cpu.thresholds(world)
    rates = training.learning_rates().astype(np.float32)
    decay = np.float32(training.weight_decay)
    for a, z in _segments(training):
        kernel(W, b, moments, importance, law, key, rates[a:z], training.batch, decay, a)
        yield W, b


def _train_torch(model, world, training, number, _kernel):
    W, b = (a.requires_grad_() for a in model.initial(*number))
    importance = torch.as_tensor(world.importances, dtype=torch.float32)
    optimiser = torch.optim.AdamW([W, b], lr=training.lr, weight_decay=training.weight_decay)
    key, rates = cpu.stream_key(*number), training.learning_rates()
    for a, z in _segments(training):
        for step in range(a, z):
            optimiser.param_groups[0]["lr"] = float(rates[step])
            x = torch.from_numpy(cpu.draw_batch(world, training.batch, key, step))
            optimiser.zero_grad()
            model.loss(x, W, b, importance).backward()
            optimiser.step()
        yield W.detach(), b.detach()


def _losses(
    model: ToyModel, worlds: tuple[Features, ...], W: Tensor, b: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    over_worlds = W.ndim == 4
    loss, se = [], []
    for i, world in enumerate(worlds):
        one_W, one_b = (W[i], b[i]) if over_worlds else (W, b)
        value = torch.full(one_W.shape[:1], torch.nan, dtype=torch.float64)
        error = torch.zeros_like(value)
        finite = torch.isfinite(one_W).all(-1).all(-1) & torch.isfinite(one_b).all(-1)
        if finite.any():
            value[finite], error[finite] = _loss(model, world, one_W[finite], one_b[finite], seed)
        loss.append(value)
        se.append(error)
    return (torch.stack(loss), torch.stack(se)) if over_worlds else (loss[0], se[0])


def _loss(
    model: ToyModel, world: Features, W: Tensor, b: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    if model.hidden == "linear":
        loss = theory.expected_loss(W, b, world, output=model.output)
        return loss, torch.zeros_like(loss)
    x = world.sample(SAMPLES_FOR_LOSS, seed=seed)
    importance = torch.as_tensor(world.importances, dtype=torch.float32)
    # One model at a time: x̂ of a whole stack would not fit.
    each = torch.stack(
        [
            (importance * (x - model.forward(x, one_W, one_b)) ** 2).sum(-1).double()
            for one_W, one_b in zip(W, b, strict=True)
        ]
    )
    return each.mean(-1), each.std(-1) / len(x) ** 0.5


def _flat(columns: dict[str, Tensor], n: int) -> dict[str, np.ndarray]:
    return {name: value.reshape(-1).numpy() for name, value in columns.items()}
