"""Stability: which latents of a dictionary come back when it is trained again."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from scipy import stats

from superpose.statistics import Interval, proportion_interval
from superpose.unmix.detection import columns
from superpose.unmix.matching import THRESHOLD, random_reach
from superpose.unmix.sae import Dictionary

_CURVE = tuple(float(cosine) for cosine in np.linspace(0.5, 1.0, 51)[:-1])


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """For each latent of each run its largest cosine with a latent of every other run.

    `best[r, i, s]` is that of latent i of run r with run s, NaN where s is r itself and for
    latents that are left out. `null` is the chance at which a latent finds one of as many random
    directions above the threshold.
    """

    best: Float[np.ndarray, "runs d_sae runs"]
    d_in: int
    threshold: float

    @property
    def chance(self) -> Float[np.ndarray, "runs d_sae"]:
        """The share of the other runs in which a latent reappears, NaN if it is left out."""
        return _chance(self.best, self.threshold)

    @property
    def null(self) -> float:
        """The chance for random dictionaries of the same shape, in closed form."""
        return random_reach(self.threshold, self.d_in, self.best.shape[1])

    def interval(self, threshold: float | None = None) -> Interval:
        """The mean chance of a latent to reappear, with its 95 % interval over the runs.

        Every pair of runs shares a run with others, so the interval is that of the jackknife: the
        mean is taken anew without each of the runs in turn. Infinite for fewer than three runs.
        """
        at = self.threshold if threshold is None else threshold
        runs = len(self.best)
        mean = _mean(_chance(self.best, at))
        if runs < 3:
            return Interval(mean, -np.inf, np.inf)
        without = []
        for run in range(runs):
            kept = np.delete(np.arange(runs), run)
            without.append(_mean(_chance(self.best[kept][:, :, kept], at)))
        error = np.sqrt((runs - 1) * np.var(without))
        half = float(stats.t.ppf(0.975, runs - 1) * error)
        return Interval(mean, mean - half, mean + half)

    def curve(self, thresholds: tuple[float, ...] = _CURVE) -> pa.Table:
        """The mean chance as a function of the cosine that counts as the same latent.

        One row a threshold: threshold, chance with chance_low and chance_high, and the null.
        """
        d_sae = self.best.shape[1]
        rows = [
            {"threshold": at}
            | columns("chance", self.interval(at))
            | {"null": random_reach(at, self.d_in, d_sae)}
            for at in thresholds
        ]
        return pa.Table.from_pylist(rows)

    def table(self) -> pa.Table:
        """One row a run and latent: run, latent, chance with its exact binomial interval, cosine.

        `cosine` is the mean over the other runs of the largest one.
        """
        runs = len(self.best)
        hits = (self.best > self.threshold).sum(-1)
        exact = {found: proportion_interval(found, runs - 1) for found in range(runs)}
        rows = []
        for run, latent in zip(*np.nonzero(np.isfinite(self.chance)), strict=True):
            cosine = float(np.nansum(self.best[run, latent]) / (runs - 1))
            at = {"run": int(run), "latent": int(latent)}
            own = columns("chance", exact[int(hits[run, latent])])
            rows.append(at | own | {"cosine": cosine})
        return pa.Table.from_pylist(rows)

    def summary(self) -> pa.Table:
        """One row a run: latents, their mean chance, the shares that come back always and never.

        The columns are run, latents, chance, always, never and null.
        """
        rows = []
        for run, chance in enumerate(self.chance):
            kept = chance[np.isfinite(chance)]
            share = [float(x) for x in (kept.mean(), (kept == 1).mean(), (kept == 0).mean())]
            own = dict(zip(("chance", "always", "never"), share, strict=True))
            rows.append({"run": run, "latents": len(kept)} | own | {"null": self.null})
        return pa.Table.from_pylist(rows)


def stability(
    sae: Dictionary,
    alive: Bool[np.ndarray, "runs d_sae"] | None = None,
    threshold: float = THRESHOLD,
) -> Stability:
    r"""How likely each latent is to reappear in the dictionary of another run (seed).

    Latent i of run r reappears in run s where $\max_j d_i^r \cdot d_j^s$ lies above the threshold:
    signed, many may find the same. No truth is needed, but stability is none: what all runs get
    wrong alike is stable too. `alive` leaves out latents that never fire, on both sides. Raises
    ValueError for less than two runs, and a run without latents.
    Source: Paulo & Belrose 2025 (arXiv 2501.16615).

    >>> import torch
    >>> from superpose.unmix.baselines import Pursuit, random_dictionary
    >>> one = random_dictionary(8, 4).directions
    >>> stability(Pursuit(torch.cat([one, one]))).interval().estimate
    1.0
    """
    directions = sae.directions.detach().float().cpu()
    directions = directions.reshape(-1, *directions.shape[-2:])
    runs, d_sae, d_in = directions.shape
    if runs < 2:
        raise ValueError("stability: one run says nothing; train with seeds=2 or more")
    if alive is None:
        alive = np.ones((runs, d_sae), bool)
    if alive.shape != (runs, d_sae) or not alive.any(-1).all():
        raise ValueError(
            f"stability: alive of shape {list(alive.shape)} has to be [runs={runs}, "
            f"d_sae={d_sae}] with a living latent in every run"
        )
    best = np.full((runs, d_sae, runs), np.nan, np.float32)
    for one in range(runs):
        for other in range(one + 1, runs):
            mine, yours = (np.flatnonzero(alive[run]) for run in (one, other))
            cosine = (directions[one][mine] @ directions[other][yours].T).numpy()
            best[one, mine, other] = cosine.max(1)
            best[other, yours, one] = cosine.max(0)
    return Stability(best, d_in, threshold)


def _chance(
    best: Float[np.ndarray, "runs d_sae runs"], threshold: float
) -> Float[np.ndarray, "runs d_sae"]:
    known = np.isfinite(best).sum(-1)
    return (best > threshold).sum(-1) / np.where(known > 0, known, np.nan)


def _mean(chance: Float[np.ndarray, "runs d_sae"]) -> float:
    """Over the latents of each run, then over the runs."""
    return float(np.nanmean(chance, -1).mean())
