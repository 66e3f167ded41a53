"""What a run is made from as plain JSON values and arrays, and back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from superpose import initialisation
from superpose.engine.modules import model_shapes
from superpose.engine.states import State
from superpose.engine.stopping import Plateau, new_watch
from superpose.engine.training import Training
from superpose.features import Amplitude, Features, Finite, Law, Points
from superpose.models import ToyModel


def describe_world(world: Features) -> dict[str, Any]:
    """A world as plain JSON values; `world_from` is the inverse.

    A finite world is described by the digest of its points, which are arrays (`point_arrays`).

    >>> describe_world(Features(n=2, p=0.5))["law"]
    {'name': 'independent'}
    """
    plain = {
        "n": world.n,
        "p": world.p,
        "importance": world.importance,
        "law": _described(world.law),
        "amplitude": _described(world.amplitude),
        "signed": world.signed,
    }
    if isinstance(world.law, Finite):
        plain = {key: plain[key] for key in ("n", "importance", "law")}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def world_from(described: dict[str, Any], points: Mapping[str, Points] | None = None) -> Features:
    """The world that `describe_world` described; `points` are those of finite worlds by digest."""
    if described["law"]["name"] == "finite":
        digest = described["law"]["points"]
        if digest not in (points or {}):
            raise ValueError(f"world_from: the points {digest} of a finite world are not given")
        return Features.finite((points or {})[digest], importance=described["importance"])
    made = {"law": _made(described["law"], Law)}
    if "amplitude" in described:  # records written before there were other laws have none
        made["amplitude"] = _made(described["amplitude"], Amplitude)
    return Features(**{**described, **made})


def _described(part: Law | Amplitude) -> dict[str, Any]:
    if isinstance(part, Finite):
        return {"name": "finite", "points": part.points.digest}
    return {"name": type(part).__name__.lower(), **asdict(part)}


def _made(described: dict[str, Any], kinds: Any) -> Any:
    given = dict(described)
    named = {kind.__name__.lower(): kind for kind in get_args(kinds)}
    return named[given.pop("name")](**given)


def point_arrays(worlds: tuple[Features, ...]) -> dict[str, np.ndarray]:
    """The points of finite worlds as arrays, each data set once."""
    arrays = {}
    for law in (world.law for world in worlds if isinstance(world.law, Finite)):
        name, matrix = f"points.{law.points.digest}", law.points.matrix
        arrays |= {
            f"{name}.start": matrix.indptr,
            f"{name}.column": matrix.indices,
            f"{name}.value": matrix.data,
            f"{name}.shape": np.array(matrix.shape),
        }
    return arrays


def points_from(arrays: Mapping[str, np.ndarray]) -> dict[str, Points]:
    """The points that `point_arrays` made arrays of, by digest."""
    digests = {name.split(".")[1] for name in arrays if name.startswith("points.")}
    made = {}
    for digest in digests:
        start, column, value, shape = (
            arrays[f"points.{digest}.{part}"] for part in ("start", "column", "value", "shape")
        )
        made[digest] = Points(csr_array((value, column, start), shape=tuple(shape.tolist())))
    return made


def describe_model(model: ToyModel | nn.Module) -> dict[str, Any]:
    """A model as plain JSON values; a module by its name and the shapes of its parameters."""
    if isinstance(model, nn.Module):
        shapes = {name: list(shape) for name, shape in model_shapes(model).items()}
        return {"module": type(model).__name__, "shapes": shapes}
    plain = {each.name: getattr(model, each.name) for each in fields(model)}
    return plain | {"init": initialisation.describe(model.init)}


def model_from(described: dict[str, Any], module: nn.Module | None) -> ToyModel | nn.Module:
    """The model that `describe_model` described; a module has to be given again."""
    if "module" not in described:
        given = dict(described)
        if "init" in given:
            given["init"] = initialisation.from_description(given["init"])
        return ToyModel(**given)
    if module is None:
        raise ValueError(
            f"load: the run is one of a module {described['module']}, whose code is not in the "
            "record; pass it: load(folder, module=…)"
        )
    shapes = {name: list(shape) for name, shape in model_shapes(module).items()}
    if shapes != described["shapes"]:
        raise ValueError(
            f"load: the module has parameters {shapes} for each run, but the record "
            f"{described['shapes']}; pass a module like the one that was trained"
        )
    return module


def describe_training(training: Training) -> dict[str, Any]:
    """A recipe as plain JSON values; `training_from` is the inverse."""
    plain = asdict(training)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def training_from(described: dict[str, Any]) -> Training:
    """The recipe that `describe_training` described."""
    given: dict[str, Any] = dict(described)
    if given.get("stop"):
        given["stop"] = Plateau(**given["stop"])
    return Training(**given)


_ARRAYS = [each.name for each in fields(State) if each.name != "parameters"]


def array_names(model: ToyModel | nn.Module, parameters: Iterable[str]) -> dict[str, str]:
    """Under which names parameters are kept: their own, apart from those of modules."""
    before = "" if isinstance(model, ToyModel) else "parameters."
    return {name: f"{before}{name}" for name in parameters}


def state_arrays(state: State, names: dict[str, str], prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a state by name, those of parameters by `names`."""
    arrays = {f"{prefix}{name}": getattr(state, name) for name in _ARRAYS}
    arrays |= {f"{prefix}{names[name]}": each for name, each in state.parameters.items()}
    return {name: each.detach().contiguous().numpy() for name, each in arrays.items()}


def state_from(
    arrays: Mapping[str, np.ndarray], names: dict[str, str], prefix: str, steps: np.ndarray
) -> State:
    """The state that `state_arrays` made arrays of, with its parameters in the order of `names`.

    Records of the first kernel have no moments, which stay empty, no loss of snapshots, which is
    NaN, and no `steps`, which are given.
    """
    given = {name: torch.from_numpy(each) for name, each in arrays.items()}
    parameters = {name: given[f"{prefix}{kept}"] for name, kept in names.items()}
    if f"{prefix}moments" in given:
        return State(parameters=parameters, **{name: given[f"{prefix}{name}"] for name in _ARRAYS})
    stack = parameters["b"].shape[:-1]
    taken = torch.from_numpy(steps).reshape(steps.shape + (1,) * (len(stack) - steps.ndim))
    unknown = torch.full(stack, torch.nan, dtype=torch.float64)
    return State(
        parameters=parameters,
        moments=torch.zeros(*stack, 2, 0),
        watch=torch.from_numpy(new_watch(1)).expand(*stack, 3).clone(),
        steps=taken.expand(stack).clone(),
        loss=given.get(f"{prefix}loss", unknown),
        loss_se=given.get(f"{prefix}loss_se", torch.zeros_like(unknown)),
    )
