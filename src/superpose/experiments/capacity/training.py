"""Trained models: how many features they recover, and how many they learn."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from superpose.engine import Run, Training
from superpose.experiments.capacity.points import LAWS, POINTS, Progress, check, row_of
from superpose.experiments.models import trained
from superpose.sweep import parse

# Models of a shard at most: what an interruption has to wait for, or a kill can lose.
_SHARD = 64
_RECIPE = Training(steps=4_000, lr=5e-3, schedule="cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModels:
    r"""Trained ReLU models that do when their loss is at most `error` of that of silence.

    Silence, $\hat x = 0$, has the loss np/3. The default 7/32 is the least share that a ReLU
    with its threshold at 1/2 can leave ($\tau^2 (3 + \tau) / 4$ at $\tau = 1/2$), so that models
    and codes are held to the same threshold. `one` are the m with exactly one feature active,
    `expected` those with one expected (p = 1/n), `linear` those at the fixed `densities`, where
    models of `ratio` m features show how many are learned, $\Vert W \Vert_F^2$. Searches stop at
    `limit` features.
    Raises ValueError for numbers that cannot be.
    """

    one: Sequence[int] = (2, 3, 4, 5, 6, 7, 8)
    expected: Sequence[int] = (2, 4, 6, 8, 10)
    linear: Sequence[int] = (2, 4, 8, 12, 16)
    densities: Sequence[float] = (0.1, 0.05)
    ratio: int = 10
    error: float = 7 / 32
    limit: int = 400
    training: Training = _RECIPE
    runs: int = 4

    def __post_init__(self) -> None:
        check("TrainedModels", self.error, (*self.one, *self.expected, *self.linear), self.runs)


def trained_models(
    config: TrainedModels,
    seed: int = 0,
    progress: Progress | None = None,
    folder: str | Path | None = None,
) -> pa.Table:
    """The largest n that trained models recover at one active feature, and n learned at fixed p.

    The models are kept in `folder`, if one is given, as a sweep for each law, m and n that was
    asked for; asked again, only what is missing is trained. Raises ConfigurationError where the
    folder holds models of another seed or recipe, and RecordError where it cannot be read or
    written.
    """
    rows = []
    total = len(config.one) + len(config.expected) + len(config.linear)

    start: dict[str, int] = dict.fromkeys(LAWS, 0)
    plan = zip(LAWS, (config.one, config.expected, config.linear), strict=True)
    for done, (law, m) in enumerate([(law, m) for law, dims in plan for m in sorted(dims)], 1):
        if law == "fixed p":
            found = dict(zip(config.densities, _learned(config, m, seed, folder), strict=True))
        else:
            at, start[law] = _search(config, law, m, seed, start[law], folder)
            found = {1: at}
        for value, each in found.items():
            for run, n in enumerate(each):
                rows.append({"source": "trained", "seed": run} | row_of(law, value, m, n))
        if progress:
            progress(done, total)
    return pa.Table.from_pylist(rows, POINTS)


def _learned(
    config: TrainedModels, m: int, seed: int, folder: str | Path | None
) -> Float[np.ndarray, "densities runs"]:
    r"""Features learned, $\Vert W \Vert_F^2$, by models that are offered `ratio` m of them."""
    run = _models(config, "fixed p", config.ratio * m, m, seed, folder)
    return run.W.double().square().sum((-2, -1)).numpy()


def _search(
    config: TrainedModels, law: str, m: int, seed: int, start: int, folder: str | Path | None
) -> tuple[Float[np.ndarray, " runs"], int]:
    """Where the relative loss of each run crosses the error, between sizes √2 apart.

    Returns the crossings and the size, by number, from which to search the next m.
    """
    sizes = [n for n in dict.fromkeys(round(2 ** (j / 2)) for j in range(40)) if n <= config.limit]
    at = max(start, sum(n <= 2 * m for n in sizes))
    losses: dict[int, np.ndarray] = {}
    while 0 <= at < len(sizes):
        losses[at] = relative_loss(config, law, sizes[at], m, seed, folder)
        low, high = min(losses), max(losses)
        if losses[high].min() <= config.error:
            at = high + 1
        elif losses[low].max() > config.error and sizes[low] > m:
            at = low - 1  # up to n = m each feature has a dimension to itself
        else:
            break
    order = sorted(losses)
    loss = np.stack([losses[j] for j in order])
    log_n = np.log([sizes[j] for j in order])
    found = np.array([_crossing(log_n, each, config.error) for each in loss.T])
    return np.exp(found), order[-1]


def relative_loss(
    config: TrainedModels,
    law: str,
    n: int,
    m: int,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Float[np.ndarray, " runs"]:
    """Exact losses of trained models with one feature active, over the loss np/3 of silence.

    `folder` keeps the models, and errors are raised, as in `trained_models`.
    """
    return _models(config, law, n, m, seed, folder).loss[0].numpy() * 3


def _models(
    config: TrainedModels, law: str, n: int, m: int, seed: int, folder: str | Path | None
) -> Run:
    """The models of a law, `[worlds, runs]`: over the densities at fixed p, else of one world."""
    one = {"exactly k": {"law": "exactly_one"}, "expected k": {"p": 1 / n}}
    plan = parse(
        {
            "name": f"capacity: {law}, m = {m}, n = {n}",
            "seed": seed,
            "seeds": config.runs,
            "model": {"n": n, "m": m},
            "world": one.get(law, {}),
            "training": asdict(config.training),
            "axes": {} if law in one else {"world.p": config.densities},
            "shards": {"models": _SHARD},
        }
    )
    with TemporaryDirectory() if folder is None else nullcontext(folder) as where:
        return trained(Path(where) / f"{law.replace(' ', '-')}-m{m}-n{n}", plan)


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Where y first rises above the level, between neighbours on a line; NaN if it does not."""
    (above,) = np.nonzero(y > level)
    if not above.size or above[0] == 0:
        return math.nan
    i = above[0]
    return float(x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))
