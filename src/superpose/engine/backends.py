"""Two ways through the steps of training, the fused kernel and plain PyTorch, behind one call."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor, nn
from torch.func import functional_call

from superpose.engine.modules import learning, model_shapes
from superpose.engine.states import Shapes, split
from superpose.engine.training import Training
from superpose.features import Features, Finite
from superpose.kernels import batches, cpu, streams
from superpose.models import ToyModel

Advance = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], None]
"""`advance(theta, moments, keys, rates, losses, first)` trains models of one world in place.

theta `[models, P]`, moments `[models, 2, P]`, keys `[models]` of their streams, rates `[models or
1, steps]`; the batch loss of every step goes to `losses` `[models, steps]` where it has columns.
The steps are first, first + 1, …
"""


class Backend(NamedTuple):
    """How the models of one world are trained."""

    advance: Advance
    whole: bool  # all models of the stack have to be given at every call
    shapes: Shapes
    seconds: float  # at most what one step of one model takes, roughly


def kernel_of(backend: str) -> str:
    """The name under which results of a backend are recorded."""
    return cpu.VERSION if backend == "cpu" else backend


def backend_of(kernel: str) -> str:
    """The backend that goes on where results of `kernel` end; ValueError where none does."""
    for backend in ("cpu", "torch"):
        if kernel == kernel_of(backend):
            return backend
    raise ValueError(
        f"resume: the run was trained by the kernel {kernel}, but this is {cpu.VERSION}, which "
        "draws other batches; train it again from the start"
    )


def shapes_of(model: ToyModel | nn.Module) -> Shapes:
    """The parameters of one model, by name."""
    return model.shapes if isinstance(model, ToyModel) else model_shapes(model)


def initial(
    model: ToyModel | nn.Module, seed: int, numbers: Int[np.ndarray, " models"]
) -> Float32[np.ndarray, "models P"]:
    """The parameters of models at step 0, flattened; a module has those of all its models."""
    if isinstance(model, ToyModel):
        models = [model.initial(seed, int(number)) for number in numbers]
        return np.stack(
            [np.concatenate([part.numpy().ravel() for part in each]) for each in models]
        )
    parts = [value.detach().cpu().reshape(len(value), -1) for value in learning(model).values()]
    return torch.cat(parts, 1).numpy()


def backend(model: ToyModel | nn.Module, world: Features, training: Training, name: str) -> Backend:
    """The way that `name` ("cpu" or "torch") trains this model in this world."""
    shapes = shapes_of(model)
    numbers = sum(int(np.prod(shape)) for shape in shapes.values())
    # Five products of the batch with the parameters, at no great rate.
    seconds = 10 * numbers * batch_size(world, training) / 1e10 + 1e-6
    if isinstance(model, nn.Module):
        return Backend(_module_advance(model, world, training, shapes), True, shapes, seconds)
    if name == "torch":
        advance = _torch_advance(model, world, training, shapes)
        return Backend(advance, False, shapes, seconds + 1e-3)
    return Backend(_fused_advance(model, world, training), False, shapes, seconds)


def batch_size(world: Features, training: Training) -> int:
    """Samples of a step: all points of a finite world."""
    return world.law.points.count if isinstance(world.law, Finite) else training.batch


def _fused_advance(model: ToyModel, world: Features, training: Training) -> Advance:
    batch = batch_size(world, training)
    law = streams.tables(world, batch)
    importance = world.importances.astype(np.float32)

    def advance(theta, moments, keys, rates, losses, first):
        recipe = cpu.Recipe(importance, batch, training.weight_decay, training.l1, first)
        cpu.train(model, world, law, recipe, (theta, moments, keys), (rates, losses))

    # Compiling before the threads start keeps them from doing it all at once.
    size = sum(int(np.prod(shape)) for shape in model.shapes.values())
    theta, moments = np.zeros((0, size), np.float32), np.zeros((0, 2, size), np.float32)
    losses = np.zeros((0, 1 if training.stop else 0), np.float32)
    advance(theta, moments, np.zeros(0, np.uint64), np.zeros((1, 0), np.float32), losses, 0)
    return advance


def _torch_advance(model: ToyModel, world: Features, training: Training, shapes: Shapes) -> Advance:
    importance = torch.as_tensor(world.importances, dtype=torch.float32)
    draw = _drawer(world, training)

    def advance(theta, moments, keys, rates, losses, first):
        # One model at a time, so that a stack changes no bit of it.
        for r, (row, moment, key) in enumerate(zip(theta, moments, keys, strict=True)):
            values, moment = torch.from_numpy(row), torch.from_numpy(moment)
            for s, rate in enumerate(rates[r % len(rates)].tolist()):
                leaf = values.clone().requires_grad_()
                x = draw(int(key), first + s)
                parameters = split(leaf, shapes).values()
                loss = model.loss(x, *parameters, importance=importance, l1=training.l1)
                (slope,) = torch.autograd.grad(loss, leaf)
                _adamw(values, moment, slope, rate, training.weight_decay, first + s)
                if losses.size:
                    losses[r, s] = loss.item()

    return advance


def _module_advance(
    module: nn.Module, world: Features, training: Training, shapes: Shapes
) -> Advance:
    # A copy for each world: `functional_call` lends the module's parameters, and threads share.
    module = copy.deepcopy(module)
    device = next(module.parameters()).device
    importance = torch.as_tensor(world.importances, dtype=torch.float32, device=device)
    draw = _drawer(world, training)

    def advance(theta, moments, keys, rates, losses, first):
        values = torch.from_numpy(theta).to(device)
        moment = torch.from_numpy(moments).movedim(1, 0).to(device)
        pace = torch.from_numpy(np.ascontiguousarray(rates)).to(device)
        for s in range(rates.shape[1]):
            leaf = values.clone().requires_grad_()
            x = torch.stack([draw(int(key), first + s) for key in keys]).to(device)
            parameters = {name: each.contiguous() for name, each in split(leaf, shapes).items()}
            out = functional_call(module, parameters, (x,))
            loss = (importance * (x - out) ** 2).sum(-1).mean(-1)
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
            _adamw(values, moment, slope, pace[:, s : s + 1], training.weight_decay, first + s)
            if losses.size:
                losses[:, s] = loss.detach().cpu().numpy()
        theta[:], moments[:] = values.cpu().numpy(), moment.movedim(0, 1).cpu().numpy()

    return advance


def _drawer(world: Features, training: Training) -> Callable[[int, int], Tensor]:
    """The batch of a step of a stream: what the kernel draws, or all points of a finite world."""
    if isinstance(world.law, Finite):
        points = torch.from_numpy(world.law.points.matrix.toarray())
        return lambda key, step: points
    return lambda key, step: torch.from_numpy(batches.draw_batch(world, training.batch, key, step))


def _adamw(theta: Tensor, moments: Any, slope: Tensor, rate: Any, decay: float, step: int) -> None:
    """One step of torch.optim.AdamW with its defaults, in place; `rate` may be one for each row."""
    first, second = moments
    first.lerp_(slope, 0.1)
    second.mul_(0.999).addcmul_(slope, slope, value=1.0 - 0.999)
    root = (second.sqrt() / (1.0 - 0.999 ** (step + 1)) ** 0.5).add_(1e-8)
    theta.mul_(1.0 - rate * decay)
    theta.sub_(rate / (1.0 - 0.9 ** (step + 1)) * (first / root))
