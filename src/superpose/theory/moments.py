"""First and second moments of a world, in closed form, for every law.

Those of a finite world are the means over its points.
"""

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from superpose.features import Features, Finite


def mean(world: Features) -> Float[np.ndarray, " n"]:
    r"""Expected value of each feature, float64: $E x_i = P(x_i \ne 0)\, E a$.

    a is the magnitude of an active feature, and $E a = 1/2$ where it is uniform; a signed world
    has mean 0.

    >>> mean(Features(n=2, p=0.5))
    array([0.25, 0.25])
    """
    if isinstance(world.law, Finite):
        return _points(world.law).sum(0) / world.law.points.count
    return world.probability * _active_mean(world)


def mean_size(world: Features) -> Float[np.ndarray, " n"]:
    r"""Expected size of each feature, float64: $E |x_i| = P(x_i \ne 0)\, E a$, signed or not.

    >>> mean_size(Features(n=2, p=0.5, signed=True))
    array([0.25, 0.25])
    """
    if isinstance(world.law, Finite):
        return abs(_points(world.law)).sum(0) / world.law.points.count
    return world.probability * world.amplitude.mean


def second_moments(world: Features) -> Float[np.ndarray, "n n"]:
    r"""Expected products $E x_i x_j$, float64.

    $E x_i^2 = P(x_i \ne 0)\, E a^2$ under every law, and off the diagonal $E x_i x_j =
    P(\text{both active}) (E a)^2$, or 0 where signed: for uniform magnitudes $p_i p_j / 4$ for
    independent features and across sets, $p / 4$ inside a correlated set, 0 inside an
    anticorrelated one.

    >>> second_moments(Features.correlated(sets=1, size=2, p=0.6)).round(6)
    array([[0.2 , 0.15],
           [0.15, 0.2 ]])
    """
    if isinstance(world.law, Finite):
        x = _points(world.law)
        return (x.T @ x).toarray() / world.law.points.count
    active = world.probability
    together = np.outer(active, active)
    which = np.arange(world.n) // world.law.size
    inside = which[:, None] == which
    together[inside] = 0.0 if world.law.exclusive else np.repeat(active, world.law.size)
    moments = together * _active_mean(world) ** 2
    np.fill_diagonal(moments, active * world.amplitude.square)
    return moments


def covariance(world: Features) -> Float[np.ndarray, "n n"]:
    r"""Covariance of the features, $E x_i x_j - E x_i E x_j$, float64.

    For uniform magnitudes the diagonal of an independent world is $v(p) = p/3 - p^2/4$, and two
    members of an anticorrelated set of $k$ have $-p^2 / (4 k^2)$. A signed world is
    uncorrelated under every law.

    >>> covariance(Features(n=2, p=1.0)).round(6)
    array([[0.083333, 0.      ],
           [0.      , 0.083333]])
    """
    first = mean(world)
    return second_moments(world) - np.outer(first, first)


def _points(law: Finite) -> csr_array:
    # Sums of float32 would be of that precision.
    return law.points.matrix.astype(np.float64)


def _active_mean(world: Features) -> float:
    return 0.0 if world.signed else world.amplitude.mean
