"""The loss of trained models: exact where that is possible, else on fresh samples."""

import copy
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.func import functional_call

from superpose import theory
from superpose.engine.states import Shapes, split
from superpose.features import Features, Finite
from superpose.models import ToyModel

SAMPLES_FOR_LOSS = 65_536
"""Fresh samples that estimate a loss for which theory has no closed form."""

# Numbers in a piece of samples, and rows of weights that theory sees at once: they bound memory.
_PIECE = 1_000_000
_ROWS = 50_000

Losses = tuple[Float[np.ndarray, " models"], Float[np.ndarray, " models"]]


def evaluate(
    model: ToyModel | nn.Module,
    world: Features,
    theta: Float32[np.ndarray, "models P"],
    shapes: Shapes,
    seed: int,
) -> Losses:
    """Loss of each model and its standard error; NaN where a parameter is not finite.

    A model's loss depends on its own parameters, the world and the seed alone.
    """
    finite = np.isfinite(theta).all(1)
    loss, se = np.full(len(theta), np.nan), np.zeros(len(theta))
    if isinstance(model, nn.Module):
        # It has a fixed stack, so the diverged ones are computed with the others.
        loss[:], se[:] = _sampled(_module_errors(model, theta, shapes, world), world, seed)
        loss[~finite], se[~finite] = np.nan, 0.0
    elif finite.any():
        loss[finite], se[finite] = _toy_losses(model, world, theta[finite], shapes, seed)
    return loss, se


def is_exact(model: ToyModel | nn.Module, world: Features) -> bool:
    """Whether the loss in this world is exact, not an estimate."""
    if isinstance(world.law, Finite):
        return True
    if not isinstance(model, ToyModel) or model.hidden != "linear":
        return False
    together = world.signed and world.law.size > 1 and not world.law.exclusive
    return model.target == "identity" or not together


def _toy_losses(model, world, theta, shapes, seed) -> Losses:
    if isinstance(world.law, Finite) or not is_exact(model, world):
        return _sampled(_toy_errors(model, theta, shapes, world), world, seed)
    loss = []
    step = max(1, _ROWS // model.n)
    for first in range(0, len(theta), step):
        parameters = split(torch.from_numpy(theta[first : first + step]), shapes)
        W_in, *_, b = parameters.values()
        asked = {"output": model.output, "target": model.target}
        W_out = None if model.tied else parameters["W_out"]
        loss.append(theory.expected_loss(W_in, b, world, W_out=W_out, **asked))
    return torch.cat(loss).numpy(), np.zeros(len(theta))


Errors = Callable[[Float[Tensor, "batch n"]], Iterable[Float[Tensor, " batch"]]]
"""The weighted squared error of each model at each sample, model by model."""


def _toy_errors(model, theta, shapes, world) -> Errors:
    exact = isinstance(world.law, Finite)
    kind = torch.float64 if exact else torch.float32
    importance = torch.as_tensor(world.importances, dtype=kind)
    # One model at a time, so that a stack changes no bit of it.
    models = [tuple(split(torch.from_numpy(row).to(kind), shapes).values()) for row in theta]

    def errors(x: Tensor) -> Iterator[Tensor]:
        target = x.abs() if model.target == "abs" else x
        for each in models:
            yield (importance * (target - model.forward(x, *each)) ** 2).sum(-1)

    return errors


def _module_errors(module, theta, shapes, world) -> Errors:
    importance = torch.as_tensor(world.importances, dtype=torch.float32)
    # `functional_call` lends the module's parameters, and threads share the module.
    module = copy.deepcopy(module)
    device = next(module.parameters()).device
    parameters = split(torch.from_numpy(theta).to(device), shapes)

    @torch.no_grad()
    def errors(x: Tensor) -> Iterable[Tensor]:
        x = x.float().to(device).expand(len(theta), *x.shape)
        out = functional_call(module, parameters, (x,))
        return (importance.to(device) * (x - out) ** 2).sum(-1).cpu()

    return errors


def _sampled(errors: Errors, world: Features, seed: int) -> Losses:
    """Mean over samples and its standard error; over all points of a finite world, which has 0."""
    count, total, square = 0, 0.0, 0.0
    for x in _pieces(world, seed):
        count += len(x)
        # One model at a time: all of a stack at once would take much memory.
        sums = [(e.double().sum(), e.double().square().sum()) for e in errors(x)]
        totals, squares = zip(*sums, strict=True)
        total = total + torch.stack(totals)
        square = square + torch.stack(squares)
    mean = torch.as_tensor(total) / count
    if isinstance(world.law, Finite):
        return mean.numpy(), np.zeros(len(mean))
    variance = (torch.as_tensor(square) / count - mean**2).clamp(min=0.0)
    return mean.numpy(), (variance / count).sqrt().numpy()


def _pieces(world: Features, seed: int) -> Iterator[Float[Tensor, "batch n"]]:
    """Samples of the world, as many at once as fit: its points, or `SAMPLES_FOR_LOSS` fresh."""
    at_once = max(1, min(SAMPLES_FOR_LOSS, 2 ** int(np.log2(max(1, _PIECE // world.n)))))
    if isinstance(world.law, Finite):
        for first in range(0, world.law.points.count, at_once):
            dense = world.law.points.matrix[first : first + at_once].toarray()
            yield torch.from_numpy(dense).double()
    else:
        pieces = SAMPLES_FOR_LOSS // at_once
        for piece in range(pieces):
            yield world.sample(at_once, seed=seed * SAMPLES_FOR_LOSS + piece)
