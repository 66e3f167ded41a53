"""How the linear model learns, and how degenerate its minima are."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.features import Features
from superpose.theory import moments
from superpose.theory.linear import linear_minimum

_SAME = 1e-9


def linear_flow(
    W: Float[Tensor, "n m"], world: Features, times: Float[Tensor, " times"]
) -> Float[Tensor, "times n m"]:
    r"""Weights along the gradient flow of the linear model, in closed form.

    $\dot W = -\nabla_W L$ from `W` at time 0, where L is the loss of $\hat x = x W W^\top + b$ with
    the bias optimal at every moment, in a world of one variance $\sigma^2$ and one importance I.
    The singular vectors stay, and each squared singular value follows the logistic equation
    $\dot u = 8 I \sigma^2 u (1 - u)$:
    $u(t) = u_0 e^{8 I \sigma^2 t} / (1 - u_0 + u_0 e^{8 I \sigma^2 t})$. What starts at 0 stays
    there, what starts small waits about $\ln(1 / u_0) / 8 I \sigma^2$ and then rises as a
    sigmoid to 1: learning in steps. A gradient step of size $\eta$ advances t by $\eta$.
    Float64, `[times, n, m]`; times are at least 0.

    Raises ValueError for a world whose features are correlated or differ in variance or
    importance (then the singular vectors turn), for a W that does not fit the world and for
    negative times.
    Source: Saxe et al. 2014, Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks, for tied weights.

    >>> W = torch.tensor([[0.1], [0.0]])
    >>> linear_flow(W, Features(n=2, p=1.0), torch.tensor([0.0, 100.0]))[:, 0, 0]
    tensor([0.1000, 1.0000], dtype=torch.float64)
    """
    if W.ndim != 2 or W.shape[0] != world.n:
        raise ValueError(
            f"linear_flow: W has shape {list(W.shape)}, but the world has n={world.n} features; "
            "W is [n, m], one row for each feature"
        )
    if not (times >= 0).all():
        raise ValueError("linear_flow: the weights are known from time 0 on; times are at least 0")
    rate = 8 * _isotropic_variance(world)
    U, s, V = torch.linalg.svd(W.detach().cpu().double(), full_matrices=False)
    # Divided by the growing exponential, which would overflow.
    decay = torch.exp(-rate * times.double())[:, None]
    u = s**2 / ((1 - s**2) * decay + s**2).masked_fill(s**2 == 0, 1.0)
    return (U * u.sqrt().unsqueeze(-2)) @ V


def linear_learning_coefficient(world: Features, m: int, *, bias: bool = True) -> float:
    r"""Local learning coefficient of the linear model's minima: half their codimension.

    The minima are non-degenerate: the loss rises quadratically off the manifold they form, so
    $\lambda$ is half of its codimension. Where a features have a larger value
    $I_i \mathrm{Var}\, x_i$ than the last one kept and t share that one's, of which
    $g = m - a$ are kept, the minima are the choices of g dimensions among t and the rotations of
    the hidden space, and
    $2 \lambda = nm - m(m-1)/2 - g(t - g)$; for equal features $\lambda = m(m+1)/4$, for
    distinct ones half of $nm - m(m-1)/2$. With $m \ge n$ all minima have $W W^\top = 1$ and
    $\lambda = n(n+1)/4$. A trained `bias` adds n/2; without it b is held at its optimum
    for W.

    Raises ValueError for a world where some feature has importance 0 (its weights are then
    free), where values tie in other ways than by equal variance and importance (the set of
    minima then has parts of several dimensions), or where `linear_minimum` is not known.
    Source: Watanabe 2009, Algebraic Geometry and Statistical Learning Theory (the coefficient
    of a non-degenerate minimum manifold); the codimension is worked out here.

    >>> linear_learning_coefficient(Features(n=6, p=0.3), m=2, bias=False)
    1.5
    >>> linear_learning_coefficient(Features(n=6, p=0.3, importance=0.7), m=2)
    8.5
    """
    linear_minimum(world, m)
    n, offset = world.n, world.n / 2 if bias else 0.0
    variance, importance = _values(world)
    value = variance * importance
    if value.min() <= 0:
        raise ValueError(
            "linear_learning_coefficient: a feature has no importance or no variance, so its "
            "weights are free and the minima degenerate; leave it out of the world"
        )
    if m >= n:
        return n * (n + 1) / 4 + offset
    if m == 0:
        return offset
    last = np.argsort(-value)[m - 1]
    tied = np.abs(value - value[last]) <= _SAME * value[last]
    alike = np.abs(importance - importance[last]) <= _SAME * importance[last]
    if (tied & ~alike).any():
        raise ValueError(
            "linear_learning_coefficient: the value I_i Var x_i of the last feature kept is "
            "shared by one of another importance; change either by a little"
        )
    kept = m - int((~tied & (value > value[last])).sum())
    return (n * m - m * (m - 1) / 2 - kept * (int(tied.sum()) - kept)) / 2 + offset


def hessian_learning_coefficient(
    hessian: Float[Tensor, "size size"], tolerance: float = 1e-7
) -> float:
    r"""Local learning coefficient of a minimum from its Hessian: half the rank.

    Right where the minima near it form a manifold across which the loss rises quadratically
    (Morse-Bott), as at an isolated minimum up to rotations; in general a lower bound. NaN where
    an eigenvalue is negative: the point is no minimum. Eigenvalues below `tolerance` times the
    largest count as 0.
    Source: Watanabe 2009; Lau et al. 2023, Quantifying Degeneracy in Singular Models.

    >>> hessian_learning_coefficient(torch.diag(torch.tensor([2.0, 1.0, 0.0])))
    1.0
    """
    eigenvalues = torch.linalg.eigvalsh(hessian.double())
    smallest = tolerance * eigenvalues.abs().max()
    if eigenvalues[0] < -smallest:
        return math.nan
    return int((eigenvalues > smallest).sum()) / 2


def _isotropic_variance(world: Features) -> float:
    """Importance times variance, where it is one number."""
    sigma, weight = moments.covariance(world), world.importances
    value = sigma[0, 0] * weight[0]
    if (np.abs(weight[:, None] * sigma - value * np.eye(world.n)) > _SAME * value).any():
        raise ValueError(
            f"linear_flow({world}): the closed form holds for uncorrelated features of one "
            "variance and one importance; integrate the flow numerically for others"
        )
    return float(value)


def _values(world: Features) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Variances along the common eigenvectors of importance and covariance, with importances."""
    sigma, weight = moments.covariance(world), world.importances
    variances, importances = [], []
    for each in np.unique(weight):
        inside = weight == each
        variances.append(np.linalg.eigvalsh(sigma[np.ix_(inside, inside)]))
        importances.append(np.full(inside.sum(), each))
    return np.concatenate(variances), np.concatenate(importances)
