"""How superposed is a layer: effective features, and the gain of an overcomplete code over nulls.

Three nulls keep some of the data and lose the rest, and go through the same protocol. `gaussian`
keeps mean and covariance, `shuffled` the marginal distribution of each unit. Sparse features reject
both even when each has a dimension to itself, so neither says anything of superposition. `complete`
is a sparse model with as many features as dimensions: the independent components of the data,
each permuted over the samples on its own, and mixed back. It is the one that decides.

The verdict rests on margins set on planted models and says how much a wide autoencoder gains.
Whether there is superposition at all, with a stated rate of false alarms, is what
`superposition_test` answers: its complete null keeps which features are on together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from superpose.activations import Activations
from superpose.measures import effective_features, explained_variance
from superpose.statistics import Interval, mean_interval
from superpose.unmix import SAETraining, TopK, ica, unmix

TRUSTED = 0.7
GAIN = 1.5
EXCESS = 1.25
Source = Literal["data", "gaussian", "shuffled", "complete"]
Verdict = Literal["superposition", "not shown", "not trustworthy"]
Progress = Callable[[int, int], None]
_SOURCES: tuple[Source, ...] = ("data", "gaussian", "shuffled", "complete")
_DECIDING = ("data", "complete")


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured on the data and on each null, one number a seed, and what follows.

    `features` are effective features on held-out samples, `explained` the explained variance
    of the overcomplete code there and `complete` that of the best complete code with the same
    number of active latents (data and `complete` null only, NaN elsewhere). `d` is the number of
    units that vary, `verdict` is "superposition", "not shown" or "not trustworthy" and
    `reason` says in a sentence why; `advice` tells of what to mend.
    """

    d: int
    samples: int
    code: TopK
    features: Mapping[str, Float[np.ndarray, " seeds"]]
    explained: Mapping[str, Float[np.ndarray, " seeds"]]
    complete: Mapping[str, Float[np.ndarray, " seeds"]]
    verdict: Verdict
    reason: str
    advice: tuple[str, ...] = ()

    @property
    def trustworthy(self) -> bool:
        """Whether the code explains enough of the held-out data for its features to count."""
        return float(self.explained["data"].mean()) >= TRUSTED

    def effective(self, source: Source = "data") -> Interval:
        """Effective features F with a 95 % interval over the seeds."""
        return mean_interval(self.features[source])

    def psi(self, source: Source = "data") -> Interval:
        r"""$\psi = F / d$, effective features for each unit that varies."""
        return mean_interval(self.features[source] / self.d)

    def ratio(self, source: Source) -> Interval:
        """F of the data over F of a null."""
        return ratio_interval(self.features["data"], self.features[source])

    def gain(self, source: Source = "data") -> Interval:
        """Unexplained variance of the best complete code over that of the overcomplete one."""
        gains = self._gains(source)
        return ratio_interval(gains, np.ones_like(gains))

    def excess(self) -> Interval:
        """The gain on the data over the gain on the `complete` null."""
        return ratio_interval(self._gains("data"), self._gains("complete"))

    def _gains(self, source: str) -> Float[np.ndarray, " seeds"]:
        return (1 - self.complete[source]) / np.maximum(1 - self.explained[source], 1e-12)

    def table(self) -> pa.Table:
        """One row for the data and for each null.

        Columns: source, features, psi, ratio (data over this source) and gain, each also with
        _low and _high; explained_variance, complete_explained_variance, seeds, d, samples.
        """
        rows = []
        for source in _SOURCES:
            row: dict[str, object] = {"source": source}
            for column, interval in (
                ("features", self.effective(source)),
                ("psi", self.psi(source)),
                ("ratio", self.ratio(source)),
                ("gain", self.gain(source)),
            ):
                row[column] = interval.estimate
                row[f"{column}_low"], row[f"{column}_high"] = interval.low, interval.high
            row["explained_variance"] = float(self.explained[source].mean())
            row["complete_explained_variance"] = float(self.complete[source].mean())
            row |= {"seeds": len(self.features[source]), "d": self.d, "samples": self.samples}
            rows.append(row)
        return pa.Table.from_pylist(rows)


def measure(
    acts: Activations | Float[Tensor, "samples units"],
    *,
    code: TopK | None = None,
    training: SAETraining | None = None,
    seeds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measurement:
    r"""Measure the superposition of a layer against nulls of the same size and protocol.

    For each of `seeds` the samples are cut in halves; an overcomplete TopK autoencoder (by default
    4 latents a unit, one in eight units' number of them active) is trained on one and read on the
    other: effective features F, $\psi = F/d$, explained variance. A TopK code, because its number
    of active latents is the same on data and nulls, and explained variances compare only at one
    sparsity. The null is drawn afresh for each seed.

    F alone does not decide. An overcomplete code has effective features to fill also where the
    truth is complete (5 independent features in 5 dimensions at p = 0.1 measure F = 8), and where
    they superpose F may exceed the null's by a few per cent only. What separates planted
    superposition from planted complete models is the *gain*: the variance left unexplained by the
    best complete code, over that left by the overcomplete one, at the same number of active
    latents. The best complete code is the better of the independent components (both rays of
    each) and a trained dictionary with one latent a unit.

    The verdict is "superposition" where the interval of the gain lies above 1.5, and that of its
    ratio to the `complete` null's gain above 1.25; margins were set on planted models. It is
    "not trustworthy" where the code explains less than 70 % of the held-out variance, else
    "not shown". The test can miss: features in antipodal pairs are as well explained by signed
    components, one a dimension, and dense features are not found by any sparse code. It can
    be fooled: features in superposition are not told from a few features whose joint activity is
    so dependent, or so curved, that no complete code follows it. The intervals are over seeds,
    halves and draws of the null, not over fresh data from the network.

    `progress(done, total)` hears of the trainings. Raises ValueError where no unit varies and
    where there are fewer than 100 samples or 8 for each unit.
    Source: Bereska et al. 2025 for F and $\psi$; nulls and gain are this project's.
    """
    x, advice = varying(acts)
    d = x.shape[1]
    if seeds < 1:
        raise ValueError(f"measure(seeds={seeds}): train at least one; intervals take two or more")
    code = TopK(d_sae=4 * d, k=max(1, min(d // 8, 32))) if code is None else code
    training = training or SAETraining(samples=200_000, lr=1e-2, dead_after=20_000)
    protocol = _Protocol(code, training, seeds, seed, progress)
    draw = {
        "data": lambda rng: x,
        "gaussian": _gaussian(x),
        "shuffled": lambda rng: _permuted(x, rng),
        "complete": _complete(x, seed),
    }
    read = {source: protocol.read(draw[source], source in _DECIDING) for source in _SOURCES}
    features, explained, complete = (
        {source: columns[part] for source, columns in read.items()} for part in range(3)
    )
    found = Measurement(d, len(x), code, features, explained, complete, "not shown", "", advice)
    verdict, reason = _judge(found)
    return replace(found, verdict=verdict, reason=reason, advice=(*advice, *_mend(found)))


def ratio_interval(
    above: Float[np.ndarray, " seeds"], below: Float[np.ndarray, " others"], level: float = 0.95
) -> Interval:
    """Ratio of geometric means of positive values, with Welch's interval on the logarithms.

    >>> print(ratio_interval(np.array([2.0, 2.2, 1.8]), np.array([1.0, 1.0, 1.0])))
    1.99 [1.55, 2.56]
    """
    a, b = np.log(np.maximum(above, 1e-12)), np.log(np.maximum(below, 1e-12))
    centre = a.mean() - b.mean()
    if not np.isfinite(centre):
        return Interval(np.nan, np.nan, np.nan, level)
    if min(len(a), len(b)) == 1:
        return Interval(float(np.exp(centre)), 0.0, np.inf, level)
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    if parts.sum() == 0:
        same = float(np.exp(centre))
        return Interval(same, same, same, level)
    freedom = parts.sum() ** 2 / (parts**2 / [len(a) - 1, len(b) - 1]).sum()
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(parts.sum())
    low, estimate, high = np.exp([centre - half, centre, centre + half]).tolist()
    return Interval(estimate, low, high, level)


def _judge(found: Measurement) -> tuple[Verdict, str]:
    gain, excess = found.gain(), found.excess()
    level = float(found.explained["data"].mean())
    if not found.trustworthy:
        return "not trustworthy", (
            f"the code explains {level:.0%} of the held-out variance, below {TRUSTED:.0%}, so "
            "its latents do not stand for the layer"
        )
    compared = (
        f"at {found.code.k} active latents, the best complete code leaves {gain} times as much "
        f"unexplained as the overcomplete one, which is {excess} times the gain on the complete "
        "null"
    )
    if gain.low > GAIN and excess.low > EXCESS:
        return "superposition", f"{compared}: more features than dimensions"
    needed = f"superposition is claimed from {GAIN} and {EXCESS} on, intervals included"
    return "not shown", f"{compared}; {needed}"


def _mend(found: Measurement) -> tuple[str, ...]:
    if found.trustworthy:
        return ()
    more = "give the code more active latents (k), or train it longer or on more samples"
    return (f"the reconstruction is too poor to measure superposition: {more}",)


class _Protocol:
    """The same trainings and readings for the data and every null."""

    def __init__(
        self,
        code: TopK,
        training: SAETraining,
        seeds: int,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.code, self.training, self.seeds, self.seed = code, training, seeds, seed
        self.progress, self.done = progress, 0
        self.total = seeds * (len(_SOURCES) + len(_DECIDING))

    def read(
        self, draw: Callable[[np.random.Generator], Tensor], decide: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Effective features, explained variance, and that of the best complete code."""
        rows = []
        for run in range(self.seeds):
            x = draw(np.random.default_rng([self.seed, run, 1]))
            order = np.random.default_rng([self.seed, run]).permutation(len(x))
            train, test = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
            features, explained = self._fit(train, test, self.code, run)
            complete = self._best_complete(train, test, run) if decide else np.nan
            rows.append((features, explained, complete))
        columns = np.array(rows).T
        return columns[0], columns[1], columns[2]

    def _fit(self, train: Tensor, test: Tensor, code: TopK, run: int) -> tuple[float, float]:
        sae = unmix(train, code, self.training, seeds=range(run, run + 1), seed=self.seed)[0]
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
        z = sae.encode(test)
        return float(effective_features(z)), explained_variance(test, sae.decode(z))

    def _best_complete(self, train: Tensor, test: Tensor, run: int) -> float:
        d = train.shape[1]
        code = TopK(d_sae=d, k=min(self.code.k, d))
        _, learned = self._fit(train, test, code, self.seeds + run)
        lines = _Components(train, self.seed)
        return max(learned, explained_variance(test, lines.kept(test, code.k)))


class _Components:
    """Independent components with zero at their median: for sparse sources, where they are off."""

    def __init__(self, x: Tensor, seed: int) -> None:
        rays = ica(x, seed)[0]
        lines = len(rays.W_dec) // 2
        self.encoder, self.directions = rays.W_enc[:, :lines], rays.W_dec[:lines]
        self.centre = rays.b_dec
        middle = self.sources(x).median(0).values
        self.centre = self.centre + middle @ self.directions

    def sources(self, x: Tensor) -> Tensor:
        return (x - self.centre) @ self.encoder

    def mixed(self, sources: Tensor) -> Tensor:
        return sources @ self.directions + self.centre

    def kept(self, x: Tensor, k: int) -> Tensor:
        """The reconstruction from the k largest sources of each sample, of either sign."""
        sources = self.sources(x)
        place = sources.abs().topk(min(k, sources.shape[1]), dim=-1).indices
        return self.mixed(torch.zeros_like(sources).scatter(-1, place, sources.gather(-1, place)))


def varying(acts: Activations | Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The units that vary, and advice on those left out; raises what `measure` would."""
    x = (acts if isinstance(acts, Activations) else Activations(acts)).x.cpu()
    varies = (x != x[0]).any(0)
    if not varies.any():
        raise ValueError("measure: all samples are equal, so there is nothing to measure")
    units, d = x.shape[1], int(varies.sum())
    needed = max(100, 8 * d)
    if len(x) < needed:
        raise ValueError(
            f"measure: {len(x)} samples of {d} units that vary; {needed} are the least that half "
            "of them can train a code on and the other half test it"
        )
    left_out = f"{units - d} of {units} units never vary and were left out"
    return x[:, varies], (left_out,) if d < units else ()


def _permuted(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Each column in an order of its own."""
    return torch.from_numpy(rng.permuted(x.numpy(), axis=0))


def _gaussian(x: Tensor) -> Callable[[np.random.Generator], Tensor]:
    centre, wide = x.mean(0), (x - x.mean(0)).double()
    spread, axes = torch.linalg.eigh(wide.mT @ wide / len(x))
    root = (axes * spread.clamp_min(0).sqrt()).float()

    def draw(rng: np.random.Generator) -> Tensor:
        normal = rng.standard_normal(x.shape, np.float32)
        return centre + torch.from_numpy(normal) @ root.mT

    return draw


def _complete(x: Tensor, seed: int) -> Callable[[np.random.Generator], Tensor]:
    lines = _Components(x, seed)
    sources = lines.sources(x)
    return lambda rng: lines.mixed(_permuted(sources, rng))
