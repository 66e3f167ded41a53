"""`train`: from a model, worlds and a recipe to a `Run`, whatever trains it."""

from collections.abc import Sequence
from operator import index
from typing import Any, Literal, SupportsIndex

import numpy as np
from torch import nn

from superpose.engine.modules import adopted
from superpose.engine.run import Run, finished
from superpose.engine.shards import Job, Progress
from superpose.engine.training import Training
from superpose.features import Features, Finite
from superpose.models import ToyModel

_LARGEST = 1e18
"""Of importances and amplitudes: squared they still fit float32."""


def train(
    model: ToyModel | nn.Module,
    world: Features | Sequence[Features],
    training: Training | None = None,
    *,
    runs: SupportsIndex | range = 8,
    seed: SupportsIndex = 0,
    backend: Literal["auto", "torch", "cpu"] = "auto",
    progress: Progress | None = None,
    restarts: SupportsIndex = 1,
) -> Run:
    """Train `runs` models of each world from scratch.

    A model depends on (model, its world, training, seed, run number) alone: `runs=range(37, 38)`
    trains number 37 to the same bits as in a stack of a thousand, and a list of worlds gives
    each the same numbers (the same initial weights and random stream: paired comparisons).
    With `restarts` run r is the best of the models numbered r restarts, …, (r + 1) restarts − 1,
    to the same bits as among so many runs; `Run.index` tells which. Several learning rates or
    given weights are then one for each of these numbers.

    "auto" is "cpu", the fused kernel with one shard of models a thread (as many threads as the
    process may use, or SUPERPOSE_THREADS). "torch" is the plain definition on batches from the
    same stream, slow; it also takes any nn.Module in place of the model. A module maps x
    `[runs, batch, n]` to x̂ `[runs, batch, n]`, and every parameter has the runs first (runs ·
    restarts of them); a copy of it is trained, from the weights it has, on
    $\\sum_i I_i (x_i - \\hat x_i)^2$, each run on its own stream.
    Raises ValueError where sizes do not fit, for a p too small to draw, and for a module that
    mixes its stack.

    >>> run = train(ToyModel(n=5, m=2), Features(n=5, p=0.05), Training(steps=100), runs=3)
    >>> run.W.shape, run.loss.shape
    (torch.Size([3, 5, 2]), torch.Size([3]))
    """
    training = Training() if training is None else training
    worlds = _worlds(model, world, training)
    numbers = _numbers(runs, restarts, seed)
    for each in worlds:
        _check_world(each, worlds[0].n if isinstance(model, nn.Module) else model.n)
    name = _backend(model, training, backend)
    if isinstance(model, nn.Module):
        model = adopted(model, numbers.size, worlds[0].n)
    job = Job(
        model=model,
        worlds=worlds,
        training=training,
        seed=index(seed),
        numbers=np.tile(numbers, (len(worlds), 1)),
        backend=name,
        restarts=index(restarts),
    )
    axes = (job.runs,) if isinstance(world, Features) else (len(worlds), job.runs)
    return finished(job, axes, progress)


def _worlds(model: Any, world: Any, training: Any) -> tuple[Features, ...]:
    worlds = tuple(world) if isinstance(world, Sequence) else (world,)
    kinds = [(model, ToyModel | nn.Module), *((w, Features) for w in worlds), (training, Training)]
    for each, kind in kinds:
        if not isinstance(each, kind):
            name = "ToyModel or nn.Module" if kind == ToyModel | nn.Module else kind.__name__
            raise TypeError(
                f"train: {each!r} is no {name}; the order is train(ToyModel(n=…, m=…), "
                "Features(n=…, p=…), Training(steps=…))"
            )
    if not worlds:
        raise ValueError("train: there is nothing to train; give at least one world")
    return worlds


def _numbers(
    runs: SupportsIndex | range, restarts: SupportsIndex, seed: SupportsIndex
) -> np.ndarray:
    """The numbers of the models of each world."""
    try:
        asked = runs if isinstance(runs, range) else range(index(runs))
        seed, restarts = index(seed), index(restarts)
    except TypeError:
        raise ValueError(
            f"train(runs={runs!r}, seed={seed!r}, restarts={restarts!r}): whole numbers, or a "
            "range of run numbers"
        ) from None
    if not len(asked):
        raise ValueError("train: there is nothing to train; give at least one run")
    if min(asked) < 0 or not 0 <= seed < 2**32:
        raise ValueError(
            f"train(runs={asked}, seed={seed}): run numbers and seed start at 0, and a seed is "
            "below 2**32"
        )
    if restarts < 1:
        raise ValueError(f"train(restarts={restarts!r}): a whole number of at least 1")
    return (np.array(asked)[:, None] * restarts + np.arange(restarts)).ravel()


def _check_world(world: Features, n: int) -> None:
    if world.n != n:
        raise ValueError(
            f"train: the model has n={n} features but the world has n={world.n}; make them equal"
        )
    p = float(world.set_probability.min())
    if p < 2**-31 and not isinstance(world.law, Finite):
        raise ValueError(
            f"train: the world has p={p:g}, but a draw has 31 bits; give p of at least 2**-31"
        )
    size = getattr(world.amplitude, "scale", getattr(world.amplitude, "value", 1.0))
    for name, most in (("importance", world.importances.max()), ("amplitude", size)):
        if most > _LARGEST:
            raise ValueError(
                f"train: the world has an {name} of {most:g}, whose losses are no float32 numbers; "
                f"keep it below {_LARGEST:g}"
            )


def _backend(model: ToyModel | nn.Module, training: Training, backend: str) -> str:
    if backend == "cuda":
        raise ValueError('train(backend="cuda"): there is no kernel for GPUs yet; "auto" is "cpu"')
    if backend not in ("auto", "torch", "cpu"):
        raise ValueError(f'train(backend={backend!r}): "auto", "torch" or "cpu"')
    if isinstance(model, ToyModel):
        return "cpu" if backend == "auto" else backend
    if backend == "cpu":
        raise ValueError(
            f'train({type(model).__name__}, backend="cpu"): the fused kernel knows a ToyModel '
            'only; pass backend="torch"'
        )
    if training.l1:
        raise ValueError(
            f"train({type(model).__name__}, Training(l1={training.l1:g})): a module has no hidden "
            "layer that training knows of; give l1=0"
        )
    return "torch"
