"""A trained stack as a table: one row a model, or one row a model and feature."""

from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from torch import Tensor

from superpose import measures
from superpose.engine.states import State
from superpose.features import Features


def table(
    worlds: tuple[Features, ...],
    index: Int[np.ndarray, "*run"],
    state: State,
    rows: Literal["models", "features"],
) -> pa.Table:
    """The table of `Run.table`."""
    if rows not in ("models", "features"):
        raise ValueError(f'table(rows={rows!r}): "models" or "features"')
    runs, n = index.shape[-1], worlds[0].n
    key = {
        "world": np.repeat(np.arange(len(worlds)), runs),
        "p": np.repeat([world.probability.mean() for world in worlds], runs),
        "run": index.ravel(),
    }
    if rows == "models":
        return pa.table(key | _flat(_model_columns(state)))
    key = {name: np.repeat(column, n) for name, column in key.items()}
    key["loss"] = np.repeat(state.loss.numpy().ravel(), n)
    key["feature"] = np.tile(np.arange(n), index.size)
    importance = np.stack([world.importances for world in worlds])
    key["importance"] = np.repeat(importance, runs, axis=0).ravel()
    return pa.table(key | _flat(_feature_columns(state)))


def _directions(state: State) -> Tensor | None:
    """The directions in which features enter the hidden layer."""
    return state.parameters.get("W", state.parameters.get("W_in"))


def _model_columns(state: State) -> dict[str, Tensor]:
    W = _directions(state)
    found = {"loss": state.loss, "loss_se": state.loss_se}
    if W is not None:
        found |= {
            "capacity": measures.capacity(W),
            "dims_per_feature": measures.dims_per_feature(W),
            "represented": measures.represented(W).sum(-1),
            "polysemanticity": measures.polysemanticity(W).double().mean(-1),
        }
    return found | {"steps": state.steps, "diverged": ~state.loss.isfinite()}


def _feature_columns(state: State) -> dict[str, Tensor]:
    W, found = _directions(state), {}
    if W is not None:
        found["norm"] = measures.feature_norms(W)
    if "b" in state.parameters:
        found["bias"] = state.parameters["b"]
    if W is not None:
        found |= {
            "interference": measures.interference(W),
            "dimensionality": measures.dimensionality(W),
        }
    return found


def _flat(columns: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.reshape(-1).numpy() for name, value in columns.items()}
