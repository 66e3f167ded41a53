"""Any module with a stack axis as a stack of models: what it must be, and whether it is."""

import copy

import torch
from torch import Tensor, nn

from superpose.engine.states import Shapes


def adopted(module: nn.Module, runs: int, n: int) -> nn.Module:
    """A copy of `module` to train as a stack of `runs` models of `n` features; checked.

    The module takes x `[runs, batch, n]` and returns x̂ of the same shape; every parameter that
    learns is float32 with `runs` as its first axis, and belongs to one entry of the stack alone.
    Raises ValueError where it is otherwise.
    """
    name = type(module).__name__
    shapes = {key: tuple(value.shape) for key, value in learning(module).items()}
    if not shapes:
        raise ValueError(f"train({name}): the module has no parameters that learn")
    for key, value in learning(module).items():
        if value.ndim == 0 or value.shape[0] != runs:
            raise ValueError(
                f"train({name}, runs={runs}): parameter {key} has shape {list(value.shape)}; every "
                f"parameter has the stack axis first: [{runs}, …]"
            )
        if value.dtype != torch.float32:
            raise ValueError(f"train({name}): parameter {key} is {value.dtype}; it is float32")
    module = copy.deepcopy(module)
    _probe(module, runs, n)
    return module


def learning(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name."""
    return {key: value for key, value in module.named_parameters() if value.requires_grad}


def model_shapes(module: nn.Module) -> Shapes:
    """The parameters of one model of the stack, by name."""
    return {key: tuple(value.shape[1:]) for key, value in learning(module).items()}


def _probe(module: nn.Module, runs: int, n: int) -> None:
    """See on a batch that it keeps shapes, repeats itself, and keeps its models apart."""
    name = type(module).__name__
    parameters = learning(module)
    device = next(iter(parameters.values())).device
    x = torch.rand(runs, 3, n, generator=torch.Generator().manual_seed(0)).to(device)
    before = [value.clone() for value in module.buffers()]
    try:
        out = module(x)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"train({name}): it failed on x of shape {list(x.shape)}, which is [run, batch, n]: "
            f"{error}"
        ) from error
    if not isinstance(out, Tensor) or out.shape != x.shape:
        got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"train({name}): x of shape {list(x.shape)} came back as {got}; x̂ has the shape of x, "
            "[run, batch, n]"
        )
    if not out.requires_grad:
        raise ValueError(f"train({name}): x̂ depends on no parameter that learns")
    if any(not torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True)):
        raise ValueError(
            f"train({name}): a buffer of it changes as it computes, which a run could not keep; "
            "use layers without running statistics"
        )
    if not torch.equal(module(x), out):
        raise ValueError(
            f"train({name}): it gives another x̂ each time; a model has no randomness of its own "
            "(dropout is turned off by module.eval())"
        )
    if runs > 1:
        _check_apart(module, x, out)


def _check_apart(module: nn.Module, x: Tensor, out: Tensor) -> None:
    """Raise ValueError where one model's input or parameters reach another's output."""
    name, last = type(module).__name__, len(x) - 1
    for changed in (0, last):
        moved = x.clone()
        moved[changed] += 1.0
        others = [r for r in range(len(x)) if r != changed]
        if not torch.equal(module(moved)[others], out[others]):
            raise ValueError(
                f"train({name}): the input of run {changed} changes x̂ of other runs; the first "
                "axis is the stack, along which nothing may be summed, normalised or mixed"
            )
    parameters = list(learning(module).items())
    # Weights drawn afresh for each sample of x̂ make sure that no slope vanishes by chance.
    weights = torch.rand(out[0].shape, generator=torch.Generator().manual_seed(1)).to(out.device)
    leaves = [value for _, value in parameters]
    slopes = torch.autograd.grad((weights * out[0]).sum(), leaves, allow_unused=True)
    for (key, _), slope in zip(parameters, slopes, strict=True):
        if slope is not None and slope[1:].any():
            raise ValueError(
                f"train({name}): x̂ of run 0 depends on {key} of other runs; the first axis of a "
                "parameter is the stack, and each run has its own entry"
            )
