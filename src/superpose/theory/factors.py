r"""Which polytopes a uniform world packs, from the exact optimum of each factor alone.

Factors that live in orthogonal subspaces do not interact: the loss is a sum over them. With
many more features than dimensions and equal importances, each dimension goes to the factor that
saves most loss for it, whatever the other dimensions do.
"""

from collections.abc import Iterable
from typing import NamedTuple

from scipy.optimize import root_scalar

from superpose.features import Features
from superpose.theory.optimum import Optimum, optima, optimum

FACTORS = {
    (1, 1): "dedicated",
    (2, 1): "digon",
    (3, 2): "triangle",
    (4, 3): "tetrahedron",
    (5, 4): "5-cell",
    (5, 2): "pentagon",
}


class Factor(NamedTuple):
    """k features in d dimensions at density p, at their best.

    `gain` is $G = (k v - L) / d$ in units of v: the loss saved for each dimension, where 1 is
    what a feature with a dimension to itself saves. `dims_per_feature` is
    $D^* = d / \\|W\\|_F^2$, what a model packed with this factor alone shows.
    """

    k: int
    d: int
    p: float
    gain: float
    dims_per_feature: float
    optimum: Optimum

    @property
    def name(self) -> str:
        """The polytope where k and d have one, else "k in d"."""
        return FACTORS.get((self.k, self.d), f"{self.k} in {self.d}")


def factor(k: int, d: int, p: float, *, starts: int = 32, seed: int = 0) -> Factor:
    r"""The best packing of k equal features in d dimensions and what it gains.

    $G(k, d; p) = (k v - L_{\min}(k, d; p)) / d$ with $v = p/3 - p^2/4$, in units of v. The
    optimum need not be one polytope: four features in the plane are two digons, and gain what a
    digon gains. From three dimensions on only a start in 7 to 16 finds the best, so give many.
    Raises ValueError for k or d below 1 and p outside (0, 1].
    Source: derived in this project; the "sticky" dimensions per feature of Toy Models of
    Superposition, section 4, are what it explains.

    >>> round(factor(2, 1, 0.25, starts=4).gain, 3)  # a digon at 1/p = 4
    1.697
    """
    return _factor(k, d, p, optimum(Features(n=k, p=p), d, starts=starts, seed=seed))


def factors(
    shapes: Iterable[tuple[int, int]],
    p: Iterable[float],
    *,
    starts: int = 8,
    seed: int = 0,
) -> tuple[Factor, ...]:
    """The factors of all shapes (k, d) at all densities: for each shape, one for each p in turn.

    Each density also starts from the minima of its neighbours (see `optima`), so `p` should
    rise or fall along its length. Raises as `factor`.

    >>> [(each.k, round(each.gain, 3)) for each in factors([(1, 1), (2, 1)], [0.5], starts=4)]
    [(1, 1.0), (2, 1.268)]
    """
    densities = list(p)
    found = []
    for k, d in shapes:
        worlds = [Features(n=k, p=density) for density in densities]
        best = optima(worlds, d, starts=starts, seed=seed)
        found += [_factor(k, d, q, each) for q, each in zip(densities, best, strict=True)]
    return tuple(found)


def best_factors(found: Iterable[Factor], *, margin: float = 0.0) -> dict[float, list[Factor]]:
    """For each density the factors of highest gain, best first: those within `margin` of it.

    Factors are told apart by their gain: of those that gain the same to 1e-6 (four features in
    the plane that are two digons), the one with fewest features stands for all.

    >>> best = best_factors(factors([(1, 1), (2, 1), (4, 2)], [0.5], starts=4))
    >>> [each.name for each in best[0.5]]
    ['digon']
    """
    table: dict[float, list[Factor]] = {}
    for each in sorted(found, key=lambda each: (each.p, each.k)):
        here = table.setdefault(each.p, [])
        if all(abs(each.gain - other.gain) > 1e-6 for other in here):
            here.append(each)
    for p, here in table.items():
        here.sort(key=lambda each: -each.gain)
        table[p] = [each for each in here if each.gain >= here[0].gain - margin]
    return table


def factor_crossing(
    first: tuple[int, int],
    second: tuple[int, int],
    between: tuple[float, float],
    *,
    starts: int = 8,
) -> float:
    """The sparsity 1/p between two bounds at which two shapes (k, d) gain the same.

    Raises ValueError where one of them gains more at both bounds.

    >>> round(factor_crossing((2, 1), (5, 2), between=(4.3, 4.6), starts=4), 2)
    4.45
    """

    def difference(sparsity: float) -> float:
        one, other = (factor(k, d, 1 / sparsity, starts=starts) for k, d in (first, second))
        return one.gain - other.gain

    ends = [difference(each) for each in between]
    if ends[0] * ends[1] > 0:
        raise ValueError(
            f"factor_crossing({first}, {second}, between={between}): the gains differ by "
            f"{ends[0]:.4g} and {ends[1]:.4g} there, of the same sign; widen the bounds"
        )
    return root_scalar(difference, bracket=between, xtol=1e-4).root


def _factor(k: int, d: int, p: float, best: Optimum) -> Factor:
    v = p / 3 - p * p / 4
    gain = (k - best.loss / v) / d
    return Factor(k, d, p, gain, d / float((best.W**2).sum()), best)
