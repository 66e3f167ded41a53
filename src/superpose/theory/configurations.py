r"""Phase diagrams of two and three features without training: by few configurations, and exactly.

The features are independent, uniform when active, and equally probable; all have importance 1
but the last, the *extra* one, which has importance r. The theory of few configurations lets
every represented feature have norm 1 and compares a handful of arrangements; the exact one
minimises the loss over all weights and biases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.features import Features
from superpose.theory.optimum import Optimum, local_minima, optima

REPRESENTED, SUPERPOSED = 0.5, 0.1


class Configuration(NamedTuple):
    """One arrangement: its name, its loss, the state of the extra feature, W and b."""

    name: str
    loss: float
    state: str
    W: Float[Tensor, "n m"]
    b: Float[Tensor, " n"]


def configurations(n: int, m: int, p: float, r: float) -> tuple[Configuration, ...]:
    r"""The arrangements of the few-configuration theory, lowest loss first.

    With $v = p/3 - p^2/4$, the variance of a feature. Two features in one dimension: the extra
    feature ignored, $r v$; the ordinary one ignored, $v$; an antipodal pair, $(1+r) p^2/6$.
    Three in two dimensions: the extra one ignored, $r v$; an ordinary one ignored, $v$; the
    ordinary ones antipodal, $p^2/3$; the extra one antipodal to an ordinary one,
    $(1+r) p^2/6$; a triangle, $(2+r)(p^2/8 + p^3/24)$. An ignored feature has the bias $p/2$,
    all others 0. The loss of each is the exact loss of its W and b.

    Raises ValueError for other (n, m), p outside (0, 1] or r not positive.
    Source: Toy Models of Superposition, section 3, which leaves the triangle out (W is
    perpendicular to (1, 1, 1)); its loss is derived in this project. With norm 1 and no bias it
    is never the lowest.

    >>> [c.name for c in configurations(n=2, m=1, p=0.1, r=1.0)]
    ['antipodal pair', 'extra ignored', 'ordinary ignored']
    """
    _check("configurations", n, m, r)
    if not 0.0 < p <= 1.0:
        raise ValueError(f"configurations(p={p}): p is a probability and lies in (0, 1]")
    v = p / 3 - p * p / 4
    height = sqrt(3) / 2
    if n == 2:
        rows = [
            ("extra ignored", r * v, "ignored", [[1], [0]]),
            ("ordinary ignored", v, "dedicated", [[0], [1]]),
            ("antipodal pair", (1 + r) * p * p / 6, "superposed", [[1], [-1]]),
        ]
    else:
        triangle = (2 + r) * (p**2 / 8 + p**3 / 24)
        corners = [[1, 0], [-0.5, height], [-0.5, -height]]
        rows = [
            ("extra ignored", r * v, "ignored", [[1, 0], [0, 1], [0, 0]]),
            ("ordinary ignored", v, "dedicated", [[0, 0], [1, 0], [0, 1]]),
            ("ordinary antipodal", p * p / 3, "dedicated", [[1, 0], [-1, 0], [0, 1]]),
            ("extra antipodal", (1 + r) * p * p / 6, "superposed", [[1, 0], [0, 1], [0, -1]]),
            ("triangle", triangle, "superposed", corners),
        ]
    found = []
    for name, loss, state, directions in rows:
        W = torch.tensor(directions, dtype=torch.float64)
        b = torch.where(W.norm(dim=1) > 0, 0.0, p / 2).double()
        found.append(Configuration(name, loss, state, W, b))
    return tuple(sorted(found, key=lambda each: each.loss))


def phase_boundary(n: int, m: int, r: float) -> float:
    r"""The critical p of the few-configuration theory for an extra feature of importance r.

    Below it (sparser) the less important features share a dimension, above it one is ignored.
    Two features in one dimension: $4r/(2+5r)$ for $r \le 1$, where the extra feature goes from
    superposed to ignored, and $4/(2r+5)$ for $r \ge 1$, where it goes from superposed to
    dedicated. Three in two: $4r/(2+5r)$ for $r \le 1$ as before; for $r \ge 1$ always
    $4/7$, where the two ordinary features part while the extra one keeps a dimension of its
    own. There the line r = 1, p < 4/7 is the second boundary of the extra feature, between
    superposed and dedicated. In both the triple point is (1, 4/7) and the losses of the phases
    cross with different slopes: a first-order transition.

    Raises ValueError for other (n, m) or r not positive.
    Source: Toy Models of Superposition, section 3.

    >>> round(phase_boundary(n=2, m=1, r=1.0), 6)  # 4/7
    0.571429
    """
    _check("phase_boundary", n, m, r)
    if r <= 1:
        return 4 * r / (2 + 5 * r)
    return 4 / (2 * r + 5) if n == 2 else 4 / 7


def states(W: Float[Tensor, "n m"]) -> tuple[str, ...]:
    """The state of each feature: "ignored", "dedicated" or "superposed".

    Ignored: norm at most 1/2. Superposed: represented, with interference
    $\\sum_{j \\ne i} (\\hat W_i \\cdot W_j)^2$ above 0.1. Dedicated: neither.

    >>> states(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.1]]))
    ('dedicated', 'superposed', 'superposed', 'ignored')
    """
    gram = (W @ W.T).double()
    square = gram.diagonal()
    overlap = ((gram**2).sum(1) - square**2) / square.clamp(min=1e-300)
    represented, shared = square > REPRESENTED**2, overlap > SUPERPOSED
    names = zip(represented.tolist(), shared.tolist(), strict=True)
    return tuple(("superposed" if s else "dedicated") if here else "ignored" for here, s in names)


class Boundary(NamedTuple):
    """Where the extra feature stops being superposed, and by how much the norms jump there."""

    p: float
    jump: float


def exact_boundary(r: float, *, precision: float = 1e-4) -> Boundary:
    """The least density at which the extra of two features in one dimension is not superposed.

    The exact counterpart of `phase_boundary(2, 1, r)`: the state (see `states`) of the optimum
    over all weights and biases, followed upwards from that density, where a pair with free
    norms and biases is still the best, in steps of 0.02 and then bisected to an absolute
    `precision`. `jump` is the largest change of a feature's norm across the boundary: of order 1
    where two minima cross (first order), of order `precision` where the state of one minimum
    passes a threshold, as it does for r from about 0.99 to 1.3. There the optimum has jumped a
    little before, from an even pair to an uneven one (at r = 1 at p = 0.706, from norms of
    0.755 to 0.92 and 0.52), which is still superposed. At r = 1 the two features can change places;
    that optimum is taken in which the extra one has the smaller norm, so that the boundary is
    the limit from below (p = 0.71). p is NaN where the extra feature is superposed up to p = 1.
    The optimum is the lowest end of descents out of the configurations of the few-configuration
    theory, both signs of a small second weight, and a pair on the same side.
    Raises ValueError for r not positive and a precision outside [1e-9, 0.1].

    >>> boundary = exact_boundary(0.1, precision=0.01)
    >>> 0.16 < boundary.p < 0.2, boundary.jump > 0.5
    (True, True)
    """
    _check("exact_boundary", 2, 1, r)
    if not 1e-9 <= precision <= 0.1:
        raise ValueError(
            f"exact_boundary(precision={precision}): the absolute error of p lies in [1e-9, 0.1]"
        )
    low = phase_boundary(2, 1, r)
    inside = outside = _best_pair(low, r)
    high = low
    while high < 1.0:
        low, high = high, min(high + 0.02, 1.0)
        inside, outside = outside, _best_pair(high, r)
        if states(outside)[1] != "superposed":
            break
    else:
        return Boundary(float("nan"), 0.0)
    while high - low > precision:
        p = (low + high) / 2
        best = _best_pair(p, r)
        if states(best)[1] == "superposed":
            low, inside = p, best
        else:
            high, outside = p, best
    jump = (inside.norm(dim=1) - outside.norm(dim=1)).abs().max()
    return Boundary((low + high) / 2, float(jump))


def _best_pair(p: float, r: float) -> Float[Tensor, "n m"]:
    """W of the best model of two features in one dimension."""
    W = torch.tensor([[1, -1], [1, 0.1], [1, -0.1], [0.1, 1], [-0.1, 1], [0.7, 0.7], [1, 0.4]])
    b = torch.tensor([[0, 0], [0, 1], [0, 1], [1, 0], [1, 0], [0.5, 0.5], [-0.5, 0.5]]) * p / 2
    world = Features(n=2, p=p, importance=(1.0, r))
    found = local_minima(W[..., None].double(), b.double(), world)
    least = min(each.loss for each in found)
    # Of mirror images, which at r = 1 tie, rounding must not choose.
    tied = [each.W for each in found if each.loss <= least * (1 + 1e-6)]
    return min(tied, key=lambda W: W[1].norm().item())


@dataclass(frozen=True, slots=True)
class PhasePlane:
    """The optimum over a plane of worlds, rows r and columns p.

    `state` `[rows, columns]` is that of the extra feature in the lowest minimum; `optima` holds
    all minima.
    """

    r: Float[np.ndarray, " rows"]
    p: Float[np.ndarray, " columns"]
    state: np.ndarray
    optima: tuple[tuple[Optimum, ...], ...]

    @property
    def loss(self) -> Float[np.ndarray, "rows columns"]:
        """The loss of each optimum."""
        return np.array([[each.loss for each in row] for row in self.optima])


def phase_plane(
    n: int,
    m: int,
    *,
    r: Sequence[float],
    p: Sequence[float],
    starts: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> PhasePlane:
    """The exact optimum of every world of a plane, n features of which the last weighs r.

    Rows of r are visited in turn, to and fro along p, each world with its own random starts and
    its neighbours' minima (see `optima`, whose `progress` this is).
    For `phases.exact_plane`, whose rows are p, transpose: `exact_plane(found.state.T, r, p)`.
    Raises ValueError for n below 2, and for p or r out of range.

    >>> phase_plane(2, 1, r=[0.1], p=[0.1, 0.3], starts=2).state
    array([['superposed', 'ignored']], dtype='<U10')
    """
    if n < 2:
        raise ValueError(f"phase_plane(n={n}): an extra feature beside ordinary ones needs n ≥ 2")
    rows, columns = np.asarray(r, np.float64), np.asarray(p, np.float64)
    if rows.ndim != 1 or columns.ndim != 1 or not (rows > 0).all():
        raise ValueError(
            f"phase_plane(r={r}, p={p}): r and p are sequences, the axes of the plane, and every r "
            "is positive"
        )
    path = [
        (i, j)
        for i in range(rows.size)
        for j in (range(columns.size) if i % 2 == 0 else reversed(range(columns.size)))
    ]
    worlds = [Features(n=n, p=columns[j], importance=(*[1.0] * (n - 1), rows[i])) for i, j in path]
    found = dict(zip(path, optima(worlds, m, starts=starts, progress=progress), strict=True))
    table = tuple(tuple(found[i, j] for j in range(columns.size)) for i in range(rows.size))
    state = np.array([[states(each.W)[-1] for each in row] for row in table])
    return PhasePlane(rows, columns, state, table)


def antipodal_without_bias(p: float) -> tuple[float, float]:
    r"""Squared norm and loss of the best antipodal pair in one dimension when b = 0.

    $W = \sqrt a (1, -1)$ has the loss $2 [p (1-p) (1-a)^2 / 3 + p^2 (1/3 - a/4 + a^2/12)]$,
    least at $a = (8 - 5p) / (8 - 6p)$, for two features of importance 1. Beside it the
    confused pair $W = \sqrt a (1, 1)$ has its least loss $p/3 - p^2/4$ at $a = 1/2$, whatever p.
    The antipodal pair is the better one below p = 0.58217.
    Source: the closed forms of two features in one dimension are T. McGrath's comment on Toy
    Models of Superposition; minima derived in this project.

    >>> a, loss = antipodal_without_bias(0.5)
    >>> round(a, 6), round(loss, 6)
    (1.1, 0.08125)
    """
    a = (8 - 5 * p) / (8 - 6 * p)
    return a, 2 * (p * (1 - p) * (1 - a) ** 2 / 3 + p * p * (1 / 3 - a / 4 + a * a / 12))


def _check(call: str, n: int, m: int, r: float) -> None:
    if (n, m) not in ((2, 1), (3, 2)):
        raise ValueError(
            f"{call}(n={n}, m={m}): the few-configuration theory is known for n=2, m=1 "
            "and n=3, m=2; for other sizes take the exact optimum, theory.phase_plane"
        )
    if not r > 0:
        raise ValueError(f"{call}(r={r}): the relative importance r is positive")
