r"""How many features fit: exponentially many at a fixed number active, linearly at a fixed density.

Must show: with k features active, the largest n of random codes grows exponentially in m, by about
1/(8k) a dimension; trained models with exactly one active reach the kissing numbers in up to six
dimensions; at a fixed p = k/n, where k grows with n, both grow in proportion to m.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from scipy import stats

from superpose import engine
from superpose.engine import Training
from superpose.features import Features
from superpose.models import ToyModel
from superpose.statistics import mean_interval
from superpose.theory.bounds import almost_orthogonal
from superpose.theory.capacity import relu_capacity
from superpose.theory.recovery import recovery_probability

Progress = Callable[[int, int], None]
LAWS = ("exactly k", "expected k", "fixed p")
_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
_ROW = {"law": _TEXT, "value": _REAL, "m": _WHOLE, "n": _REAL}
_POINTS = pa.schema({"source": _TEXT, "seed": _WHOLE} | _ROW)

KISSING = {2: 6, 3: 12, 4: 24, 5: 40, 6: 72, 7: 126, 8: 240}
_DIMS = (*range(16, 64, 4), *range(64, 128, 8), *range(128, 256, 16), *range(256, 513, 32))
_BLOCK = 2_048
_RECIPE = Training(steps=4_000, lr=5e-3, schedule="cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCodes:
    r"""Random unit directions whose features are read by a threshold on each $W_i \cdot h$.

    An active feature is uniform on [`lowest`, 1] (1 by default: binary) and the threshold is
    `lowest` / 2, half way between off and the weakest on. A code of n directions does when the
    whole support comes out right, no feature missed and none invented, in all but a share
    `error` of the samples. `active` are the k, exact or expected (p = k/n, independently);
    `densities` the p held fixed. `samples` are drawn for each number of active features up to
    `most`, more count as failures; codes are searched up to `limit` directions.
    Raises ValueError for numbers that cannot be.
    """

    dims: Sequence[int] = _DIMS
    active: Sequence[int] = (1, 2, 4)
    densities: Sequence[float] = (0.002, 0.005, 0.01)
    error: float = 0.05
    lowest: float = 1.0
    samples: int = 400
    most: int = 12
    limit: int = 10_000
    seeds: int = 8

    def __post_init__(self) -> None:
        _check("RandomCodes", self.error, self.dims, self.seeds)
        if not (0 < self.lowest <= 1 and max(self.active, default=1) <= self.most < self.limit):
            raise ValueError(
                f"RandomCodes(active={tuple(self.active)}, most={self.most}, limit={self.limit}, "
                f"lowest={self.lowest:g}): k <= most < limit, and the weakest feature is in (0, 1]"
            )
        if self.samples * self.error < 1:
            raise ValueError(
                f"RandomCodes(samples={self.samples}, error={self.error:g}): the error allowed is "
                "less than one sample; take more"
            )


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
        _check("TrainedModels", self.error, (*self.one, *self.expected, *self.linear), self.runs)


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
) -> Capacity:
    """The largest number of features recovered against dimensions, by codes and by training.

    `progress` is called with the steps done and the steps there are.
    """
    codes = RandomCodes() if codes is None else codes
    trained = TrainedModels() if trained is None else trained
    first = len(codes.dims) * codes.seeds
    total = first + len(trained.one) + len(trained.expected) + len(trained.linear)

    def after(done: int) -> Progress:
        return lambda step, _: progress(done + step, total) if progress else None

    points = pa.concat_tables(
        [random_codes(codes, seed, after(0)), trained_models(trained, seed, after(first))]
    )
    return Capacity(points, predictions(codes, trained), growth(points))


def random_codes(config: RandomCodes, seed: int = 0, progress: Progress | None = None) -> pa.Table:
    """The largest n at which random codes recover supports, for every law, m and seed of a code."""
    rows, done = [], 0
    number = np.arange(1, config.most + 1)
    for m in config.dims:
        for code in range(config.seeds):
            rng = np.random.default_rng([seed, m, code])
            ends = first_failures(config, m, rng)
            n = _sizes(config.limit)
            failed = np.stack([np.searchsorted(np.sort(each), n, "right") for each in ends])
            for law, value in _laws(config):
                at = _largest(law, value, n, failed / config.samples, number, config.error)
                rows.append({"source": "codes", "seed": code} | _row(law, value, m, at))
            done += 1
            if progress:
                progress(done, len(config.dims) * config.seeds)
    return pa.Table.from_pylist(rows, _POINTS)


def first_failures(
    config: RandomCodes, m: int, rng: np.random.Generator
) -> Int[np.ndarray, "most samples"]:
    """The number of directions at which each sample is first read wrongly, K = 1 … `most` active.

    Directions are exchangeable, so the K active ones of a sample may be drawn by themselves and
    the rest of the code be common to all: the sample fails at K if a feature of its own is
    missed, at K + j if the j-th of the rest is the first to be called. So one pass over a code
    gives the failures at every n. Beyond `limit` stands for none.
    """
    threshold = np.float32(config.lowest / 2)
    end = np.full((config.most, config.samples), config.limit + 1)
    hidden = np.empty((config.most, config.samples, m), np.float32)
    for row, K in enumerate(range(1, config.most + 1)):
        W = _directions(rng, config.samples, K, m)
        x = 1 - (1 - config.lowest) * rng.random((config.samples, K, 1), np.float32)
        hidden[row] = (x * W).sum(1)
        missed = (W @ hidden[row][:, :, None] <= threshold).any((1, 2))
        end[row, missed] = K
    going = np.argwhere(end > config.limit)
    for before in range(0, config.limit, _BLOCK):
        W = _directions(rng, min(_BLOCK, config.limit - before), m)
        called: Bool[np.ndarray, "going block"] = hidden[*going.T] @ W.T > threshold
        wrong = called.any(1)
        row, sample = going[wrong].T
        end[row, sample] = (row + 1) + before + called[wrong].argmax(1) + 1
        going = going[~wrong]
        if not going.size:
            break
    return end


def _directions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    W = rng.standard_normal(shape, np.float32)
    return W / np.linalg.norm(W, axis=-1, keepdims=True)


def _laws(config: RandomCodes) -> Iterator[tuple[str, float]]:
    for k in config.active:
        yield "exactly k", k
        yield "expected k", k
    for p in config.densities:
        yield "fixed p", p


def _sizes(limit: int) -> Int[np.ndarray, " sizes"]:
    """Numbers of features to look at: one per cent apart, and all the small ones."""
    return np.unique(np.geomspace(1, limit, int(100 * math.log(limit)) + 2).round().astype(int))


def _largest(
    law: str,
    value: float,
    n: Int[np.ndarray, " sizes"],
    failed: Float[np.ndarray, "most sizes"],
    number: Int[np.ndarray, " most"],
    error: float,
) -> float:
    """The last size before the share of failures, given for each number active, exceeds `error`.

    More than `most` active count as failures. NaN where none does or all do.
    """
    if law == "exactly k":
        share = failed[int(value) - 1]
    else:
        p = np.minimum(value / n, 1.0) if law == "expected k" else np.full(n.size, value)
        weight = stats.binom.pmf(number[:, None], n, p)
        share = (weight * failed).sum(0) + stats.binom.sf(number[-1], n, p)
    possible = n >= (1 if law == "fixed p" else value)
    n, share = n[possible], share[possible]
    (over,) = np.nonzero(share > error)
    return float(n[over[0] - 1]) if over.size and over[0] else math.nan


def trained_models(
    config: TrainedModels, seed: int = 0, progress: Progress | None = None
) -> pa.Table:
    """The largest n that trained models recover at one active feature, and n learned at fixed p."""
    rows = []
    total = len(config.one) + len(config.expected) + len(config.linear)

    start: dict[str, int] = dict.fromkeys(LAWS, 0)
    plan = zip(LAWS, (config.one, config.expected, config.linear), strict=True)
    for done, (law, m) in enumerate([(law, m) for law, dims in plan for m in sorted(dims)], 1):
        if law == "fixed p":
            found = dict(zip(config.densities, _learned(config, m, seed), strict=True))
        else:
            at, start[law] = _search(config, law, m, seed, start[law])
            found = {1: at}
        for value, each in found.items():
            for run, n in enumerate(each):
                rows.append({"source": "trained", "seed": run} | _row(law, value, m, n))
        if progress:
            progress(done, total)
    return pa.Table.from_pylist(rows, _POINTS)


def _learned(config: TrainedModels, m: int, seed: int) -> Float[np.ndarray, "densities runs"]:
    r"""Features learned, $\Vert W \Vert_F^2$, by models that are offered `ratio` m of them."""
    worlds = [Features(n=config.ratio * m, p=p) for p in config.densities]
    model = ToyModel(n=config.ratio * m, m=m)
    run = engine.train(model, worlds, config.training, runs=config.runs, seed=seed)
    return run.W.double().square().sum((-2, -1)).numpy()


def _search(
    config: TrainedModels, law: str, m: int, seed: int, start: int
) -> tuple[Float[np.ndarray, " runs"], int]:
    """Where the relative loss of each run crosses the error, between sizes √2 apart.

    Returns the crossings and the size, by number, from which to search the next m.
    """
    sizes = [n for n in dict.fromkeys(round(2 ** (j / 2)) for j in range(40)) if n <= config.limit]
    at = max(start, sum(n <= 2 * m for n in sizes))
    losses: dict[int, np.ndarray] = {}
    while 0 <= at < len(sizes):
        losses[at] = relative_loss(config, law, sizes[at], m, seed)
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
    config: TrainedModels, law: str, n: int, m: int, seed: int = 0
) -> Float[np.ndarray, " runs"]:
    """Exact losses of trained models with one feature active, over the loss np/3 of silence."""
    world = Features.exactly_one(n) if law == "exactly k" else Features(n=n, p=1 / n)
    run = engine.train(ToyModel(n=n, m=m), world, config.training, runs=config.runs, seed=seed)
    return run.loss.numpy() * 3


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Where y first rises above the level, between neighbours on a line; NaN if it does not."""
    (above,) = np.nonzero(y > level)
    if not above.size or above[0] == 0:
        return math.nan
    i = above[0]
    return float(x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))


def predictions(codes: RandomCodes, trained: TrainedModels) -> pa.Table:
    """What theory says of the same questions: name, law, value, m, n.

    "normal": random codes with binary features, interference taken as normal. "any support":
    so many random directions exist with overlaps below 1/(2k − 1), at which *every* support of
    k is recovered. "random directions": `relu_capacity`, what training has to beat. "kissing": the
    most directions known with all cosines at most 1/2, which leave a loss of just 7/32 (Conway &
    Sloane 1999, Sphere packings, lattices and groups, table 1.5).
    """
    n, number = _sizes(codes.limit), np.arange(1, codes.most + 1)
    rows = []
    for m in codes.dims if codes.lowest == 1 else ():
        # The logarithm of the chance is linear in n.
        first, next_ = (
            np.log([recovery_probability(K + more, m, K, threshold=0.5) for K in number.tolist()])
            for more in (0, 1)
        )
        log_chance = first[:, None] + (n - number[:, None]) * (next_ - first)[:, None]
        failed = -np.expm1(log_chance)
        for law, value in _laws(codes):
            at = _largest(law, value, n, failed, number, codes.error)
            rows.append({"name": "normal"} | _row(law, value, m, at))
    for k in (k for k in codes.active if k > 1):
        for m in codes.dims:
            at = almost_orthogonal(m, 1 / (2 * k - 1))
            rows.append({"name": "any support"} | _row("exactly k", k, m, at))
    for m in (m for m in trained.one if m > 1):
        at = relu_capacity(m, trained.error)
        rows.append({"name": "random directions"} | _row("exactly k", 1, m, at))
        if m in KISSING:
            rows.append({"name": "kissing"} | _row("exactly k", 1, m, KISSING[m]))
    return pa.Table.from_pylist(rows, pa.schema({"name": _TEXT} | _ROW))


def growth(points: pa.Table) -> pa.Table:
    """How ln n rises in each series: on m ("exponential") and on ln m ("power law").

    Columns: source, law, value, form, the `slope` with its 95 % interval over seeds (`low`,
    `high`), the coefficient of a quadratic term when one is added (`curvature`, with its
    interval: 0 where the law is straight), the `residual` of the straight line (root mean
    square of ln n averaged over seeds), the range `m_from`, `m_to` and the number of `dims`.
    Only m with an n in every seed count and, but for fixed p, with n above m: below, nothing is
    in superposition. Series of less than three such m are left out. The form with the smaller
    residual describes the range better. The intervals tell the noise between seeds, not
    what lies beyond the range.
    """
    series: dict[tuple, list[dict]] = {}
    for row in points.to_pylist():
        series.setdefault((row["source"], row["law"], row["value"]), []).append(row)
    rows = []
    for (source, law, value), found in series.items():
        m, order = np.unique([row["m"] for row in found], return_inverse=True)
        n = np.stack(
            [[r["n"] for r, i in zip(found, order, strict=True) if i == j] for j in range(m.size)]
        )
        kept = np.isfinite(n).all(1) & ((law == "fixed p") | (n.mean(1) > m))
        m, log_n = m[kept], np.log(n[kept])
        if m.size < 3:
            continue
        for form, x in (("exponential", 1.0 * m), ("power law", np.log(m))):
            about = {"source": source, "law": law, "value": value, "form": form}
            span = {"m_from": int(m[0]), "m_to": int(m[-1]), "dims": m.size}
            rows.append(about | _fit(x, log_n) | span)
    return pa.Table.from_pylist(rows)


def _fit(x: Float[np.ndarray, " dims"], y: Float[np.ndarray, "dims seeds"]) -> dict[str, float]:
    slope = mean_interval(np.polyfit(x, y, 1)[0])
    bend = mean_interval(np.polyfit(x, y, 2)[0])
    mean = y.mean(1)
    residual = mean - np.polyval(np.polyfit(x, mean, 1), x)
    return {
        "slope": slope.estimate,
        "low": slope.low,
        "high": slope.high,
        "curvature": bend.estimate,
        "curvature_low": bend.low,
        "curvature_high": bend.high,
        "residual": float(np.sqrt(np.mean(residual**2))),
    }


def _row(law: str, value: float, m: int, n: float) -> dict[str, str | float]:
    return {"law": law, "value": float(value), "m": m, "n": float(n)}


def _check(call: str, error: float, dims: Sequence[int], seeds: int) -> None:
    if not (0 < error < 1 and min(dims, default=1) >= 1 and seeds >= 1):
        raise ValueError(
            f"{call}(error={error:g}, seeds={seeds}, dims={tuple(dims)}): the error lies in "
            "(0, 1), seeds and dimensions are at least 1"
        )
