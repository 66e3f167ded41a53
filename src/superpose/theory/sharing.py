"""Two features and one dimension: the ways to share it, under any law of a world."""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad

from superpose.features import Features
from superpose.theory import moments
from superpose.theory.arguments import refuse_finite


@dataclass(frozen=True, slots=True)
class SharedDimension:
    """Expected loss of two features with one dimension between them, for each use of it.

    `neither`: both are replaced by their means. `first`, `second`: one is kept exactly and the
    other replaced by its mean. `antipodal`: unit directions back to back, no bias.
    `collapsed`: one common direction of norm $1/\\sqrt 2$ for each, no bias.
    """

    neither: float
    first: float
    second: float
    antipodal: float
    collapsed: float

    @property
    def best(self) -> str:
        """The name of the use that costs least; of equal ones the first named."""
        losses = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return min(losses, key=lambda name: losses[name])


def shared_dimension(world: Features, i: int = 0, j: int = 1) -> SharedDimension:
    r"""What features `i` and `j` of a world cost for each use of one dimension between them.

    With the variances $v$, the chance $P_{ij}$ that both are active, and two magnitudes a, a′ of
    the world's amplitude law:

    - `neither` $I_i v_i + I_j v_j$; `first` $I_j v_j$; `second` $I_i v_i$;
    - `antipodal` $(I_i + I_j) P_{ij} E \min(a, a')^2$, for both lose the smaller of the two when
      they meet and nothing otherwise: $E \min^2 = 1/6$ for uniform magnitudes;
    - `collapsed` $(I_i + I_j) E (x_i - x_j)^2 / 4$, for both outputs are the mean of the two.

    A whole model made of such pairs in orthogonal dimensions costs their sum. So two correlated
    sets of two, in two dimensions, cost $2 p^2 / 3$ with antipodes across the sets and $2 p / 3$
    inside; anticorrelated ones 0 inside and $p^2 / 6$ across; and a correlated pair collapses
    at $p / 12$, below $p/3 - p^2/4$ of keeping one, for any p below 1.

    Raises ValueError for features that are not two of the world's, for a finite world, and for
    one of signed features, of which a ReLU output has no negative ones.
    Source: Toy Models of Superposition, sections on the phase change and on correlated
    features; the losses are worked out here.

    >>> pair = shared_dimension(Features.correlated(sets=1, size=2, p=0.3))
    >>> round(pair.collapsed, 6), round(pair.antipodal, 6), pair.best
    (0.025, 0.1, 'collapsed')
    """
    if i == j or not {i, j} <= set(range(world.n)):
        raise ValueError(
            f"shared_dimension(i={i}, j={j}): the world has features 0 to {world.n - 1}; give two "
            "different ones"
        )
    refuse_finite(
        "shared_dimension", world, "the closed forms hold for magnitudes of one law: compare losses"
    )
    if world.signed:
        raise ValueError(
            "shared_dimension: the world's features are signed, but a ReLU output cannot be "
            "negative; the closed forms hold for signed=False"
        )
    second, weight = moments.second_moments(world), world.importances
    variance = second.diagonal() - moments.mean(world) ** 2
    both = second[i, j] / world.amplitude.mean**2
    first, other = float(weight[i] * variance[i]), float(weight[j] * variance[j])
    total = float(weight[i] + weight[j])
    apart = float(second[i, i] + second[j, j] - 2 * second[i, j])
    return SharedDimension(
        neither=first + other,
        first=other,
        second=first,
        antipodal=total * float(both) * _smaller_square(world),
        collapsed=total * apart / 4,
    )


def _smaller_square(world: Features) -> float:
    """Mean square of the smaller of two magnitudes, $E \\min(a, a')^2$."""

    def square(u: float) -> float:
        return float(world.amplitude.magnitudes(np.array([u]))[0]) ** 2

    # The magnitudes are monotone in u, so the two are the mean squares of the smaller and of
    # the larger one, in the order of the law.
    low = quad(lambda u: 2 * (1 - u) * square(u), 0, 1, epsabs=1e-12)[0]
    high = quad(lambda u: 2 * u * square(u), 0, 1, epsabs=1e-12)[0]
    return min(low, high)
