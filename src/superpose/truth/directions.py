"""Directions of features, and how much they overlap."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 1024


def random_directions(n: int, d: int, seed: int = 0) -> Float[Tensor, "n d"]:
    """`n` uniformly random unit vectors in `d` dimensions. Raises ValueError for sizes below 1.

    >>> random_directions(3, 2).norm(dim=1).round(decimals=5)
    tensor([1., 1., 1.])
    """
    if n < 1 or d < 1:
        raise ValueError(f"random_directions(n={n}, d={d}): both are at least 1")
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def orthogonalised(
    directions: Float[Tensor, "n d"], steps: int = 200, lr: float = 0.01
) -> Float[Tensor, "n d"]:
    r"""Directions pushed apart by some steps of Adam, rows of length 1.

    It lowers $\sum_{i \ne j} (w_i \cdot w_j)^2 + n \sum_i (|w_i|^2 - 1)^2$. The gradient needs no
    table of all pairs: $\sum_{j \ne i} (w_i \cdot w_j) w_j = w_i G - |w_i|^2 w_i$ with
    $G = W^\top W$ `[d, d]`, so a step costs $4 n d^2$ operations.
    Raises ValueError for a negative number of steps.
    Source: the directions of SynthSAEBench.

    >>> apart = orthogonalised(random_directions(20, 10, seed=0))
    >>> coherence(apart).rms < coherence(random_directions(20, 10, seed=0)).rms
    True
    """
    if steps < 0 or not lr > 0:
        raise ValueError(f"orthogonalised(steps={steps}, lr={lr!r}): steps from 0 on, lr above 0")
    W = torch.nn.functional.normalize(directions.detach().float(), dim=1)
    # Adam by hand: torch's imports a compiler, which takes longer than most worlds do.
    first, second = torch.zeros_like(W), torch.zeros_like(W)
    for step in range(1, steps + 1):
        square = (W**2).sum(1, keepdim=True)
        gradient = 4.0 * (W @ (W.mT @ W) - square * W + len(W) * (square - 1.0) * W)
        first.lerp_(gradient, 1 - 0.9)
        second.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        scale = (second.sqrt() / (1 - 0.999**step) ** 0.5).add_(1e-8)
        W.addcdiv_(first, scale, value=-lr / (1 - 0.9**step))
    return torch.nn.functional.normalize(W, dim=1)


def equiangular(n: int, d: int, cosine: float, seed: int = 0) -> Float[Tensor, "n d"]:
    r"""`n` unit vectors of which any two have the same cosine, turned at random.

    The cosine lies between $-1 / (n - 1)$, a simplex, and 1, and `d` is at least n (n - 1 for
    the simplex): more directions than dimensions cannot all have one cosine.
    Raises ValueError otherwise.

    >>> W = equiangular(3, 4, cosine=0.5)
    >>> (W @ W.T).round(decimals=3)
    tensor([[1.0000, 0.5000, 0.5000],
            [0.5000, 1.0000, 0.5000],
            [0.5000, 0.5000, 1.0000]])
    """
    lowest = -1.0 / (n - 1) if n > 1 else 0.0
    simplex = n > 1 and cosine < lowest + 1e-12
    if not (n >= 1 and d >= n - simplex and lowest - 1e-12 <= cosine < 1.0):
        raise ValueError(
            f"equiangular(n={n}, d={d}, cosine={cosine!r}): the cosine lies in [{lowest:.4g}, 1), "
            "and d is at least n (n - 1 at the lowest cosine); for more directions than dimensions "
            "see orthogonalised"
        )
    gram = (1.0 - cosine) * np.eye(n) + cosine
    value, vector = np.linalg.eigh(gram)
    drawn = np.random.default_rng(seed).standard_normal((d, d))
    turn = np.linalg.qr(drawn)[0][: min(n, d)]
    rows = (vector * np.sqrt(value.clip(0.0)))[:, n - min(n, d) :] @ turn
    return torch.from_numpy(rows).float()


@dataclass(frozen=True, slots=True)
class Coherence:
    """How much directions overlap, by the sizes of the cosines of pairs; 0 is none.

    `mean_max` is the mean over directions of the largest with another, `largest` that of all
    pairs, `rms` the root of the mean square.
    """

    mean_max: float
    largest: float
    rms: float


def coherence(directions: Float[Tensor, "n d"]) -> Coherence:
    """How much directions overlap: see `Coherence`. Raises ValueError for fewer than two.

    >>> found = coherence(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]))
    >>> round(found.mean_max, 3), round(found.largest, 3), round(found.rms, 3)
    (0.733, 0.8, 0.577)
    """
    if len(directions) < 2:
        raise ValueError("coherence: at least two directions are needed")
    W = torch.nn.functional.normalize(directions.detach().float(), dim=1)
    most, squares = [], 0.0
    for begin in range(0, len(W), _BLOCK):
        cosine = (W[begin : begin + _BLOCK] @ W.mT).abs()
        cosine[torch.arange(len(cosine)), begin + torch.arange(len(cosine))] = 0.0
        most.append(cosine.max(1).values.double())
        squares += float((cosine.double() ** 2).sum())
    of_each = torch.cat(most)
    pairs = len(W) * (len(W) - 1)
    return Coherence(float(of_each.mean()), float(of_each.max()), (squares / pairs) ** 0.5)
