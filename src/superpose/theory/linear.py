"""The linear model in closed form: its loss, its best bias and its global minimum."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.features import Features
from superpose.theory import moments


def linear_feature_losses(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "*run n"],
    world: Features,
    *,
    W_out: Float[Tensor, "*run n m"] | None = None,
) -> Float[Tensor, "*run n"]:
    r"""$E (x_i - \hat x_i)^2$ of each feature for $\hat x = x W W^\top + b$, exactly.

    With $R = 1 - W W^\top$, covariance $\Sigma$ and mean $\mu$ of the world it is
    $(R \Sigma R^\top)_{ii} + (R \mu - b)_i^2$: float64, at least 0. Untied models have
    $W_{out} W^\top$ in place of $W W^\top$.

    >>> linear_feature_losses(torch.zeros(2, 1), torch.zeros(2), Features(n=2, p=0.3))
    tensor([0.1000, 0.1000], dtype=torch.float64)
    """
    R = _residual(W, W_out)
    mu = torch.from_numpy(moments.mean(world))
    sigma = torch.from_numpy(moments.covariance(world))
    return ((R @ sigma) * R).sum(-1).clamp(min=0.0) + (R @ mu - b.detach().cpu().double()) ** 2


def linear_size_losses(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "*run n"],
    world: Features,
    *,
    W_out: Float[Tensor, "*run n m"] | None = None,
) -> Float[Tensor, "*run n"]:
    r"""$E (|x_i| - \hat x_i)^2$ of each feature of a signed world, as `linear_feature_losses`.

    Signs make |x_i| uncorrelated with every x_j, so that with $M = W_{out} W^\top$ it is
    $Var |x_i| + (E |x_i| - b_i)^2 + (M \Sigma M^\top)_{ii}$.

    >>> world = Features(n=2, p=1.0, signed=True)
    >>> linear_size_losses(torch.zeros(2, 1), torch.full((2,), 0.5), world)
    tensor([0.0833, 0.0833], dtype=torch.float64)
    """
    size = torch.from_numpy(moments.mean_size(world))
    square = torch.from_numpy(np.diag(moments.second_moments(world)).copy())
    through = (_product(W, W_out) ** 2 * square).sum(-1)
    return square - size**2 + through + (size - b.detach().cpu().double()) ** 2


def linear_optimal_bias(W: Float[Tensor, "*run n m"], world: Features) -> Float[Tensor, "*run n"]:
    r"""The bias that minimises the linear model's loss for given W: $(1 - W W^\top) \mu$, float64.

    It makes every mean right, whatever the covariance and the importances.
    Raises ValueError when W is not about `world.n` features.

    >>> linear_optimal_bias(torch.tensor([[1.0], [0.0]]), Features(n=2, p=0.5))
    tensor([0.0000, 0.2500], dtype=torch.float64)
    """
    if W.shape[-2] != world.n:
        raise ValueError(
            f"linear_optimal_bias: W has shape {list(W.shape)}, but the world has "
            f"n={world.n} features; W is [*run, n, m], one row for each feature"
        )
    return _residual(W) @ torch.from_numpy(moments.mean(world))


def linear_minimum(world: Features, m: int) -> float:
    r"""The least loss any linear model with `m` hidden dimensions can reach, bias included.

    It is the sum of the $n - m$ smallest eigenvalues of $D^{1/2} \Sigma D^{1/2}$, where
    $D = \mathrm{diag}(I_i)$ and $\Sigma$ is the covariance: for independent features, the
    $n - m$ smallest products $I_i \mathrm{Var}\, x_i$, and for equal p, $v(p)$ times the
    $n - m$ smallest importances. 0 from $m = n$ on.

    Why: with the best bias the loss is $\| D^{1/2} (1 - M) \Sigma^{1/2} \|_F^2$ and
    $D^{1/2} M \Sigma^{1/2}$ has rank at most m, so Eckart and Young bound it from below, for
    any matrix M of that rank, tied or not. A tied $M = W W^\top$ reaches the bound when D and
    $\Sigma$ commute: M is then the projector on their m best common eigenvectors. They
    commute when the features are uncorrelated, and when importance is the same for all that
    are correlated. Otherwise the untied optimum is not symmetric and the bound is out of
    reach of a tied model.

    Raises ValueError when they do not commute, and for `m` below 0.
    Source: C. Eckart and G. Young, The approximation of one matrix by another of lower rank
    (1936); Toy Models of Superposition, section 2 (the linear model does PCA).

    >>> round(linear_minimum(Features(n=3, p=1.0, importance=[1.0, 0.6, 0.12]), m=2), 9)
    0.01
    """
    if m < 0:
        raise ValueError(f"linear_minimum(m={m}): m counts hidden dimensions and is at least 0")
    sigma = moments.covariance(world)
    weight = world.importances
    commutator = np.abs(sigma * (weight[:, None] - weight))
    if commutator.max() > 1e-12 * np.abs(sigma).max() * weight.max():
        i, j = np.unravel_index(commutator.argmax(), commutator.shape)
        raise ValueError(
            f"linear_minimum({world.law}): features {i} and {j} are correlated but have "
            f"importances {weight[i]:.4g} and {weight[j]:.4g}; the minimum of a tied model is "
            "known in closed form only when correlated features share their importance: give "
            "them the same"
        )
    scale = np.sqrt(weight)
    eigenvalues = np.linalg.eigvalsh(scale[:, None] * sigma * scale)
    return float(eigenvalues[: max(world.n - m, 0)].clip(min=0.0).sum())


def _residual(
    W: Float[Tensor, "*run n m"], W_out: Float[Tensor, "*run n m"] | None = None
) -> Float[Tensor, "*run n n"]:
    return torch.eye(W.shape[-2], dtype=torch.float64) - _product(W, W_out)


def _product(
    W: Float[Tensor, "*run n m"], W_out: Float[Tensor, "*run n m"] | None
) -> Float[Tensor, "*run n n"]:
    W = W.detach().cpu().double()
    return (W if W_out is None else W_out.detach().cpu().double()) @ W.mT
