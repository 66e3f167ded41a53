"""Points on a sphere that repel only where their products are positive."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

_SAME = 1e-6


@dataclass(frozen=True, slots=True)
class ThomsonMinimum:
    """The lowest energy found for k points on the sphere in d dimensions.

    `points` `[k, d]` are of unit length; `found` is the share of the starts that ended at this
    energy, and `energies` are all the distinct energies reached, lowest first.
    """

    energy: float
    points: Float[np.ndarray, "k d"]
    found: float
    energies: tuple[float, ...]


def thomson_energy(W: Float[Tensor, "*run k d"]) -> Float[Tensor, "*run"]:
    r"""Interference that a ReLU lets through: $E = \sum_{i \ne j} \mathrm{ReLU}(W_i \cdot W_j)^2$.

    At least 0 (good): 0 where no two directions are closer than a right angle. Both orders of
    a pair count. With unit rows, no bias and one feature active at 1, it is the loss summed over
    which feature that is: a Thomson problem whose force acts at acute angles only.
    Source: Toy Models of Superposition, section on mathematical understanding.

    >>> import torch
    >>> thomson_energy(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]]))
    tensor(0.7200)
    """
    acute = (W @ W.mT).relu() ** 2
    return acute.sum((-2, -1)) - acute.diagonal(dim1=-2, dim2=-1).sum(-1)


def thomson_minimum(k: int, d: int, *, starts: int = 32, seed: int = 0) -> ThomsonMinimum:
    r"""The least energy of `k` points on the sphere in `d` dimensions, from random `starts`.

    Each start is a uniform random set of points, improved by L-BFGS on the energy of its
    directions to a gradient of 1e-10. The lowest energy found is an upper bound on the minimum
    and nothing proves it least; `found` near 1 makes it plausible. It is 0, on a whole set of
    arrangements, for $k \le 2d$.
    Raises ValueError for sizes below 1.
    Source: the energy as in `thomson_energy`; the known minima are those of docs/oracles.md.

    >>> best = thomson_minimum(5, 2, starts=4)
    >>> round(best.energy, 6)
    0.954915
    """
    if min(k, d, starts) < 1:
        raise ValueError(
            f"thomson_minimum(k={k}, d={d}, starts={starts}): points, dimensions and starts are "
            "counts of at least 1"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, k, d]))
    ends = [_descend(rng.normal(size=(k, d))) for _ in range(starts)]
    energy, points = min(ends, key=lambda end: end[0])
    distinct = []
    for value in sorted(end[0] for end in ends):
        if not distinct or value > distinct[-1] + _SAME:
            distinct.append(value)
    found = sum(end[0] <= energy + _SAME for end in ends) / starts
    return ThomsonMinimum(energy=energy, points=points, found=found, energies=tuple(distinct))


def _descend(start: Float[np.ndarray, "k d"]) -> tuple[float, Float[np.ndarray, "k d"]]:
    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = flat.reshape(start.shape)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        unit = x / length
        acute = np.maximum(unit @ unit.T, 0)
        np.fill_diagonal(acute, 0)
        pull = 4 * acute @ unit
        # Along the sphere only: the energy is that of the directions.
        pull -= (pull * unit).sum(1, keepdims=True) * unit
        return float((acute**2).sum()), (pull / length).ravel()

    options = {"maxiter": 5000, "maxfun": 20000, "gtol": 1e-10, "ftol": 1e-16}
    end = minimize(energy, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    x = end.x.reshape(start.shape)
    return float(end.fun), x / np.linalg.norm(x, axis=1, keepdims=True)
