r"""Hedging: a dictionary that is too narrow mixes correlated features into its latents.

Must show: one latent for two orthogonal features turns from the first towards the second by the
angle of the leading axis of their covariance, $\tan 2θ = 2 c_{12} / (c_1 - c_2)$: towards it under
positive correlation, away from it under negative, and not at all without. It is the squared error
that does it: there is no price of sparsity here. Moments are those about the mean, as the
decoder's bias takes the mean.
Source: Chanin et al. 2025, "Feature hedging".
"""

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from scipy.stats import multivariate_normal, norm

from superpose.experiments.saebench.pathologies import worlds
from superpose.truth import Firing, LowRank, Mixture
from superpose.unmix import BatchTopK, SAETraining, TopK

P = (0.3, 0.2)
COPULAS = (0.6, 0.0, -0.6)


def firing(copula: float) -> Firing:
    """Two features of amplitude 1 whose underlying normal numbers have this correlation."""
    size = abs(copula) ** 0.5
    return Firing(p=P, correlation=LowRank([[size], [size if copula >= 0 else -size]]))


def covariance(copula: float) -> float:
    """Of the two features of `firing`, from the bivariate normal distribution.

    >>> covariance(0.0)
    0.0
    """
    if copula == 0.0:
        return 0.0
    level = norm.isf(P)
    shape = np.array([[1.0, copula], [copula, 1.0]])
    joint = multivariate_normal(np.zeros(2), shape).cdf(-level)  # pyright: ignore
    return float(joint - P[0] * P[1])


def angle(c1: float, c2: float, c12: float) -> float:
    r"""The angle in degrees of the leading axis of a covariance from the first feature.

    >>> round(angle(1.0, 1.0, 0.5)), angle(1.0, 0.5, 0.0)
    (45, 0.0)
    """
    return float(np.degrees(0.5 * np.arctan2(2.0 * c12, c1 - c2)))


def hedging(
    *,
    seeds: int = 5,
    seed: int = 0,
    training: SAETraining | None = None,
    d: int = 20,
) -> pa.Table:
    """One latent for two features; a row a copula correlation and seed.

    `angle` is that of the line of the decoder from the first feature, in degrees between -90 and
    90, `theory` the one predicted.
    """
    rows = []
    for copula in COPULAS:
        c1, c2 = (p * (1 - p) for p in P)
        theory = angle(c1, c2, covariance(copula))
        for run in range(seed, seed + seeds):
            truth = worlds.orthogonal(firing(copula), d, run)
            sae = worlds.trained(truth, [TopK(d_sae=1, k=1)], training, run)[0]
            first, second = worlds.cosines(sae, truth)[:, 0]
            rows.append(
                {
                    "copula": copula,
                    "seed": run,
                    "angle": float(np.degrees(np.arctan(second / first))),
                    "theory": theory,
                }
            )
    return pa.Table.from_pylist(rows)


def narrow(
    width: int = 10,
    features: int = 20,
    *,
    seeds: int = 5,
    seed: int = 0,
    training: SAETraining | None = None,
) -> pa.Table:
    """Half as many latents as features, with correlations of low rank and without.

    `correlated`, `seed`, and `mixed`: the mean size of the cosine of each latent with the
    features other than the one it is nearest to; `agreement`: the correlation, over pairs of a
    latent's feature and another, of that cosine with the covariance of the two.
    """
    rows = []
    for correlated in (True, False):
        for run in range(seed, seed + seeds):
            copula = LowRank.random(features, 5, 0.35, run) if correlated else None
            law = Firing(p=np.linspace(0.3, 0.05, features), correlation=copula)
            truth = worlds.orthogonal(law, 2 * features, run)
            k = max(1, round(float(law.p[:width].sum())))
            sae = worlds.trained(truth, [BatchTopK(d_sae=width, k=k)], training, run)[0]
            other, together = _others(worlds.cosines(sae, truth), truth, run)
            agreement = np.corrcoef(other, together)[0, 1] if correlated else np.nan
            rows.append(
                {
                    "correlated": correlated,
                    "seed": run,
                    "mixed": float(np.abs(other).mean()),
                    "agreement": float(agreement),
                }
            )
    return pa.Table.from_pylist(rows)


def _others(
    cosine: Float[np.ndarray, "n d_sae"], truth: Mixture, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each latent its cosines with the features not its own, and their covariances with it."""
    f = truth.sample(20_000, seed).f().double().numpy()
    covariances = np.cov(f.T)
    nearest = cosine.argmax(0)
    kept = np.ones_like(cosine, bool)
    kept[nearest, np.arange(cosine.shape[1])] = False
    return cosine[kept], covariances[:, nearest][kept]
