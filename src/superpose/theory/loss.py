"""The exact expected loss of a toy model over its world and its gradient, with no sampling."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.features import (
    Anticorrelated,
    Constant,
    Exponential,
    Features,
    Finite,
    HalfNormal,
    Uniform,
)
from superpose.theory import moments, relu
from superpose.theory.arguments import check, check_target, refuse_finite, several
from superpose.theory.linear import linear_feature_losses, linear_size_losses
from superpose.theory.points import point_losses

Output = Literal["relu", "linear"]
Target = Literal["identity", "abs"]

Model = tuple[Tensor, Tensor, Tensor]  # W, W_out and b

# A task for a thread has at least so many rows.
_ROWS = 16


class LossAndGradient(NamedTuple):
    """Expected losses `[*run]` and their gradients in W `[*run, n, m]` and b `[*run, n]`."""

    loss: Tensor
    W: Tensor
    b: Tensor


def expected_loss(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "..."],
    world: Features | Sequence[Features],
    output: Output = "relu",
    *,
    W_out: Float[Tensor, "..."] | None = None,
    target: Target = "identity",
    tolerance: float = 1e-6,
) -> Float[Tensor, "*run"]:
    r"""The population loss $\sum_i I_i E (x_i - \hat x_i)^2$ of models over `world`.

    $\hat x = \mathrm{act}(x W W^\top + b)$ with a linear hidden layer, W `[*run, n, m]` and b
    `[*run, n]`; `output` names act. An untied model has W in and `W_out` `[*run, n, m]` out, and
    $\hat x = \mathrm{act}(x W W_{out}^\top + b)$. The `target` "abs" asks for |x| instead of x,
    which matters to a world with negative features only. Float64 on the CPU, at least 0, low is
    good; NaN where a model has diverged. Several worlds are one for each entry of the first axis
    of the stack; they may differ in p and importance, finite ones in their points.

    No sampling: exact to rounding (about 1e-15 of the largest output squared) for a linear
    output, and for a ReLU also to `tolerance`, in [1e-10, 1e-2], times $\sum_i I_i E x_i^2$, the
    loss of a model that outputs 0. The tolerance bounds the truncated series and sets its
    length, which grows no faster than $1 / \sqrt{\mathrm{tolerance}}$ where magnitudes have a
    density; what is left out is usually far smaller than the bound. Magnitudes without a bound
    (exponential, half-normal) are cut where the rest is within the tolerance too. Constant
    magnitudes have atoms, whose series grows as 1 / `tolerance`, which is therefore at least
    1e-7 there: some two seconds a model of 20 features at 1e-6, a fiftieth of one at 1e-4. So
    that large weights cost no more, 1e-10 of the largest output squared is always allowed there.
    Over a finite world it is the mean over the points, exact to rounding for either output.

    Raises ValueError for shapes that do not fit one another or the world, an unknown `output` or
    `target`, a `tolerance` outside its range, and |x| in signed sets that are active together.
    Source: the mean over samples of the loss of Toy Models of Superposition, section 2, in the
    convention of a sum over features; the method is in `superpose.theory.relu`.

    Two features in one dimension, back to back:

    >>> W, b = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    >>> round(expected_loss(W, b, Features(n=2, p=1.0)).item(), 6)
    0.333333
    """
    losses = feature_losses(W, b, world, output, W_out=W_out, target=target, tolerance=tolerance)
    # Not a matrix product, whose rounding depends on the size of the stack.
    return (losses * _importance(world, losses)).sum(-1)


def feature_losses(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "..."],
    world: Features | Sequence[Features],
    output: Output = "relu",
    *,
    W_out: Float[Tensor, "..."] | None = None,
    target: Target = "identity",
    tolerance: float = 1e-6,
) -> Float[Tensor, "*run n"]:
    r"""The expected squared error $E (x_i - \hat x_i)^2$ of each feature, unweighted.

    As `expected_loss`, before importance; the error is at most `tolerance` times $E x_i^2$.

    >>> feature_losses(torch.zeros(3, 2), torch.zeros(3), Features(n=3, p=0.3))
    tensor([0.1000, 0.1000, 0.1000], dtype=torch.float64)
    """
    given = (W, b) if W_out is None else (W, W_out, b)
    check("expected_loss", given, world, output, tolerance)
    check_target("expected_loss", target, world)
    W, *_, b = given = tuple(each.detach().cpu().double() for each in given)
    model, first = (W, given[-2], b), several(world)[0]
    sizes = target == "abs" and first.signed
    if isinstance(first.law, Finite):
        return _by_world(
            lambda *each: point_losses(each[:3], each[3].law.points, output, target), model, world
        )
    if output == "relu":
        rows = _size_rows if sizes else _losses_of_rows
        return rows(model, world, tolerance)
    losses = linear_size_losses if sizes else linear_feature_losses
    return _by_world(lambda W, W_out, b, each: losses(W, b, each, W_out=W_out), model, world)


def loss_and_gradient(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "..."],
    world: Features | Sequence[Features],
    output: Output = "relu",
    *,
    tolerance: float = 1e-6,
) -> LossAndGradient:
    r"""`expected_loss` and its exact gradient in W and b, float64; NaN where a model diverged.

    With $y = x W W^\top + b$ the derivatives of a feature's loss $L_i$ are $\partial L_i /
    \partial b_i = 2 E[\mathrm{ReLU}(y_i)] - 2 E[x_i 1(y_i > 0)]$ and, for the entry $c_j$ of
    $W W^\top$ in row i, $2 E[x_j \mathrm{ReLU}(y_i)] - 2 E[x_i x_j 1(y_i > 0)]$; if G has the
    latter, times $I_i$, in row i, the gradient in W is $(G + G^\top) W$. The cost is one and a
    half to two times that of the loss.

    For a ReLU it is the exact gradient of the truncated series, which is the one a minimiser
    wants beside the truncated loss; both have jumps, within the tolerance for the loss, where
    the number of terms changes. No bound is proved for its distance from the true gradient: an
    entry was at most 2e-4 off at the default tolerance, for a single feature and beside kinks,
    5e-6 for random models of two to four features, and 3e-6 off, where worst for a single
    feature, at a tolerance of 1e-10. Constant magnitudes
    have a loss with kinks, and no gradient where an atom of y lies at 0.

    For tied models; as `expected_loss` for arguments, errors and source. A finite world is refused
    behind a ReLU, where a step over its points is the plain way.

    >>> W, b = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    >>> loss_and_gradient(W, b, Features(n=2, p=1.0)).b
    tensor([-0.3333, -0.3333], dtype=torch.float64)
    """
    check("loss_and_gradient", (W, b), world, output, tolerance)
    W, b = W.detach().cpu().double(), b.detach().cpu().double()
    if output == "linear":
        return _linear(W, b, world)
    refuse_finite("loss_and_gradient", world, "differentiate the mean over its points")
    losses, slope_b, slopes = _relu_rows((W, W, b), world, tolerance, sloped=True)
    importance = _importance(world, losses)
    gradient = np.empty((len(slopes), *W.shape[-2:]))
    weights = np.stack([each.importances for each in several(world)])
    relu.weight_gradient(_flat(W, 2), slopes, weights, gradient)
    return LossAndGradient(
        (losses * importance).sum(-1),
        torch.from_numpy(gradient).reshape(W.shape),
        slope_b * importance,
    )


def loss_by_active(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "..."],
    world: Features,
    output: Output = "relu",
    *,
    tolerance: float = 1e-6,
) -> Float[Tensor, "*run k"]:
    r"""The expected loss split by the number k of active features: $P(|A| = k)\, L_k$.

    Float64, from k = 0 to n along the last axis; the parts sum to `expected_loss`, and divided
    by `active_probability` they are the $L_k$, the loss given k active features. All parts of a
    model together err by no more than `tolerance` allows of its loss, so an $L_k$ errs by at
    most that over $P(|A| = k)$. The cost grows as $n^3$.

    For tied models; as `expected_loss` for arguments and errors, and a finite world is refused.
    Source: Toy Models of Superposition, section on the geometry of superposition (the loss as
    a polynomial in the sparsity); Chen et al., Dynamical versus Bayesian phase transitions
    (k = 1).

    >>> W, b = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.1, 0.1])
    >>> parts = loss_by_active(W, b, Features(n=2, p=0.5))
    >>> round(parts[0].item(), 9)
    0.005
    """
    check("loss_by_active", (W, b), world, output, tolerance)
    refuse_finite("loss_by_active", world, "group its points by their number of active features")
    models = _flat(W.detach().cpu().double(), 2), _flat(b.detach().cpu().double(), 1)
    count, n = models[1].shape
    parts, worlds = np.empty((count, n, n + 1)), _laws(world, tolerance)
    linear = output == "linear"
    _in_threads(lambda rows: relu.rows_by_active(models, worlds, rows, linear, parts), count * n)
    losses = (parts * world.importances[:, None]).sum(1)
    return torch.from_numpy(losses).view(*b.shape[:-1], n + 1)


def active_probability(world: Features) -> Float[np.ndarray, " k"]:
    """The probability that exactly k features are active, for k = 0 to n, float64.

    Binomial for independent features of equal p, Poisson's binomial for others; of a finite
    world the share of its points.

    >>> active_probability(Features(n=2, p=0.5))
    array([0.25, 0.5 , 0.25])
    """
    if isinstance(world.law, Finite):
        active = np.diff(world.law.points.matrix.indptr)
        return np.bincount(active, minlength=world.n + 1) / active.size
    step = 1 if world.law.exclusive else world.law.size
    found = np.zeros(world.n + 1)
    found[0] = 1.0
    for p in world.set_probability:
        shifted = np.concatenate([np.zeros(step), found[:-step]])
        found = (1 - p) * found + p * shifted
    return found


def _linear(W: Tensor, b: Tensor, world: Features | Sequence[Features]) -> LossAndGradient:
    if not isinstance(world, Features):
        parts = [_linear(*each) for each in zip(W, b, world, strict=True)]
        return LossAndGradient(*(torch.stack(part) for part in zip(*parts, strict=True)))
    mu, sigma = moments.mean(world), moments.covariance(world)
    weights = world.importances[:, None]
    # NumPy multiplies a stack one matrix at a time, so that its size changes no bit.
    W_, b_ = W.numpy(), b.numpy()
    # A model that has diverged is NaN, without a warning.
    with np.errstate(invalid="ignore", over="ignore"):
        residual = np.eye(world.n) - W_ @ W_.swapaxes(-1, -2)
        error = residual @ mu - b_
        slopes = -2 * weights * (residual @ sigma + error[..., None] * mu)
        gradient = (slopes + slopes.swapaxes(-1, -2)) @ W_
    return LossAndGradient(
        expected_loss(W, b, world, "linear"),
        torch.from_numpy(gradient),
        torch.from_numpy(-2 * world.importances * error),
    )


def _by_world(
    losses: Callable[..., Tensor], model: Model, world: Features | Sequence[Features]
) -> Float[Tensor, "*run n"]:
    """`losses(W, W_out, b, world)`, or those of each world with its part of the stack."""
    if isinstance(world, Features):
        return losses(*model, world)
    return torch.stack([losses(*each) for each in zip(*model, world, strict=True)])


def _losses_of_rows(
    model: Model, world: Features | Sequence[Features], tolerance: float
) -> Float[Tensor, "*run n"]:
    return _relu_rows(model, world, tolerance, sloped=False)[0]


def _size_rows(
    model: Model, world: Features | Sequence[Features], tolerance: float
) -> Float[Tensor, "*run n"]:
    r"""The losses for the target |x| of a signed world, behind a ReLU.

    A signed feature is one of two that exclude each other, $x = x^+ - x^-$, in a world without
    signs. With the loss $L^+$ of output i for the target $x_i^+$ and L for $x_i$, that for $|x_i|$
    is $2 L^+ - L + E x_i^2$.
    """
    W, W_out, b = model
    halves = torch.stack([W, -W], -2).flatten(-3, -2)
    double = halves, W_out.repeat_interleave(2, -2), b.repeat_interleave(2, -1)
    split = [
        Features(
            n=2 * each.n,
            p=each.p,
            law=Anticorrelated(2 * each.law.size),
            amplitude=each.amplitude,
        )
        for each in several(world)
    ]
    unsigned = split[0] if isinstance(world, Features) else split
    positive = _losses_of_rows(double, unsigned, tolerance / 2)[..., ::2]
    plain = _losses_of_rows(model, world, tolerance / 2)
    square = _per_feature(lambda each: each.probability * each.amplitude.square, world, plain)
    return (2 * positive - plain + square).clamp(min=0.0)


def _relu_rows(
    model: Model,
    world: Features | Sequence[Features],
    tolerance: float,
    *,
    sloped: bool,
) -> tuple[Float[Tensor, "*run n"], Float[Tensor, "*run n"], Float[np.ndarray, "models i j"]]:
    """Losses of the features, their slopes in b and in their rows of W_out Wᵀ, or no slopes."""
    W, W_out, b = model
    models, worlds = (_flat(W, 2), _flat(W_out, 2), _flat(b, 1)), _laws(world, tolerance)
    count, n = models[2].shape
    losses, slope_b = np.empty((count, n)), np.empty((count, n))
    slopes = np.empty((count if sloped else 0, n, n))
    out = losses, slope_b, slopes
    _in_threads(lambda rows: relu.row_losses(models, worlds, rows, out), count * n)
    return torch.from_numpy(losses).view(b.shape), torch.from_numpy(slope_b).view(b.shape), slopes


def _in_threads(fill: Callable[[tuple[int, int]], None], rows: int) -> None:
    """Share rows out; how they are cut changes no bit of what comes out."""
    threads = torch.get_num_threads()
    tasks = max(1, min(4 * threads, rows // _ROWS))
    if threads == 1 or tasks == 1:
        fill((0, rows))
        return
    cuts = np.linspace(0, rows, tasks + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, pairwise(cuts)))


def _laws(world: Features | Sequence[Features], tolerance: float) -> tuple:
    """What the compiled code asks of the worlds: p, the error allowed, and what they share."""
    every = several(world)
    p = np.stack([each.set_probability for each in every])
    square = np.stack([each.probability * each.amplitude.square for each in every])
    return p, square * tolerance, _law(every[0])


def _law(world: Features) -> tuple[int, bool, int, bool, float, float, float]:
    """What the compiled code asks of a world besides p: that of the unit law, and its scale."""
    match world.amplitude:
        case Uniform():
            kind, scale = relu.UNIFORM, 1.0
        case Exponential(scale):
            kind = relu.EXPONENTIAL
        case HalfNormal(scale):
            kind = relu.HALF_NORMAL
        case Constant(scale):
            kind = relu.CONSTANT
    mean = 0.0 if world.signed else world.amplitude.mean / scale
    square = world.amplitude.square / scale**2
    return world.law.size, world.law.exclusive, kind, world.signed, float(scale), mean, square


def _importance(world: Features | Sequence[Features], losses: Tensor) -> Tensor:
    return _per_feature(lambda each: each.importances, world, losses)


def _per_feature(
    values: Callable[[Features], np.ndarray], world: Features | Sequence[Features], losses: Tensor
) -> Tensor:
    """A number for each feature, of the world or of each world, in the axes of the losses."""
    if isinstance(world, Features):
        return torch.from_numpy(values(world))
    stacked = torch.from_numpy(np.stack([values(each) for each in world]))
    return stacked.view(len(world), *[1] * (losses.ndim - 2), -1)


def _flat(array: Tensor, axes: int) -> np.ndarray:
    """A contiguous stack with one axis before the last `axes`."""
    shape = array.shape
    return array.reshape(math.prod(shape[:-axes]), *shape[-axes:]).contiguous().numpy()
