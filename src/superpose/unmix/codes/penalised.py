"""ReLU latents with a price on how large they are."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from superpose.unmix.codes.code import Code, Objective, check_weight, squared
from superpose.unmix.weights import Weights

Penalty = Literal["abs", "sqrt", "tanh"]
ROUNDING = 1e-3  # keeps the slope of the root finite at 0
SATURATION = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class L1(Code):
    r"""ReLU latents, with `coefficient` times a penalty on each added to the loss.

    `penalty` is "abs": $\sum z$; "sqrt": $\sum \sqrt{z + δ} - \sqrt δ$ with δ = 0.001; or "tanh":
    $\sum \tanh(4z)/4$; the last two shrink large latents less. Decoder rows have norm 1, so
    latents are lengths; they and the coefficient are in units of activations whose mean squared
    norm about their mean is 1, so that one value means the same at every scale. Under "abs" each
    active latent is shrunk by half the coefficient where the dictionary is orthonormal.
    Raises ValueError for a negative or infinite coefficient.
    Source: Bricken et al. 2023, "Towards Monosemanticity"; for tanh, Jermyn et al. 2024.

    >>> L1(d_sae=2, coefficient=0.5).price(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor(1.)
    """

    coefficient: float
    penalty: Penalty = "abs"

    def __post_init__(self) -> None:
        Code.__post_init__(self)
        check_weight(self, "coefficient", "weighs sparsity against reconstruction")
        if self.penalty not in ("abs", "sqrt", "tanh"):
            raise ValueError(f'L1(penalty={self.penalty!r}): it is "abs", "sqrt" or "tanh"')

    def latents(
        self, weights: Weights, x: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "*run batch d_sae"]:
        """ReLU of the pre-activations."""
        return weights.pre(x).relu()

    def price(self, z: Float[Tensor, "batch d_sae"]) -> Float[Tensor, ""]:
        """The coefficient times the mean over samples of the penalties' sum."""
        if self.penalty == "sqrt":
            each = (z + ROUNDING).sqrt() - ROUNDING**0.5
        elif self.penalty == "tanh":
            each = torch.tanh(SATURATION * z) / SATURATION
        else:
            each = z
        return self.coefficient * each.sum(-1).mean()

    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """The squared error and the price."""
        z = self.latents(weights, x)
        error = target - weights.decode(z)
        return Objective(squared(error) + self.price(z), z, error)
