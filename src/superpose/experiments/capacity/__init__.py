r"""How many features fit: exponentially many at a fixed number active, linearly at a fixed density.

Must show: with k features active, the largest n of random codes grows exponentially in m, by about
1/(8k) a dimension; trained models with exactly one active reach the kissing numbers in up to six
dimensions; at a fixed p = k/n, where k grows with n, both grow in proportion to m.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from superpose.experiments.capacity.codes import RandomCodes, first_failures, random_codes
from superpose.experiments.capacity.points import LAWS, Progress
from superpose.experiments.capacity.rates import KISSING, growth, predictions
from superpose.experiments.capacity.training import TrainedModels, relative_loss, trained_models

__all__ = [
    "KISSING",
    "LAWS",
    "Capacity",
    "RandomCodes",
    "TrainedModels",
    "capacity",
    "first_failures",
    "growth",
    "predictions",
    "random_codes",
    "relative_loss",
    "trained_models",
]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was measured, what theory says, and how fast each grows.

    `points`: source ("codes" or "trained"), law, value (k or p), m, seed, n; NaN where n lies
    beyond the search or nothing is recovered. `predicted`: name, law, value, m, n. `growth`: see
    `growth`.
    """

    points: pa.Table
    predicted: pa.Table
    growth: pa.Table


def capacity(
    codes: RandomCodes | None = None,
    trained: TrainedModels | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    folder: str | Path | None = None,
) -> Capacity:
    """The largest number of features recovered against dimensions, by codes and by training.

    `progress` is called with the steps done and the steps there are. With a `folder` the trained
    models are kept in it, as sweeps: what an interruption (KeyboardInterrupt) has left is done by
    calling again, and models are never trained twice. The codes are drawn anew, to the same
    numbers. Raises ConfigurationError where the folder holds models of another seed or recipe,
    and RecordError where it cannot be read or written.
    """
    codes = RandomCodes() if codes is None else codes
    trained = TrainedModels() if trained is None else trained
    first = len(codes.dims) * codes.seeds
    total = first + len(trained.one) + len(trained.expected) + len(trained.linear)

    def after(done: int) -> Progress:
        return lambda step, _: progress(done + step, total) if progress else None

    points = pa.concat_tables(
        [random_codes(codes, seed, after(0)), trained_models(trained, seed, after(first), folder)]
    )
    return Capacity(points, predictions(codes, trained), growth(points))
