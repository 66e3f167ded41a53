r"""One feature at a time in the plane: regular polygons and their exact losses.

Where exactly one of n features is active, uniform on (0, 1], the expected loss of
$\hat x = \mathrm{ReLU}(x W W^\top + b)$ is an explicit function of W and b, made of two integrals:
the error of the active feature and the square of what it puts on the others.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from superpose.theory.dynamics import hessian_learning_coefficient


@dataclass(frozen=True, slots=True)
class Polygon:
    """A regular polygon of k features among c, and what it costs.

    `length` is the norm of the k directions and `bias` their bias; `dead_bias` is that of one of
    the c − k features left out (0 when all of them are silent). `loss` is that of a world where
    exactly one of the c features is active, and `potential` is 3c times it.
    `learning_coefficient` is half the rank of the Hessian there, NaN where the polygon is not a
    minimum or the loss has no second derivative.
    """

    k: int
    c: int
    length: float
    bias: float
    dead_bias: float
    potential: float
    loss: float
    learning_coefficient: float


def own_error(a: Float[Tensor, "*any"], b: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    r"""Squared error of a feature on its own.

    $A(a, b) = \int_0^1 (x - \mathrm{ReLU}(ax + b))^2 dx$, where `a` is the slope $\|W_i\|^2$, at
    least 0, and `b` the bias; differentiable in both. At least 0 (good, a perfect copy); 1/3 is a
    silent output.
    Source: Chen et al. 2023, Dynamical versus Bayesian Phase Transitions in a Toy Model of
    Superposition, appendix on the potential.

    >>> own_error(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor([0.0000, 0.3333])
    """
    # The output is on from x = start on.
    turns = (b < 0) & (a + b > 0)
    start = torch.where(turns, -b / torch.where(turns, a, 1.0), (b < 0).to(b.dtype))
    overlap = a * (1 - start**3) / 3 + b * (1 - start**2) / 2
    return 1 / 3 - 2 * overlap + crosstalk(a, b)


def crosstalk(c: Float[Tensor, "*any"], b: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    r"""What one feature puts on another: $B(c, b) = \int_0^1 \mathrm{ReLU}(cx + b)^2 dx$.

    `c` is the product $W_i \cdot W_j$ and `b` the bias of the output disturbed; differentiable
    in both. At least 0 (good: the ReLU hides the interference).
    Source: as `own_error`.

    >>> crosstalk(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([0.0, 0.5, 2.0]))
    tensor([0.3333, 0.0417, 4.0000])
    """
    always = (b > 0) & (b + c > 0)
    slope = torch.where(always | (c == 0), 1.0, c)
    # Where the sign changes |c| exceeds |b|, so that the difference quotient keeps its digits.
    partly = ((c + b).relu() ** 3 - b.relu() ** 3) / (3 * slope)
    return torch.where(always, b**2 + b * c + c**2 / 3, partly)


def single_feature_loss(
    W: Float[Tensor, "*run n m"], b: Float[Tensor, "*run n"], importance: Float[Tensor, " n"]
) -> Float[Tensor, "*run"]:
    r"""Expected loss where exactly one feature is active, each as often, uniform on (0, 1].

    $L = \frac1n \sum_j [I_j A(W_j \cdot W_j, b_j) + \sum_{i \ne j} I_i B(W_i \cdot W_j, b_i)]$
    in the precision of W, differentiable: its Hessian can be taken. It is also the term $L_1$ of
    the expansion in the number of active features.
    Source: Toy Models of Superposition, section on mathematical understanding; Chen et al. 2023.

    >>> W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> single_feature_loss(W, torch.zeros(4), torch.ones(4))
    tensor(0.)
    """
    gram = W @ W.mT
    own = own_error(gram.diagonal(dim1=-2, dim2=-1), b)
    others = crosstalk(gram, b.unsqueeze(-1).expand_as(gram))
    eye = torch.eye(b.shape[-1], dtype=torch.bool, device=b.device)
    return (importance * (own + others.masked_fill(eye, 0.0).sum(-1))).mean(-1)


def k_gon(k: int, c: int | None = None, *, dead_bias: bool = False) -> Polygon:
    r"""The best regular k-gon in the plane for `c` features (k by default), one active at a time.

    It minimises $h_k = 3k [A(l^2, b) + \sum_{j=1}^{k-1} B(l^2 \cos(2 \pi j / k), b)]$ over the
    length l and the bias b. The c − k features left out have no direction and a negative bias:
    they cost 1 each, so $L = (h_k + c - k) / 3c$. With `dead_bias` one of them puts out the
    constant $1 / 2c$ instead, which lowers L by $1 / 4c^2$ (the papers' $k^+$).

    The learning coefficient is half the rank of the Hessian in all 3c parameters; silent
    features leave the loss flat and add nothing, one with a dead bias adds 3/2. From 5 to 9
    corners the polygon is a minimum with $(3k - 1)/2$; the square's Hessian does not exist.

    Raises ValueError for k below 4 and c below k (below k + 1 with a dead bias).
    Source: Chen et al. 2023, section on k-gons. For 8 corners the paper's digits contradict each
    other by 4e-5; here the gradient of h is below 1e-12.

    >>> pentagon = k_gon(5)
    >>> round(pentagon.length, 5), round(pentagon.bias, 5), round(pentagon.loss, 6)
    (1.17046, -0.2823, 0.015826)
    >>> pentagon.learning_coefficient
    7.0
    """
    c = k if c is None else c
    if k < 4:
        raise ValueError(
            f"k_gon(k={k}): a polygon has at least 4 corners here; up to 4 features fit into the "
            "plane at no loss, with fewer than 4 in more than one way"
        )
    if c < k + dead_bias:
        raise ValueError(
            f"k_gon(k={k}, c={c}, dead_bias={dead_bias}): c counts all features, the corners and "
            f"those left out, and is at least {k + dead_bias}"
        )
    square, bias = _best_polygon(k)
    total = _corner_loss(k, torch.stack((square, bias))).item() * k
    loss = (total + (c - k) / 3) / c - (1 / (4 * c**2) if dead_bias else 0.0)
    return Polygon(
        k=k,
        c=c,
        length=math.sqrt(square.item()),
        bias=bias.item(),
        dead_bias=1 / (2 * c) if dead_bias else 0.0,
        potential=3 * c * loss,
        loss=loss,
        learning_coefficient=_learning_coefficient(k, c if dead_bias else k, square, bias),
    )


def memorising_polygon(points: int) -> tuple[float, float]:
    r"""Length and bias at which a polygon of `points` one-hot examples is memorised without error.

    Example i is $x = e_i$, exactly, and its hidden vector a corner: with
    $l^2 = 1 / (1 - \cos(2 \pi / T))$ and $b = 1 - l^2$ the output is 1 at i, and its neighbours'
    pre-activations are 0, all others' below, so the loss is 0 for any number T of examples in
    two dimensions. Each example has the dimensionality $2 / T$; the length grows as
    $T / \sqrt{2} \pi$, which is what weight decay has to pay for.
    Raises ValueError for fewer than 3 examples.
    Source: Henighan et al. 2023, Superposition, Memorization, and Double Descent (the T-gons of
    small data sets); the lengths are worked out here.

    >>> length, bias = memorising_polygon(6)
    >>> round(length, 6), round(bias, 6)
    (1.414214, -1.0)
    """
    if points < 3:
        raise ValueError(f"memorising_polygon(points={points}): a polygon has at least 3 corners")
    square = 1 / (1 - math.cos(2 * math.pi / points))
    return math.sqrt(square), 1 - square


def _corner_loss(k: int, at: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any"]:
    """Loss of one corner's feature and of what it puts on the others, at (length squared, bias)."""
    square, bias = at[..., 0], at[..., 1]
    turn = torch.arange(1, k, dtype=torch.float64) * (2 * math.pi / k)
    products = square.unsqueeze(-1) * turn.cos()
    others = crosstalk(products, bias.unsqueeze(-1).expand_as(products))
    return own_error(square, bias) + others.sum(-1)


def _best_polygon(k: int) -> tuple[Tensor, Tensor]:
    if k == 4:
        return torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    # The best of a grid lies in the bowl of the global minimum; the longest polygon is the
    # decagon's, with l² = 2.618.
    squares = torch.linspace(0.02, 3, 150, dtype=torch.float64)
    biases = torch.linspace(-2, 0, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(squares, biases)
    at = grid[_corner_loss(k, grid).argmin()]
    for _ in range(100):
        gradient = jacobian(lambda at: _corner_loss(k, at), at)
        if gradient.abs().max() * 3 * k < 1e-13:
            break
        at = _newton(k, at, gradient)
    return at[0], at[1]


def _newton(k: int, at: Float[Tensor, " 2"], gradient: Float[Tensor, " 2"]) -> Float[Tensor, " 2"]:
    """A Newton step, downhill on either axis of the Hessian, and never one that climbs."""
    curvature, axes = torch.linalg.eigh(hessian(lambda at: _corner_loss(k, at), at))
    step = axes @ (axes.mT @ gradient / curvature.abs().clamp(min=1e-6))
    here = _corner_loss(k, at)
    while _corner_loss(k, at - step) > here and step.abs().max() > 1e-15:
        step = step / 2
    return at - step


def _learning_coefficient(k: int, c: int, square: Tensor, bias: Tensor) -> float:
    if k == 4:
        return math.nan
    turn = torch.arange(k, dtype=torch.float64) * (2 * math.pi / k)
    W = torch.zeros(c, 2, dtype=torch.float64)
    W[:k] = square.sqrt() * torch.stack((turn.cos(), turn.sin()), -1)
    b = torch.full((c,), -1.0, dtype=torch.float64)
    b[:k] = bias
    if c > k:
        b[k] = 1 / (2 * c)
    importance = torch.ones(c, dtype=torch.float64)

    def loss(at: Tensor) -> Tensor:
        return single_feature_loss(at[: 2 * c].reshape(c, 2), at[2 * c :], importance)

    curvature = torch.as_tensor(hessian(loss, torch.cat((W.ravel(), b))))
    return hessian_learning_coefficient(curvature)
