"""Where two kinds of minima of the exact loss cost the same."""

from collections.abc import Callable

import torch
from scipy.optimize import root_scalar
from torch import Tensor

from superpose.features import Features
from superpose.theory.optimum import local_minima

_SAME = 0.02  # models whose norms and biases are this close are on one branch


def branch_crossing(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    world: Callable[[float], Features],
    between: tuple[float, float],
    *,
    precision: float = 1e-4,
) -> float:
    """The parameter of a family of worlds at which two branches of minima cost the same.

    `first` and `second` are models (W `[n, m]`, b `[n]`); the branch of each is the minimum
    downhill from it (`local_minima`) in `world(parameter)`. The difference of the two losses is
    bisected between the bounds by Brent's method.
    Raises ValueError where one branch is the lower at both bounds, or where they have become one:
    a branch ends where its minimum does, so the bounds should be close to the crossing.

    An antipodal pair against ignoring the second feature:

    >>> pair = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.0, 0.0])
    >>> alone = torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.1])
    >>> family = lambda p: Features(n=2, p=p, importance=[1.0, 0.3])
    >>> round(branch_crossing(pair, alone, family, between=(0.35, 0.38)), 2)
    0.38
    """
    W = torch.stack([first[0], second[0]]).double()
    b = torch.stack([first[1], second[1]]).double()

    def difference(parameter: float) -> float:
        one, other = local_minima(W, b, world(parameter))
        norms = [each.W.norm(dim=1) for each in (one, other)]
        if (norms[0] - norms[1]).abs().max() < _SAME and (one.b - other.b).abs().max() < _SAME:
            raise ValueError(
                f"branch_crossing(between={between}): at {parameter:.4g} both models run down to "
                f"the same minimum (loss {one.loss:.4g}), so that one branch has ended; take "
                "bounds closer to the crossing"
            )
        return one.loss - other.loss

    ends = [difference(each) for each in between]
    if ends[0] * ends[1] > 0:
        raise ValueError(
            f"branch_crossing(between={between}): the losses differ by {ends[0]:.4g} and "
            f"{ends[1]:.4g} there, of the same sign: no crossing between, or one of the branches "
            "ends there; take bounds on both sides of the crossing and closer to it"
        )
    return root_scalar(difference, bracket=between, xtol=precision).root
