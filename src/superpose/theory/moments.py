"""First and second moments of a world, in closed form, for every law."""

import numpy as np
from jaxtyping import Float

from superpose.features import Features

# Moments of one active feature, uniform on (0, 1].
_MEAN, _SQUARE = 1 / 2, 1 / 3


def mean(world: Features) -> Float[np.ndarray, " n"]:
    r"""Expected value of each feature: $E x_i = P(x_i > 0) / 2$, float64 in (0, 1/2].

    >>> mean(Features(n=2, p=0.5))
    array([0.25, 0.25])
    """
    return world.probability * _MEAN


def second_moments(world: Features) -> Float[np.ndarray, "n n"]:
    r"""Expected products $E x_i x_j$, float64.

    $E x_i^2 = P(x_i > 0) / 3$ under every law, and off the diagonal $E x_i x_j =
    P(\text{both active}) / 4$: $p_i p_j / 4$ for independent features and across sets, $p / 4$
    inside a correlated set, 0 inside an anticorrelated one.

    >>> second_moments(Features.correlated(sets=1, size=2, p=0.6)).round(6)
    array([[0.2 , 0.15],
           [0.15, 0.2 ]])
    """
    active = world.probability
    together = np.outer(active, active)
    which = np.arange(world.n) // world.law.size
    inside = which[:, None] == which
    together[inside] = 0.0 if world.law.exclusive else np.repeat(active, world.law.size)
    moments = together * _MEAN**2
    np.fill_diagonal(moments, active * _SQUARE)
    return moments


def covariance(world: Features) -> Float[np.ndarray, "n n"]:
    r"""Covariance of the features, $E x_i x_j - E x_i E x_j$, float64.

    The diagonal of an independent world is $v(p) = p/3 - p^2/4$; two members of an
    anticorrelated set of $k$ have $-p^2 / (4 k^2)$.

    >>> covariance(Features(n=2, p=1.0)).round(6)
    array([[0.083333, 0.      ],
           [0.      , 0.083333]])
    """
    first = mean(world)
    return second_moments(world) - np.outer(first, first)
