"""First and second moments of a world, in closed form, for every law."""

import numpy as np
from jaxtyping import Float

from superpose.features import Features


def mean(world: Features) -> Float[np.ndarray, " n"]:
    r"""Expected value of each feature, float64: $E x_i = P(x_i \ne 0)\, E a$.

    a is the magnitude of an active feature, and $E a = 1/2$ where it is uniform; a signed world
    has mean 0.

    >>> mean(Features(n=2, p=0.5))
    array([0.25, 0.25])
    """
    return world.probability * _active_mean(world)


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


def _active_mean(world: Features) -> float:
    return 0.0 if world.signed else world.amplitude.mean
