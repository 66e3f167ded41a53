"""What training leaves: a stack of models with their losses, tables and files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from superpose import measures, records
from superpose.engine.training import Training
from superpose.features import Amplitude, Features, Law
from superpose.models import ToyModel, ToyNetwork


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

        >>> from superpose.engine import train
        >>> run = train(ToyModel(n=2, m=1), Features(n=2), Training(steps=10), runs=4)
        >>> run.best().loss == run.loss.min()
        tensor([True])
        """
        at = self.loss.nan_to_num(nan=torch.inf).argmin(-1, keepdim=True)
        return self._take(at)

    def finite(self) -> "Run":
        """The stack without the run numbers of which any model diverged."""
        diverged = self.diverged.reshape(-1, self.index.shape[-1]).any(0)
        (at,) = torch.nonzero(~diverged, as_tuple=True)
        return self._take(at.expand(*self.loss.shape[:-1], -1)) if diverged.any() else self

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

        Both have `world`, `p` (mean over the features), `run` and the model's `loss`; models add
        the measures of the whole, features `importance` and the measures of each.
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
        key["loss"] = np.repeat(self.loss.numpy().ravel(), n)
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
    steps = tuple(training.snapshots)
    return Run(
        model=ToyModel(**about["model"]),
        worlds=tuple(world_from(d) for d in about["worlds"]),
        training=training,
        seed=about["seed"],
        index=record.arrays["index"],
        snapshots=Snapshots(steps, arrays["snapshots.W"], arrays["snapshots.b"]),
        kernel=about["kernel"],
        **{name: arrays[name] for name in ("W", "b", "loss", "loss_se")},
    )


def describe_world(world: Features) -> dict[str, Any]:
    """A world as plain JSON values; `world_from` is the inverse."""
    plain = {
        "n": world.n,
        "p": world.p,
        "importance": world.importance,
        "law": _described(world.law),
        "amplitude": _described(world.amplitude),
        "signed": world.signed,
    }
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def world_from(described: dict[str, Any]) -> Features:
    """The world that `describe_world` described."""
    made = {"law": _made(described["law"], Law)}
    if "amplitude" in described:  # records written before there were other laws have none
        made["amplitude"] = _made(described["amplitude"], Amplitude)
    return Features(**{**described, **made})


def _described(part: Law | Amplitude) -> dict[str, Any]:
    return {"name": type(part).__name__.lower(), **asdict(part)}


def _made(described: dict[str, Any], kinds: Any) -> Any:
    given = dict(described)
    named = {kind.__name__.lower(): kind for kind in get_args(kinds)}
    return named[given.pop("name")](**given)


def _flat(columns: dict[str, Tensor], n: int) -> dict[str, np.ndarray]:
    return {name: value.reshape(-1).numpy() for name, value in columns.items()}
