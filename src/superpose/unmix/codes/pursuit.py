"""Greedy latents: the best direction, then the best of what is left."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from superpose.unmix.codes.code import Code, Objective, check_k, squared
from superpose.unmix.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingPursuit(Code):
    """`k` rounds, in each of which the latent that fits best takes its part from the residual.

    A round adds to the latent with the largest product of encoder and residual, the lowest among
    equals, where it is positive, so at most k are active. The encoder is the decoder transposed
    and has no bias: what one latent explains is not counted again by another that overlaps with
    it. Raises ValueError unless 1 ≤ k ≤ d_sae. Source: Mallat & Zhang 1993; Costa et al. 2025.

    >>> weights = Weights(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2))
    >>> MatchingPursuit(d_sae=2, k=2).latents(weights, torch.tensor([[1.0, 3.0], [-1.0, 2.0]]))
    tensor([[1., 3.],
            [0., 2.]])
    """

    k: int
    tied: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Code.__post_init__(self)
        check_k(self)

    def latents(
        self, weights: Weights, x: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "*run batch d_sae"]:
        """Amplitudes of at most k directions."""
        left = x - weights.b_dec.unsqueeze(-2)
        return _pursue(left, weights.W_enc, weights.W_dec, self.k)[0]

    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """The squared error of what the rounds left over; the encoder is the decoder."""
        z, error = _pursue(x - weights.b_dec, weights.W_dec.mT, weights.W_dec, self.k)
        return Objective(squared(error), z, error)


def _pursue(
    left: Float[Tensor, "*run batch d"],
    W_enc: Float[Tensor, "*run d d_sae"],
    W_dec: Float[Tensor, "*run d_sae d"],
    k: int,
) -> tuple[Float[Tensor, "*run batch d_sae"], Float[Tensor, "*run batch d"]]:
    """Latents, and what is left of each sample."""
    z = left.new_zeros((*left.shape[:-1], W_dec.shape[-2]))
    for _ in range(k):
        amplitude, place = (left @ W_enc).max(-1, keepdim=True)
        amplitude = amplitude.relu()
        z = z.scatter_add(-1, place, amplitude)
        # Rows by index, with the members' own dictionaries where there is a stack of them.
        rows = torch.take_along_dim(W_dec, place.expand(*place.shape[:-1], W_dec.shape[-1]), -2)
        left = left - amplitude * rows
    return z, left
