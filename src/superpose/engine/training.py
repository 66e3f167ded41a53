"""How to train: the recipe, apart from what is trained on what."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from superpose.engine.stopping import Plateau

Schedule = Literal["constant", "linear", "cosine", "half_cosine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    r"""How to train: AdamW on fresh batches; every field is the notebook's default.

    `lr` is one learning rate, or one for each run number (with restarts, for each model's). It
    rises through `warmup` steps, from lr / warmup by equal amounts up to lr; over the rest of the
    steps `schedule` then takes it to `final` lr: "constant" (not at all), "linear", "cosine" (a
    quarter wave) or "half_cosine".
    `weight_decay` has any sign: a negative one lets weights grow. `l1` weights the mean over the
    batch of $\sum_k |h_k|$, added to the loss. `snapshots` are the numbers of steps after which
    to keep the models (`log_steps` spaces them evenly in the logarithm). `stop` ends models that
    no longer improve. A finite world is trained on as a whole at every step, whatever `batch`.
    Raises ValueError for numbers that cannot be.

    >>> Training(steps=4, lr=1.0, schedule="linear").learning_rates()
    array([1.  , 0.75, 0.5 , 0.25])
    >>> Training(steps=4, lr=1.0, warmup=2, schedule="linear", final=0.1).learning_rates()
    array([0.5 , 1.  , 1.  , 0.55])
    """

    steps: int = 10_000
    batch: int = 1024
    lr: float | Sequence[float] = 1e-3
    weight_decay: float = 0.01
    schedule: Schedule = "constant"
    warmup: int = 0
    final: float = 0.0
    l1: float = 0.0
    snapshots: Sequence[int] = ()
    stop: Plateau | None = None

    def __post_init__(self) -> None:
        self._convert()
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"Training({name}={value!r}): a whole number of at least {least}")
        if self.warmup > self.steps:
            raise ValueError(
                f"Training(warmup={self.warmup}): it is part of the {self.steps} steps"
            )
        if not np.isfinite(self.weight_decay):
            raise ValueError(f"Training(weight_decay={self.weight_decay!r}): it is finite")
        if not 0.0 <= self.l1 < np.inf:
            raise ValueError(f"Training(l1={self.l1!r}): at least 0 and finite")
        self._check_schedule()
        if list(self.snapshots) != sorted({s for s in self.snapshots if 0 <= s <= self.steps}):
            raise ValueError(
                f"Training(snapshots={self.snapshots}): increasing numbers of steps "
                f"between 0 and {self.steps}"
            )
        if not isinstance(self.stop, Plateau | None):
            raise ValueError(f"Training(stop={self.stop!r}): Plateau(…) or None")

    def _convert(self) -> None:
        """Numbers of other kinds as plain ones."""
        try:
            object.__setattr__(self, "snapshots", tuple(index(s) for s in self.snapshots))
        except TypeError:
            raise ValueError(
                f"Training(snapshots={self.snapshots!r}): whole numbers of steps"
            ) from None
        object.__setattr__(self, "lr", _number_or_tuple(self.lr))
        for name in ("steps", "batch", "warmup"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                object.__setattr__(self, name, int(value))
        for name in ("weight_decay", "l1", "final"):
            try:
                object.__setattr__(self, name, float(getattr(self, name)))
            except (TypeError, ValueError):
                raise ValueError(f"Training({name}={getattr(self, name)!r}): a number") from None

    def _check_schedule(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(
                f'Training(schedule={self.schedule!r}): "constant", "linear", "cosine" or '
                '"half_cosine"'
            )
        if not 0.0 <= self.final <= 1.0:
            raise ValueError(
                f"Training(final={self.final!r}): the share of lr that a schedule ends at lies in "
                "[0, 1]"
            )
        if self.final and self.schedule == "constant":
            raise ValueError(
                f"Training(final={self.final!r}): a constant schedule ends at lr itself; choose "
                'schedule="linear", "cosine" or "half_cosine"'
            )

    @property
    def shape(self) -> Float[np.ndarray, " steps"]:
        """The learning rate of every step as a share of `lr`, float64."""
        rest = self.steps - self.warmup
        part = np.arange(rest) / max(rest, 1)
        falling = {
            "constant": np.ones_like(part),
            "linear": 1.0 - part,
            "cosine": np.cos(0.5 * np.pi * part),
            "half_cosine": 0.5 * (1.0 + np.cos(np.pi * part)),
        }[self.schedule]
        rising = np.arange(1, self.warmup + 1) / max(self.warmup, 1)
        return np.concatenate([rising, self.final + (1.0 - self.final) * falling])

    def learning_rates(self, runs: Any = None) -> Float[np.ndarray, "*run steps"]:
        """The learning rate of every step, float64: `[steps]` for one `lr`.

        For several `lr` it is `[runs, steps]` for those run numbers (all, where not given); a
        run number beyond them is a ValueError.
        """
        if isinstance(self.lr, float):
            return self.lr * self.shape
        lr = np.asarray(self.lr)
        numbers = np.arange(lr.size) if runs is None else np.asarray(runs)
        if (numbers >= lr.size).any():
            raise ValueError(
                f"Training(lr=…): there are {lr.size} learning rates, one for each run number, but "
                f"none for run {int(numbers.max())}; give {int(numbers.max()) + 1} or one number"
            )
        return lr[numbers][:, None] * self.shape


def log_steps(last: int, count: int) -> tuple[int, ...]:
    """At most `count` numbers of steps from 1 to `last`, evenly spaced in the logarithm.

    For `Training(snapshots=…)`: early steps are dense, where learning is fast. Fewer than `count`
    come out where neighbours would round to the same step.

    >>> log_steps(10_000, 5)
    (1, 10, 100, 1000, 10000)
    >>> log_steps(4, 10)
    (1, 2, 3, 4)
    """
    if last < 1 or count < 1:
        raise ValueError(f"log_steps({last}, {count}): both are at least 1")
    if count == 1:
        return (last,)
    steps = np.rint(np.geomspace(1, last, count)).astype(int)
    return tuple(np.unique(steps).tolist())


def _number_or_tuple(lr: Any) -> float | tuple[float, ...]:
    try:
        array = np.asarray(lr, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim > 1 or not array.size or not ((array > 0.0) & (array < np.inf)).all():
        raise ValueError(
            f"Training(lr={lr!r}): a learning rate is positive and finite; give one number, or one "
            "for each run number"
        )
    return float(array) if array.ndim == 0 else tuple(array.tolist())
