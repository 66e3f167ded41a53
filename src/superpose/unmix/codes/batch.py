"""A fixed number of latents for each batch, shared out among its samples; flat or nested."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from superpose.unmix.codes.code import (
    Code,
    Objective,
    auxiliary,
    check_k,
    check_weight,
    largest,
    squared,
)
from superpose.unmix.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared(Code):
    """What both have: `k` latents a sample on average, in use those above one threshold."""

    k: int
    auxk: float = 1.0

    def __post_init__(self) -> None:
        Code.__post_init__(self)
        check_k(self)
        check_weight(self, "auxk", "weighs what dead latents learn")

    def latents(
        self, weights: Weights, x: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "*run batch d_sae"]:
        """Pre-activations above the threshold and above 0."""
        pre = weights.pre(x)
        level = weights.extra["threshold"].clamp_min(0.0).unsqueeze(-2)
        return pre.masked_fill(~(pre > level), 0.0)

    def finished(
        self, trained: Mapping[str, Float[Tensor, " d_sae"]], threshold: float
    ) -> dict[str, Float[Tensor, " d_sae"]]:
        """One threshold for all latents."""
        return {"threshold": torch.full((self.d_sae,), threshold)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTopK(_Shared):
    """The k · batch largest pre-activations of a whole batch, where positive.

    A sample may have more than `k` active latents or fewer, k on average. Of equal values those
    of the lowest sample, then of the lowest latent, are kept. A trained dictionary has no batch:
    there a latent is its pre-activation where that exceeds `threshold`, the running mean of the
    smallest value that training kept, so that about k are active. Raises ValueError unless
    1 ≤ k ≤ d_sae, and for a negative or infinite auxk. Source: Bussmann et al. 2024.

    >>> eye, zeros = torch.eye(2), torch.zeros(2)
    >>> weights = Weights(eye, zeros, eye, zeros, extra={"threshold": torch.full((2,), 1.5)})
    >>> BatchTopK(d_sae=2, k=1).latents(weights, torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    tensor([[0., 2.],
            [3., 2.]])
    """

    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """The squared error, and the auxiliary term of dead latents."""
        pre = weights.pre(x)
        z, smallest = _shared_out(pre, self.k)
        error = target - weights.decode(z)
        loss = squared(error)
        if self.auxk:
            loss = loss + self.auxk * auxiliary(weights, pre, error, dead)
        return Objective(loss, z, error, smallest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matryoshka(_Shared):
    """BatchTopK whose first latents have to reconstruct alone, too: nested dictionaries.

    The loss is the mean over `widths` of the squared error of the first so many latents, so that
    general features come first and what hangs on them later. The widths ascend, and the last is
    d_sae; by default they are a sixteenth, an eighth, a quarter, a half and all of it. Raises
    ValueError for other widths and as BatchTopK does. Source: Bussmann et al. 2025.

    >>> Matryoshka(d_sae=64, k=4).widths
    (4, 8, 16, 32, 64)
    """

    widths: tuple[int, ...] = ()
    auxk: float = 0.25

    def __post_init__(self) -> None:
        _Shared.__post_init__(self)
        halves = (max(1, self.d_sae >> times) for times in range(4, -1, -1))
        widths = tuple(self.widths) or tuple(dict.fromkeys(halves))
        ascend = all(a < b for a, b in pairwise((0, *widths)))
        if not ascend or widths[-1] != self.d_sae:
            raise ValueError(
                f"Matryoshka(d_sae={self.d_sae}, widths={self.widths!r}): widths are whole numbers "
                "that ascend from at least 1, and the last is d_sae"
            )
        object.__setattr__(self, "widths", widths)

    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """The mean squared error of all prefixes, and the auxiliary term after the whole."""
        pre = weights.pre(x)
        z, smallest = _shared_out(pre, self.k)
        error, loss = target - weights.b_dec, target.new_zeros(())
        for start, end in pairwise((0, *self.widths)):
            error = error - z[:, start:end] @ weights.W_dec[start:end]
            loss = loss + squared(error)
        loss = loss / len(self.widths)
        if self.auxk:
            loss = loss + self.auxk * auxiliary(weights, pre, error, dead)
        return Objective(loss, z, error, smallest)


def _shared_out(
    pre: Float[Tensor, "batch d_sae"], k: int
) -> tuple[Float[Tensor, "batch d_sae"], Float[Tensor, ""]]:
    """Latents, and the smallest of them that is kept: 0 where no pre-activation is positive."""
    kept = largest(pre.flatten(), k * len(pre)).view_as(pre)
    smallest = pre.detach().masked_fill(~kept, torch.inf).min()
    return pre.masked_fill(~kept, 0.0), torch.where(smallest.isinf(), 0.0, smallest)
