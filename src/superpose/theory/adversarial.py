"""Small changes of the input that superposition makes large in the output."""

import torch
from jaxtyping import Float
from torch import Tensor


def attack_gain(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n"]:
    r"""How far an attack on each output is amplified: $\|M_i\|^2$ with $M = W W^\top$.

    An output that is on follows $M_i \cdot x$, so the change of length $\varepsilon$ that moves it
    most is $\delta = \varepsilon M_i / \|M_i\|$ and adds $\varepsilon^2 \|M_i\|^2$ to the squared
    error of a model that was right. 1 for a dedicated feature of unit norm, and for any feature
    of unit norm $1 / D_i$, the inverse of its dimensionality: 2 in an antipodal pair, 2.5 in a
    pentagon, 8/3 in the best square antiprism. Relative vulnerability and dimensions per feature
    are thereby the inverse of one another. At least 0, low is robust.
    Source: Toy Models of Superposition, section on adversarial examples.

    >>> attack_gain(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    tensor([2., 2., 1.])
    """
    return ((W @ W.mT) ** 2).sum(-1)


def attack(
    W: Float[Tensor, "n m"],
    b: Float[Tensor, " n"],
    x: Float[Tensor, "samples n"],
    epsilon: float,
    importance: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "samples n"]:
    r"""The best of the 2n analytic attacks on each sample: $\pm \varepsilon M_i / \|M_i\|$.

    Each sample is moved by the candidate that raises $\sum_i I_i (x_i - \hat x_i)^2$ most, the
    target staying the sample without the change. Where outputs are on, candidate i is the best
    attack of its length on output i (see `attack_gain`), and it is the best on the whole loss
    where that output alone answers; with several outputs on, the best attack is an eigenvector
    of M restricted to them and can be a little stronger. Following the gradient instead fails
    where all ReLUs are off and it vanishes. Candidates of silent features are no change.

    Returns the changes $\delta$, of length `epsilon` or 0. Raises ValueError for an `epsilon`
    that is not positive.
    Source: Toy Models of Superposition, section on adversarial examples.

    >>> W = torch.tensor([[1.0], [-1.0]])
    >>> attack(W, torch.zeros(2), torch.tensor([[0.5, 0.0]]), epsilon=0.1)
    tensor([[-0.0707,  0.0707]])
    """
    if not 0 < epsilon < float("inf"):
        raise ValueError(
            f"attack(epsilon={epsilon:g}): the length of the change is positive and finite; the "
            "source takes a tenth of the mean length of x"
        )
    M = W @ W.mT
    weight = torch.ones(len(b), dtype=x.dtype) if importance is None else importance
    directions = epsilon * torch.nn.functional.normalize(M, dim=-1)
    best = torch.zeros_like(x)
    # A sample that nothing worsens is left as it is.
    worst = _losses(x @ M + b, x, weight)
    for direction in torch.cat((directions, -directions)):
        loss = _losses((x + direction) @ M + b, x, weight)
        better = loss > worst
        worst = torch.where(better, loss, worst)
        best = torch.where(better.unsqueeze(-1), direction, best)
    return best


def _losses(
    pre: Float[Tensor, "samples n"], x: Float[Tensor, "samples n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, " samples"]:
    return (weight * (pre.relu() - x) ** 2).sum(-1)
