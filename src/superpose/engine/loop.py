"""Training stacks of toy models: one loop for any worlds, on the fused kernel or in PyTorch."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from superpose import theory
from superpose.engine.run import Run, Snapshots
from superpose.engine.training import Training
from superpose.features import Features
from superpose.kernels import batches, cpu, streams
from superpose.models import ToyModel

Progress = Callable[[int, int], None]
"""Called with (models done, models in all) as training goes on."""

SAMPLES_FOR_LOSS = 65_536
"""Fresh samples that estimate a loss for which theory has no closed form."""


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
    use, or SUPERPOSE_THREADS), for worlds whose amplitudes it knows (uniform, not signed), else
    "torch": the plain definition on batches from the same stream, slow.
    Raises ValueError where sizes do not fit and for a world that the "cpu" kernel cannot draw.

    >>> run = train(ToyModel(n=5, m=2), Features(n=5, p=0.05), Training(steps=100), runs=3)
    >>> run.W.shape, run.loss.shape
    (torch.Size([3, 5, 2]), torch.Size([3]))
    """
    training = Training() if training is None else training
    worlds, numbers = _stack(model, world, training, runs)
    _check(model, worlds, numbers, seed, backend)
    cells = [(w, r) for w in worlds for r in numbers]
    # Compiling before the threads start keeps them from doing it all at once.
    fused = [w for w in set(worlds) if backend != "torch" and streams.is_uniform(w)]
    kernels = {w: cpu.training_kernel(model, w.law) for w in fused}
    kept = torch.empty(len(cells), len(training.snapshots) + 1, model.n, model.m + 1)

    def cell(i: int) -> None:
        w, r = cells[i]
        for k, (W, b) in enumerate(_trained(model, w, training, (seed, r), kernels.get(w))):
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
        kernel=" and ".join(sorted({cpu.VERSION if w in kernels else "torch" for w in worlds})),
    )


def _stack(
    model: ToyModel, world: Features | Sequence[Features], training: Training, runs: int | range
) -> tuple[tuple[Features, ...], range]:
    worlds = tuple(world) if isinstance(world, Sequence) else (world,)
    for each, kind in [(model, ToyModel), *((w, Features) for w in worlds), (training, Training)]:
        if not isinstance(each, kind):
            raise TypeError(
                f"train: {each!r} is no {kind.__name__}; the order is train(ToyModel(n=…, m=…), "
                "Features(n=…, p=…), Training(steps=…))"
            )
    return worlds, range(runs) if isinstance(runs, int) else runs


def _check(
    model: ToyModel, worlds: tuple[Features, ...], numbers: range, seed: int, backend: str
) -> None:
    if not worlds or not len(numbers):
        raise ValueError("train: there is nothing to train; give at least one world and one run")
    if numbers[0] < 0 or numbers[-1] < 0 or not 0 <= seed < 2**32:
        raise ValueError(
            f"train(runs={numbers}, seed={seed}): run numbers and seed start at 0, and a seed is "
            "below 2**32"
        )
    for world in worlds:
        p = float(world.set_probability.min())
        if p < 2**-32:
            raise ValueError(
                f"train: the world has p={p:g}, but a draw has 32 bits; give p of at least 2**-32"
            )
        if backend == "cpu" and not streams.is_uniform(world):
            raise ValueError(
                f'train(backend="cpu"): the fused kernel draws uniform features, not {world}; '
                'pass backend="auto" or "torch"'
            )
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


def _trained(model, world, training, number, kernel):
    """W and b at each snapshot and at the end, fused where there is a kernel."""
    if kernel is None:
        return _train_torch(model, world, training, number)
    return _train_cpu(model, world, training, number, kernel)


def _train_cpu(model, world, training, number, kernel):
    W, b = (a.numpy() for a in model.initial(*number))
    moments = np.zeros((2, model.n, model.m + 1), np.float32)
    importance = world.importances.astype(np.float32)
    key, law = np.uint64(streams.stream_key(*number)), streams.thresholds(world)
    rates = training.learning_rates().astype(np.float32)
    decay = np.float32(training.weight_decay)
    for a, z in _segments(training):
        kernel(W, b, moments, importance, law, key, rates[a:z], training.batch, decay, a)
        yield W, b


def _train_torch(model, world, training, number):
    W, b = (a.requires_grad_() for a in model.initial(*number))
    importance = torch.as_tensor(world.importances, dtype=torch.float32)
    optimiser = torch.optim.AdamW([W, b], lr=training.lr, weight_decay=training.weight_decay)
    key, rates = streams.stream_key(*number), training.learning_rates()
    for a, z in _segments(training):
        for step in range(a, z):
            optimiser.param_groups[0]["lr"] = float(rates[step])
            x = torch.from_numpy(batches.draw_batch(world, training.batch, key, step))
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
