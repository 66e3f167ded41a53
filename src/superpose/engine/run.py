"""What training leaves: a stack of models with their losses, tables and files."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from superpose import records
from superpose.engine import files, tables
from superpose.engine.backends import backend_of, kernel_of, shapes_of
from superpose.engine.continuation import check_agree, start_from
from superpose.engine.modules import learning
from superpose.engine.shards import CHECK, Job, Progress, carry_out
from superpose.engine.states import State, concatenate
from superpose.engine.training import Training
from superpose.features import Features
from superpose.kernels import streams
from superpose.models import ToyModel, ToyNetwork


class _Weights:
    """The parameters of a state, by the names they have in formulas."""

    __slots__ = ()

    state: State

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name: W and b, W_in, W_out and b, or those of a module."""
        return self.state.parameters

    @property
    def W(self) -> Float[Tensor, "*stack n m"]:
        """The weights of tied models, rows are directions."""
        return self._parameter("W")

    @property
    def W_in(self) -> Float[Tensor, "*stack n m"]:
        """The weights into the hidden layer; W of tied models."""
        return self._parameter("W_in")

    @property
    def W_out(self) -> Float[Tensor, "*stack n m"]:
        """The weights out of the hidden layer; W of tied models."""
        return self._parameter("W_out")

    @property
    def b(self) -> Float[Tensor, "*stack n"]:
        """The biases of the output."""
        return self._parameter("b")

    @property
    def loss(self) -> Float[Tensor, "*stack"]:
        """Exact expected loss where theory has it or a world is finite, else an estimate.

        Float64, without the L1 term; NaN for a model that diverged.
        """
        return self.state.loss

    @property
    def loss_se(self) -> Float[Tensor, "*stack"]:
        """Standard error of `loss`: 0 where it is exact."""
        return self.state.loss_se

    def _parameter(self, name: str) -> Tensor:
        found = self.parameters
        if name not in found and name in ("W_in", "W_out") and "W" in found:
            return found["W"]
        if name not in found:
            raise AttributeError(
                f"these models have no {name}: their parameters are {', '.join(found)}"
            )
        return found[name]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshots(_Weights):
    """The models after `steps` steps each: `[snapshot, *run, …]` in every array.

    A model that stopped before a snapshot is there as it was when it stopped.
    """

    steps: tuple[int, ...]
    state: State


@dataclass(frozen=True, slots=True, eq=False)
class Run(_Weights):
    """A trained stack: the stack axes `*run` are `[runs]`, or `[worlds, runs]` over worlds.

    `W`, `b` and the other `parameters`, `loss`, `loss_se` and `steps` have these axes first.
    `index` holds the number that, with `seed`, determines each model: the run number, or with
    restarts that of the best. Bits are equal for one `kernel` on one `processor`.
    """

    model: ToyModel | Any
    worlds: tuple[Features, ...]
    training: Training
    seed: int
    index: Int[np.ndarray, "*run"]
    state: State
    snapshots: Snapshots
    kernel: str
    processor: str

    @property
    def steps(self) -> Int[Tensor, "*run"]:
        """Steps that each model took: fewer than asked for where it stopped or diverged."""
        return self.state.steps

    @property
    def diverged(self) -> Tensor:
        """Which models ended with a NaN or an overflow, bool `[*run]`; see `advice`."""
        return ~torch.isfinite(self.loss)

    @property
    def advice(self) -> str:
        """What to do about models that diverged; empty where none has."""
        diverged = self.diverged
        if not diverged.any():
            return ""
        seen, training = int(self.steps[diverged].min()), self.training
        ways = ["a lower lr"]
        ways += ["warmup=…"] if not training.warmup else []
        ways += ["a weight_decay of at least 0"] if training.weight_decay < 0 else []
        return (
            f"{int(diverged.sum())} of {diverged.numel()} models diverged (a NaN or an overflow), "
            f"seen first after {seen} steps (looked for every {CHECK} and at the end); try "
            f"{' or '.join(ways)}. The others are as they would be without them"
        )

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
        def take(array: Tensor, leading: int) -> Tensor:
            trailing = array.ndim - at.ndim - leading
            index = at.reshape((1,) * leading + at.shape + (1,) * trailing)
            return torch.take_along_dim(array, index, dim=leading + at.ndim - 1)

        kept = self.snapshots.state.map(lambda array: take(array, 1))
        return replace(
            self,
            index=np.take_along_axis(self.index, at.numpy(), -1),
            state=self.state.map(lambda array: take(array, 0)),
            snapshots=Snapshots(self.snapshots.steps, kept),
        )

    def module(self, *at: int) -> nn.Module:
        """One model as an nn.Module: `module(run)`, or `module(world, run)` over worlds.

        Of a run of a module it is a copy of that with the parameters of one model, so that its
        stack has one entry.
        """
        if len(at) != self.loss.ndim:
            axes = ["run"] if self.loss.ndim == 1 else ["world", "run"]
            raise ValueError(f"module{at}: this stack has the axes {axes}; give one index for each")
        if isinstance(self.model, ToyModel):
            return ToyNetwork(self.model, *(value[at] for value in self.parameters.values()))
        module = copy.deepcopy(self.model)
        for name, parameter in learning(module).items():
            parameter.data = self.parameters[name][at].clone()[None].to(parameter.device)
        return module

    def resume(
        self,
        training: Training | None = None,
        *,
        snapshot: int | None = None,
        progress: Progress | None = None,
    ) -> "Run":
        """Go on with training, from the end or from the snapshot after `snapshot` steps.

        The result equals, bit for bit, that of an uninterrupted `train` with `training` (as
        before, where not given) on the same processor; of restarts the ones kept go on. So a
        recipe has to agree with what was already done: the learning rates of past steps, decay,
        batch, L1 and stop. A longer one with a constant schedule does, and may ask for more
        snapshots.
        Raises ValueError for a recipe that disagrees and a snapshot that was not kept.

        >>> from superpose.engine import train
        >>> model, world = ToyModel(n=2, m=1), Features(n=2)
        >>> run = train(model, world, Training(steps=10), runs=2)
        >>> longer = run.resume(Training(steps=20))
        >>> torch.equal(longer.W, train(model, world, Training(steps=20), runs=2).W)
        True
        """
        training = self.training if training is None else training
        states = {
            step: self.snapshots.state.map(lambda array, k=k: array[k])
            for k, step in enumerate(self.snapshots.steps)
        } | {self.training.steps: self.state}
        at = self.training.steps if snapshot is None else snapshot
        check_agree(self.training, training, at, self.worlds, self.index)
        job = Job(
            model=self.model,
            worlds=self.worlds,
            training=training,
            seed=self.seed,
            numbers=self.index.reshape(len(self.worlds), -1),
            backend=backend_of(self.kernel),
            start=start_from(states, at, training),
        )
        return finished(job, self.index.shape, progress)

    def table(self, rows: Literal["models", "features"] = "models") -> pa.Table:
        """One row a model, or one row a model and feature.

        Both have `world`, `p` (mean over the features), `run` and the model's `loss`; models add
        `loss_se`, `steps`, `diverged` and the measures of the whole, features `importance` and
        the measures of each. Measures are those of W, of W_in where models are untied: the
        directions in which features enter the hidden layer. Modules whose parameters have no W
        or W_in have no measures.
        """
        return tables.table(self.worlds, self.index, self.state, rows)

    def save(self, folder: str | Path) -> Path:
        """Write the run to a folder, atomically; the same run gives the same bytes.

        Of a module its parameters are written, not its code: `load` asks for it again.
        """
        about = {
            "model": files.describe_model(self.model),
            "worlds": [files.describe_world(world) for world in self.worlds],
            "training": files.describe_training(self.training),
            "seed": self.seed,
            "kernel": self.kernel,
            "processor": self.processor,
            "parameters": list(self.parameters),
        }
        names = files.array_names(self.model, self.parameters)
        arrays = {
            "index": self.index,
            **files.state_arrays(self.state, names),
            **files.state_arrays(self.snapshots.state, names, "snapshots."),
            **files.point_arrays(self.worlds),
        }
        return records.save(folder, kind="run", about=about, arrays=arrays)


def finished(job: Job, axes: tuple[int, ...], progress: Progress | None) -> Run:
    """Carry a job out; its cells are given the axes `*run`."""
    stack, shapes = carry_out(job, progress), shapes_of(job.model)
    return Run(
        model=job.model,
        worlds=job.worlds,
        training=job.training,
        seed=job.seed,
        index=stack.index.reshape(axes),
        state=stack.end.state(shapes, axes),
        snapshots=Snapshots(tuple(job.training.snapshots), stack.kept.state(shapes, axes)),
        kernel=kernel_of(job.backend),
        processor=streams.processor(),
    )


def stack(runs: Sequence[Run]) -> Run:
    """Join runs over worlds, trained alike, into one over all their worlds.

    A run of one world without an axis for it counts as one over it. Raises ValueError where
    there are none, and for runs that differ in anything but their worlds.
    """
    if not runs:
        raise ValueError("stack: there is nothing to join; give at least one run")
    runs = [_over_worlds(run) for run in runs]
    first = runs[0]
    for run in runs:
        for name in ("model", "training", "seed", "kernel", "processor"):
            if getattr(run, name) != getattr(first, name):
                raise ValueError(f"stack: the runs differ in {name}")
        if run.loss.shape[1:] != first.loss.shape[1:]:
            raise ValueError("stack: the runs differ in how many models they have of a world")
    return replace(
        first,
        worlds=tuple(world for run in runs for world in run.worlds),
        index=np.concatenate([run.index for run in runs]),
        state=concatenate([run.state for run in runs], 0),
        snapshots=Snapshots(
            first.snapshots.steps, concatenate([run.snapshots.state for run in runs], 1)
        ),
    )


def _over_worlds(run: Run) -> Run:
    if run.loss.ndim > 1:
        return run
    snapshots = run.snapshots.state.map(lambda array: array[:, None])
    return replace(
        run,
        index=run.index[None],
        state=run.state.map(lambda array: array[None]),
        snapshots=Snapshots(run.snapshots.steps, snapshots),
    )


def load(folder: str | Path, module: nn.Module | None = None) -> Run:
    """Read a run written by `Run.save`; raises records.RecordError where a byte has changed.

    A run of a module needs a `module` like the one that was trained; its own weights do not
    matter.
    """
    record = records.load(folder, kind="run")
    about, arrays = record.about, record.arrays
    training, points = files.training_from(about["training"]), files.points_from(arrays)
    steps = tuple(training.snapshots)
    model = files.model_from(about["model"], copy.deepcopy(module))
    names = files.array_names(model, about.get("parameters", ["W", "b"]))
    return Run(
        model=model,
        worlds=tuple(files.world_from(d, points) for d in about["worlds"]),
        training=training,
        seed=about["seed"],
        index=arrays["index"],
        state=files.state_from(arrays, names, "", np.array(training.steps)),
        snapshots=Snapshots(
            steps, files.state_from(arrays, names, "snapshots.", np.array(steps, np.int64))
        ),
        kernel=about["kernel"],
        processor=about.get("processor", ""),
    )
