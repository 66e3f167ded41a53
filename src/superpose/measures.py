r"""Pure functions of weights and activations: how much room features have and what they share.

Weights are `[*run, n, m]`: rows are the directions of n features in m hidden dimensions. The
stack axes `*run` are kept, and every model of a stack is measured on its own.

The running example has three features in two dimensions: the first two share a line, pointing
away from each other, and the third has a dimension to itself.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def feature_norms(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n"]:
    r"""How far each feature is represented: $\|W_i\|$, near 0 for ignored and 1 for kept ones.

    At least 0; above 1 where a negative bias is made up for.
    Source: Toy Models of Superposition, section 2.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> feature_norms(W)
    tensor([1., 1., 1.])
    """
    return torch.linalg.vector_norm(W, dim=-1)


def gram(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n n"]:
    r"""All inner products of features, $W W^\top$ (the papers, with columns, write $W^\top W$).

    The map from x to the pre-activation of x̂; the identity where nothing is shared.
    Source: Toy Models of Superposition, section 2.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> gram(W)
    tensor([[ 1., -1.,  0.],
            [-1.,  1.,  0.],
            [ 0.,  0.,  1.]])
    """
    return W @ W.mT


def represented(W: Float[Tensor, "*run n m"], threshold: float = 0.5) -> Bool[Tensor, "*run n"]:
    r"""Which features the model keeps: $\|W_i\| >$ `threshold`.

    A feature is about half-way between ignored and kept at the default.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> represented(W)
    tensor([True, True, True])
    """
    return feature_norms(W) > threshold


def interference(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n"]:
    r"""Overlap of each feature with the others: $\sum_{j \ne i} (\hat W_i \cdot W_j)^2$.

    0 (good) means a feature has its direction to itself; from 1 on, the others together can
    activate it as strongly as it does itself. A feature of zero norm gets 0.
    Source: Toy Models of Superposition, section 2 (its notebook plots the square root, as
    polysemanticity).

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> interference(W)
    tensor([1., 1., 0.])
    """
    return _off_diagonal((_directions(W) @ W.mT) ** 2).sum(-1)


def dimensionality(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n"]:
    r"""The share of a dimension that each feature has.

    $D_i = \|W_i\|^2 / \sum_j (\hat W_i \cdot W_j)^2$ with j = i included; the same number as
    the capacity $C_i = (W_i \cdot W_i)^2 / \sum_j (W_i \cdot W_j)^2$. From 0 (ignored) to 1 (a
    dimension to itself, good for that feature); 1/2 in an antipodal pair. Unchanged by rotating
    and by scaling W. A feature of zero norm gets 0.
    Source: Toy Models of Superposition, section on the geometry of superposition; Scherlis et
    al. 2022 for the capacity.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> dimensionality(W)
    tensor([0.5000, 0.5000, 1.0000])
    """
    W = _scaled(W)
    overlap = ((_directions(W) @ W.mT) ** 2).sum(-1)
    return feature_norms(W) ** 2 / overlap.masked_fill(overlap == 0, torch.inf)


def capacity(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run"]:
    r"""Dimensions in use, $\sum_i D_i$: at most rank W, and equal to it when nothing is wasted.

    Source: Scherlis et al. 2022, Polysemanticity and Capacity in Neural Networks.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> capacity(W)
    tensor(2.)
    """
    return dimensionality(W).sum(-1)


def dims_per_feature(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run"]:
    r"""Hidden dimensions for each embedded feature: $D^* = m / \|W\|_F^2$.

    1 without superposition, less with it; infinite when nothing is embedded. Norms count:
    with $\|W_i\| > 1$ it lies below $m$ over the number of features.
    Source: Toy Models of Superposition, section on the geometry of superposition.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> dims_per_feature(W)
    tensor(0.6667)
    """
    return W.shape[-1] / (W**2).sum((-2, -1))


def leverage(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n"]:
    r"""The most room a feature can claim: $\ell_i = W_i^\top (W^\top W)^+ W_i$, summing to rank W.

    From 0 to 1, and $D_i \le \ell_i$ with equality where $W_i$ is an eigenvector of the frame
    operator $W^\top W$: it is the supremum of $(v \cdot W_i)^2 / \sum_j (v \cdot W_j)^2$ over
    read-out directions v, of which $D_i$ is the value at $v = W_i$.
    Source: Henighan et al. 2023, Superposition, Memorization, and Double Descent (the
    supremum).

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> leverage(W)
    tensor([0.5000, 0.5000, 1.0000])
    """
    return (W * torch.linalg.pinv(W).mT).sum(-1)


def coherence(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run"]:
    r"""The worst overlap of two directions: $\max_{i \ne j} |\hat W_i \cdot \hat W_j|$.

    From 0 (orthogonal, good) to 1 (two features share a line). Features of zero norm take no
    part. For n directions at least $\sqrt{(n - m) / (m (n - 1))}$ (Welch), with equality for
    equiangular tight frames such as the simplices.
    Source: Welch 1974.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> coherence(W)
    tensor(1.)
    """
    directions = _directions(W)
    return _off_diagonal(directions @ directions.mT).abs().amax((-2, -1)).clamp(max=1)


def frame_potential(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run"]:
    r"""Total squared overlap, $\sum_{ij} (W_i \cdot W_j)^2 = \|W^\top W\|_F^2$, i = j included.

    For n unit directions at least $n^2 / m$, reached by tight frames (good: evenly spread).
    Source: Benedetto & Fickus 2003.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> frame_potential(W)
    tensor(5.)
    """
    return ((W.mT @ W) ** 2).sum((-2, -1))


def polysemanticity(W: Float[Tensor, "*run n m"], threshold: float = 0.2) -> Int[Tensor, "*run m"]:
    r"""Features on each hidden unit: how many have $|W_{ik}|$ above `threshold` of its largest.

    1 (good) is a monosemantic unit, a dead one gets 0. Depends on the basis, so it says
    something where the model has a privileged one (`hidden="relu"`).
    Raises ValueError for a threshold outside [0, 1).
    Source: Toy Models of Superposition, section on superposition in a privileged basis.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> polysemanticity(W)
    tensor([2, 1])
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            f"polysemanticity(threshold={threshold:g}): the threshold is a share of the unit's "
            "largest weight and lies in [0, 1)"
        )
    size = W.abs()
    return (size > threshold * size.amax(-2, keepdim=True)).sum(-2)


def participation_ratio(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run m"]:
    r"""Features on each hidden unit, without a threshold: $(\sum_i W_{ik}^2)^2 / \sum_i W_{ik}^4$.

    From 1 (one feature, good) to n (all equally); a dead unit gets 0. Depends on the basis.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> participation_ratio(W)
    tensor([2., 1.])
    """
    square = _scaled(W) ** 2
    spread = (square**2).sum(-2)
    return square.sum(-2) ** 2 / spread.masked_fill(spread == 0, torch.inf)


def response_selectivity(responses: Float[Tensor, "*run n units"]) -> Float[Tensor, "*run units"]:
    r"""How far each unit answers to one feature: its largest response over its positive ones' sum.

    $\max_i r_{ik} / \sum_i \max(r_{ik}, 0)$ with $r_{ik}$ the activation of unit k when feature
    i alone is active. From 1/n (all alike) to 1 (one feature, good; the source calls a unit
    monosemantic above 0.999). A unit without a positive response gets 0.
    Source: Jermyn et al. 2022, Engineering Monosemanticity in Toy Models.

    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> response_selectivity(W.relu())
    tensor([1., 1.])
    """
    positive = responses.relu()
    total = positive.sum(-2)
    return positive.amax(-2) / total.masked_fill(total == 0, 1)


def effective_features(z: Float[Tensor, "*run samples latents"]) -> Float[Tensor, "*run"]:
    r"""Latents in use, weighted by use: $F = \exp(-\sum_k s_k \ln s_k)$ with $s_k$ the share of
    latent k in the total mean $|z|$.

    From 1 (one latent does it all) to the number of latents; K equally active ones give K, none
    0. Divided by the number of neurons it measures how many features each must carry.
    Source: Bereska et al. 2025, Superposition as Lossy Compression.

    >>> effective_features(torch.tensor([[1.0, 0.0, 2.0, 0.0], [1.0, 2.0, 0.0, 0.0]]))
    tensor(3.)
    """
    use = z.abs().mean(-2)
    total = use.sum(-1)
    share = use / total.masked_fill(total == 0, 1).unsqueeze(-1)
    return torch.special.entr(share).sum(-1).exp().masked_fill(total == 0, 0)


def _directions(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n m"]:
    """Rows of unit length; a row that is zero beside its model's largest stays zero."""
    W = _scaled(W)
    norm = feature_norms(W).unsqueeze(-1)
    zero = norm <= torch.finfo(W.dtype).eps * norm.amax(-2, keepdim=True)
    return (W / norm.masked_fill(zero, 1)).masked_fill(zero, 0)


def _scaled(W: Float[Tensor, "*run n m"]) -> Float[Tensor, "*run n m"]:
    """Each model's largest entry made 1, so that squares of tiny weights do not underflow."""
    largest = W.abs().amax((-2, -1), keepdim=True)
    return W / largest.masked_fill(largest == 0, 1)


def _off_diagonal(square: Float[Tensor, "*run n n"]) -> Float[Tensor, "*run n n"]:
    n = square.shape[-1]
    return square.masked_fill(torch.eye(n, dtype=torch.bool, device=square.device), 0)


def explained_variance(
    x: Float[Tensor, "samples d"], reconstructed: Float[Tensor, "samples d"]
) -> float:
    r"""Share of the variance that a reconstruction explains, over the whole set of samples.

    $1 - \sum\|x - \hat x\|^2 / \sum\|x - \bar x\|^2$, at most 1: 1 is exact, 0 no better than the
    mean, below 0 worse.

    >>> explained_variance(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [1.0]]))
    0.5
    """
    spread = ((x - x.mean(0)).double() ** 2).sum()
    return float(1 - ((x - reconstructed).double() ** 2).sum() / spread)
