"""Sets of features that are almost orthogonal among themselves, though not to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superpose.geometry.classification import RANK
from superpose.measures import feature_norms, represented

ALMOST_ORTHOGONAL = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class LocalBases:
    r"""How orthogonal the features of each set are, and how much the sets overlap.

    - `coherence` `[*run, sets]`: the largest $|\cos|$ within each set, 0 (good) to 1.
    - `represented` and `rank` `[*run, sets]`: how many features of each set are represented
      (norm above 1/2) and how many dimensions these span.
    - `across` `[*run, sets, sets]`: the largest $|\cos|$ between features of two sets; its
      diagonal is `coherence`.
    - `joint_rank` `[*run]`: the dimensions that all sets span together; below the sum of
      `rank` the sets share dimensions.
    """

    sets: tuple[tuple[int, ...], ...]
    coherence: Float[Tensor, "*run sets"]
    represented: Int[Tensor, "*run sets"]
    rank: Int[Tensor, "*run sets"]
    across: Float[Tensor, "*run sets sets"]
    joint_rank: Int[Tensor, "*run"]

    @property
    def almost_orthogonal(self) -> Bool[Tensor, "*run sets"]:
        r"""Which sets are bases almost: all represented, and every $|\cos|$ below 0.15."""
        complete = self.represented == torch.tensor([len(each) for each in self.sets])
        return complete & (self.coherence < ALMOST_ORTHOGONAL)

    @property
    def overlapping(self) -> Bool[Tensor, "*run"]:
        """Whether the sets span fewer dimensions together than each on its own: superposition."""
        return self.joint_rank < self.rank.sum(-1)


def local_bases(W: Float[Tensor, "*run n m"], sets: Sequence[Sequence[int]]) -> LocalBases:
    r"""Whether each set of features is an almost orthogonal basis, and what the sets share.

    Features that are active together are kept apart: trained on correlated sets, a model may
    give each set directions at right angles, and let the sets overlap. Directions are compared
    without their norms; features that are not represented, or not finite, take no part. `sets`
    holds the members of each set; `Features.correlated` numbers them in turn.
    Raises ValueError for a set that is empty, out of range, or shares a feature with another.
    Source: Toy Models of Superposition, section on local almost-orthogonal bases.

    >>> W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]])
    >>> found = local_bases(W, [(0, 1), (2, 3)])
    >>> found.almost_orthogonal, found.rank, found.joint_rank, found.across[0, 1]
    (tensor([True, True]), tensor([2, 2]), tensor(2), tensor(0.8000))
    """
    members = tuple(tuple(int(i) for i in each) for each in sets)
    _check(members, W.shape[-2])
    kept = represented(W) & W.isfinite().all(-1)
    directions = (W / feature_norms(W).unsqueeze(-1)).masked_fill(~kept.unsqueeze(-1), 0.0)
    overlap = (directions @ directions.mT).abs()
    overlap.diagonal(dim1=-2, dim2=-1).zero_()
    rows = [overlap[..., list(each), :].amax(-2) for each in members]
    across = torch.stack(
        [torch.stack([row[..., list(each)].amax(-1) for each in members], -1) for row in rows], -2
    )
    return LocalBases(
        sets=members,
        coherence=across.diagonal(dim1=-2, dim2=-1),
        represented=torch.stack([kept[..., list(each)].sum(-1) for each in members], -1),
        rank=torch.stack([_rank(directions[..., list(each), :]) for each in members], -1),
        across=across,
        joint_rank=_rank(directions[..., [i for each in members for i in each], :]),
    )


def _rank(directions: Float[Tensor, "*run k m"]) -> Int[Tensor, "*run"]:
    singular = torch.linalg.svdvals(directions)
    return (singular > RANK * singular.amax(-1, keepdim=True)).sum(-1)


def _check(sets: tuple[tuple[int, ...], ...], n: int) -> None:
    everyone = [i for each in sets for i in each]
    if not sets or not all(sets):
        raise ValueError(f"local_bases(sets={sets}): give at least one set, and none empty")
    if len(set(everyone)) < len(everyone) or not set(everyone) <= set(range(n)):
        raise ValueError(
            f"local_bases(sets={sets}): every feature, from 0 to {n - 1}, is in one set at most"
        )
