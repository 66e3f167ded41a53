"""Where a stack of models is in training: parameters, what the optimiser remembers, losses."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from superpose.engine.stopping import new_watch

Shapes = Mapping[str, tuple[int, ...]]
"""Parameters of one model by name."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A stack of models at one moment; the axes `*stack` come first everywhere.

    `parameters` are arrays by name; `moments` are those of AdamW, of all parameters flattened in
    the order of their names; `watch` is what the early stop knows. `steps` is how many steps each
    model has taken, `loss` its loss then (NaN where it diverged), `loss_se` its standard error.
    """

    parameters: dict[str, Tensor]
    moments: Float[Tensor, "*stack 2 P"]
    watch: Float[Tensor, "*stack 3"]
    steps: Int[Tensor, "*stack"]
    loss: Float[Tensor, "*stack"]
    loss_se: Float[Tensor, "*stack"]

    def map(self, change: Callable[[Tensor], Tensor]) -> "State":
        """The state with every array changed alike."""
        return _mapped(change, [self])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters of one model by name."""
        axes = self.loss.ndim
        return {name: tuple(value.shape[axes:]) for name, value in self.parameters.items()}


def concatenate(states: Sequence[State], axis: int) -> State:
    """Stacks joined along one of their axes."""
    return _mapped(lambda *arrays: torch.cat(arrays, axis), states)


def _mapped(change: Callable[..., Tensor], states: Sequence[State]) -> State:
    arrays = {
        each.name: change(*(getattr(state, each.name) for state in states))
        for each in fields(State)
        if each.name != "parameters"
    }
    parameters = {
        name: change(*(state.parameters[name] for state in states)) for name in states[0].parameters
    }
    return State(parameters=parameters, **arrays)


@dataclass(slots=True, eq=False)
class Rows:
    """The same as a `State` while it is computed: one row a model, parameters flattened."""

    theta: Float32[np.ndarray, "*rows P"]
    moments: Float32[np.ndarray, "*rows 2 P"]
    watch: Float[np.ndarray, "*rows 3"]
    steps: Int[np.ndarray, "*rows"]
    loss: Float[np.ndarray, "*rows"]
    loss_se: Float[np.ndarray, "*rows"]

    @classmethod
    def empty(cls, rows: tuple[int, ...], size: int) -> "Rows":
        """Rows of models of `size` parameters, to be filled; their losses are NaN."""
        return cls(
            theta=np.zeros((*rows, size), np.float32),
            moments=np.zeros((*rows, 2, size), np.float32),
            watch=np.broadcast_to(new_watch(1)[0], (*rows, 3)).copy(),
            steps=np.zeros(rows, np.int64),
            loss=np.full(rows, np.nan),
            loss_se=np.zeros(rows),
        )

    @classmethod
    def of(cls, state: State) -> "Rows":
        """The rows of a state, its stack axes flattened; a copy."""
        axes = state.loss.ndim
        stack = state.loss.shape
        flat = [value.reshape(*stack, -1).numpy() for value in state.parameters.values()]
        arrays = {each.name: getattr(state, each.name).numpy() for each in fields(State)[1:]}
        rows = {name: each.reshape(-1, *each.shape[axes:]) for name, each in arrays.items()}
        theta = np.concatenate(flat, axis=-1).reshape(state.loss.numel(), -1)
        return cls(theta=theta, **{name: each.copy() for name, each in rows.items()})

    def __getitem__(self, at) -> "Rows":
        """A copy of some rows."""
        return Rows(**{each.name: getattr(self, each.name)[at].copy() for each in fields(Rows)})

    def put(self, at, rows: "Rows") -> None:
        """Overwrite rows."""
        for each in fields(Rows):
            getattr(self, each.name)[at] = getattr(rows, each.name)

    def state(self, shapes: Shapes, stack: tuple[int, ...]) -> State:
        """These rows as a state; `stack` are the axes that take the place of the last of rows."""
        before = self.loss.shape[:-1]
        arrays = {
            each.name: torch.from_numpy(getattr(self, each.name)).unflatten(len(before), stack)
            for each in fields(State)[1:]
        }
        theta = torch.from_numpy(self.theta).unflatten(len(before), stack)
        parameters = {name: value.contiguous() for name, value in split(theta, shapes).items()}
        return State(parameters=parameters, **arrays)


def size(shapes: Shapes) -> int:
    """How many numbers the parameters of one model are."""
    return sum(math.prod(shape) for shape in shapes.values())


def split(theta: Float[Tensor, "*stack P"], shapes: Shapes) -> dict[str, Tensor]:
    """Flattened parameters as views of their own shapes, by name."""
    parts = theta.split([math.prod(shape) for shape in shapes.values()], dim=-1)
    return {
        name: part.unflatten(-1, shape) if shape else part.squeeze(-1)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
