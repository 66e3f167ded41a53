"""Harvest: what the layers of a network say about its inputs, the network left as it was."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from superpose.activations import Activations


def harvest(
    module: nn.Module,
    inputs: Tensor | Iterable[Any],
    layers: Sequence[str],
    *,
    batch: int = 256,
    axis: int | None = None,
) -> dict[str, Activations]:
    """Run `module` on `inputs` and keep the outputs of its `layers`, by name.

    `layers` are names of `module.named_modules()`, "" is the module itself. `inputs` is a tensor,
    cut into batches of `batch` samples, or yields batches: a tensor, a tuple or list whose first
    entry is the input (as data loaders of labelled samples give), or a mapping of keyword
    arguments. Batches move to the device of the module's first parameter, activations come
    back to the CPU as float32. Of an output that is a tuple or mapping the first tensor is taken.

    The axis of units becomes the last; all other axes are samples, in row-major order: tokens
    `[batch, position, d]` give `batch · position` samples, so that labels one an input are
    repeated `position` times. `axis` says which axis holds the units: by default the last; it has
    to be given for outputs of four axes or more, 1 for maps `[batch, channel, height, width]`.

    The module runs in evaluation mode without gradients. Its modes, hooks, gradients and PyTorch's
    random state are as before afterwards, also when it raises. Raises ValueError for unknown
    layers, no inputs, and layers that do not run exactly once a batch or give no tensor.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> acts = harvest(network, torch.ones(10, 4), layers=["1"])
    >>> acts["1"].x.shape
    torch.Size([10, 3])
    """
    if batch < 1:
        raise ValueError(f"harvest(batch={batch}): a batch holds at least 1 sample")
    chosen = _find(module, layers)
    kept: dict[str, list[Tensor]] = {name: [] for name in chosen}
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    seen = 0
    with _as_it_was(module), ExitStack() as hooks:
        for name, layer in chosen.items():
            hooks.enter_context(_listening(layer, name, kept[name], axis))
        for part in inputs.split(batch) if isinstance(inputs, Tensor) else inputs:
            _run(module, part, device)
            seen += 1
            _check_calls(kept, seen)
    if not seen:
        raise ValueError("harvest: there are no inputs; if they are a generator, make a fresh one")
    return {name: Activations(torch.cat(parts)) for name, parts in kept.items()}


def _find(module: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    if isinstance(layers, str) or not layers:
        raise ValueError(f"harvest(layers={layers!r}): a list of names, such as [{layers!r}]")
    modules = dict(module.named_modules())
    for name in layers:
        if name not in modules:
            near = get_close_matches(name, modules, n=3, cutoff=0.4) or list(modules)[1:9]
            raise ValueError(
                f"harvest(layers=[{name!r}]): the module has no layer of that name; the closest "
                f"are {', '.join(repr(other) for other in near) or 'none: it has no submodules'}"
            )
    return {name: modules[name] for name in layers}


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; modes and random state put back after."""
    modes = {part: part.training for part in module.modules()}
    devices = {p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"}
    # Not inference mode: a module may cache tensors that it later wants to train through.
    with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            # Part by part: some may have been frozen in evaluation mode inside a training module.
            for part, training in modes.items():
                part.training = training


@contextmanager
def _listening(layer: nn.Module, name: str, kept: list[Tensor], axis: int | None) -> Iterator[None]:
    def keep(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(_samples(name, layer, _first_tensor(name, output), axis))

    handle = layer.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _first_tensor(name: str, output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output
    if isinstance(parts, Iterable):
        for part in parts:
            if isinstance(part, Tensor):
                return part
    raise ValueError(
        f"harvest: layer {name!r} gives {type(output).__name__}, which holds no tensor; choose a "
        "layer inside it"
    )


def _samples(name: str, layer: nn.Module, output: Tensor, axis: int | None) -> Tensor:
    """Units last, all else flattened; a copy, as a later layer may write into the output."""
    channels_first = isinstance(layer, nn.Conv1d | nn.BatchNorm1d) and output.ndim == 3
    if axis is None and (output.ndim > 3 or channels_first):
        raise ValueError(
            f"harvest: layer {name!r} gives {list(output.shape)}; say which axis holds the units: "
            "axis=1 for channels of convolutional maps, axis=-1 for the last"
        )
    axis = -1 if axis is None else axis
    if output.ndim == 0 or not -output.ndim <= axis < output.ndim:
        raise ValueError(f"harvest(axis={axis}): layer {name!r} gives {list(output.shape)}")
    output = output.unsqueeze(0) if output.ndim == 1 else output.movedim(axis, -1)
    return output.reshape(-1, output.shape[-1]).to("cpu", torch.float32, copy=True)


def _run(module: nn.Module, part: Any, device: torch.device) -> None:
    if isinstance(part, Mapping):
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in part.items()}
        module(**moved)
        return
    part = part[0] if isinstance(part, tuple | list) and part else part
    if not isinstance(part, Tensor):
        raise ValueError(
            f"harvest: inputs yield {type(part).__name__}; give tensors, tuples that begin with "
            "one, or mappings of keyword arguments"
        )
    module(part.to(device))


def _check_calls(kept: Mapping[str, list[Tensor]], seen: int) -> None:
    for name, parts in kept.items():
        if len(parts) != seen:
            raise ValueError(
                f"harvest: layer {name!r} ran {len(parts) - seen + 1} times on one batch, so its "
                "samples do not line up with the inputs; choose one that runs once"
            )
