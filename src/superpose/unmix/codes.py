"""Sparse codes: how pre-activations become latents, and what sparsity costs."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Code(Protocol):
    """What an autoencoder asks of its code."""

    @property
    def d_sae(self) -> int:
        """The number of latents."""
        ...

    def latents(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Non-negative latents from pre-activations."""
        ...

    def penalty(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, ""]:
        """The sparsity term of the loss, a mean over samples."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """The `k` largest pre-activations of a sample, where positive; every other latent is 0.

    Raises ValueError unless 1 ≤ k ≤ d_sae. Source: Gao et al. 2024, section 2.3.

    >>> TopK(d_sae=3, k=1).latents(torch.tensor([[1.0, 2.0, -1.0]]))
    tensor([[0., 2., 0.]])
    """

    d_sae: int
    k: int

    def __post_init__(self) -> None:
        _check_count("TopK", "d_sae", self.d_sae)
        _check_count("TopK", "k", self.k)
        if self.k > self.d_sae:
            raise ValueError(
                f"TopK(d_sae={self.d_sae}, k={self.k}): k latents of d_sae are kept, "
                "so k is at most d_sae"
            )

    def latents(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """ReLU of the k largest, 0 elsewhere."""
        value, place = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, place, value.relu())

    def penalty(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, ""]:
        """None: k alone makes the code sparse."""
        return z.new_zeros(())


@dataclass(frozen=True, slots=True, kw_only=True)
class L1:
    r"""ReLU latents, with `coefficient` times their sum added to the loss.

    The coefficient is in units of activations whose mean squared norm about their mean is 1, so
    that one value means the same at every scale. Each active latent is shrunk by about half the
    coefficient. Raises ValueError for a negative or infinite coefficient.
    Source: Bricken et al. 2023, "Towards Monosemanticity".

    >>> L1(d_sae=2, coefficient=0.5).penalty(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor(1.)
    """

    d_sae: int
    coefficient: float

    def __post_init__(self) -> None:
        _check_count("L1", "d_sae", self.d_sae)
        if not 0.0 <= self.coefficient < np.inf:
            raise ValueError(
                f"L1(coefficient={self.coefficient!r}): the coefficient weighs sparsity against "
                "reconstruction and is finite and at least 0"
            )

    def latents(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """ReLU of the pre-activations."""
        return pre.relu()

    def penalty(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, ""]:
        r"""coefficient · mean over samples of $\sum_k z_k$ (decoder rows have norm 1)."""
        return self.coefficient * z.sum(-1).mean()


def _check_count(call: str, name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{call}({name}={value!r}): {name} is a whole number of at least 1")
