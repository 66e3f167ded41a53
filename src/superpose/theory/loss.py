"""The exact expected loss of a toy model over its world, with no sampling."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.features import Features
from superpose.theory import moments, relu
from superpose.theory.linear import linear_feature_losses

_ROWS = 64


def expected_loss(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "..."],
    world: Features,
    output: Literal["relu", "linear"] = "relu",
    *,
    tolerance: float = 1e-6,
) -> Float[Tensor, "*run"]:
    r"""The population loss $\sum_i I_i E (x_i - \hat x_i)^2$ of tied models over `world`.

    $\hat x = \mathrm{act}(x W W^\top + b)$ with a linear hidden layer, W `[*run, n, m]` and b
    `[*run, n]`; `output` names act. Float64 on the CPU, at least 0, low is good; NaN where a
    model has diverged. No sampling: exact to rounding (about 1e-15 of the largest output
    squared) for a linear output, and for a ReLU also to `tolerance`, in [1e-10, 1e-2], times
    $\sum_i I_i E x_i^2$, the loss of a model that outputs 0. The tolerance bounds the truncated
    series and sets its length, which grows no faster than $1 / \sqrt{\mathrm{tolerance}}$; what
    is left out is usually far smaller than the bound.

    Raises ValueError for shapes that do not fit one another or the world, an unknown `output`
    and a `tolerance` outside its range.
    Source: the mean over samples of the loss of Toy Models of Superposition, section 2, in the
    convention of a sum over features; the method is in `superpose.theory.relu`.

    Two features in one dimension, back to back:

    >>> W, b = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    >>> round(expected_loss(W, b, Features(n=2, p=1.0)).item(), 6)
    0.333333
    """
    losses = feature_losses(W, b, world, output, tolerance=tolerance)
    # Not a matrix product, whose rounding depends on the size of the stack.
    return (losses * torch.from_numpy(world.importances)).sum(-1)


def feature_losses(
    W: Float[Tensor, "*run n m"],
    b: Float[Tensor, "..."],
    world: Features,
    output: Literal["relu", "linear"] = "relu",
    *,
    tolerance: float = 1e-6,
) -> Float[Tensor, "*run n"]:
    r"""The expected squared error $E (x_i - \hat x_i)^2$ of each feature, unweighted.

    As `expected_loss`, before importance; the error is at most `tolerance` times $E x_i^2$.

    >>> feature_losses(torch.zeros(3, 2), torch.zeros(3), Features(n=3, p=0.3))
    tensor([0.1000, 0.1000, 0.1000], dtype=torch.float64)
    """
    _check(W, b, world, output, tolerance)
    W, b = W.detach().cpu().double(), b.detach().cpu().double()
    if output == "linear":
        return linear_feature_losses(W, b, world)
    return torch.from_numpy(_relu_losses(W, b, world, tolerance))


def _relu_losses(
    W: Float[Tensor, "*run n m"], b: Float[Tensor, "*run n"], world: Features, tolerance: float
) -> Float[np.ndarray, "*run n"]:
    n = world.n
    law = (world.set_probability, world.law.size, world.law.exclusive)
    budget = tolerance * np.diag(moments.second_moments(world))
    out = np.empty((b[..., 0].numel(), n))
    models, offsets = (
        W.reshape(len(out), n, W.shape[-1]),
        b.reshape(len(out), n).contiguous().numpy(),
    )

    def fill(task: tuple[int, int]) -> None:
        # Cut by n alone, so that a model's numbers are the same bits alone or in a stack.
        r, first = task
        part = slice(first, first + _ROWS)
        gram = (models[r, part] @ models[r].T).numpy()
        relu.losses(gram, offsets[r, part], (first, *law), budget[part], out[r, part])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, product(range(len(out)), range(0, n, _ROWS))))
    return out.reshape(b.shape).clip(min=0.0)


def _check(W: Tensor, b: Tensor, world: Features, output: str, tolerance: float) -> None:
    if b.shape != W.shape[:-1]:
        raise ValueError(
            f"expected_loss: W has shape {list(W.shape)} and b {list(b.shape)}; W is "
            f"[*run, n, m] and b [*run, n], so b should have shape {list(W.shape[:-1])}"
        )
    if W.shape[-2] != world.n:
        raise ValueError(
            f"expected_loss: W has shape {list(W.shape)}, but the world has n={world.n} "
            "features; W is [*run, n, m], one row for each feature (transpose a W that is [m, n])"
        )
    if output not in ("relu", "linear"):
        raise ValueError(f'expected_loss(output={output!r}): the output is "relu" or "linear"')
    if not 1e-10 <= tolerance <= 1e-2:
        raise ValueError(
            f"expected_loss(tolerance={tolerance!r}): the error allowed, as a share of the loss "
            "of a model that outputs 0, lies in [1e-10, 1e-2]; 1e-6 is enough for most uses"
        )
