"""Which latents are active, and how much: two answers from one encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from superpose.unmix.codes.code import Code, Objective, check_weight, squared
from superpose.unmix.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated(Code):
    r"""A gate that is penalised and a magnitude that is not: little is shrunk.

    A latent is $ReLU(e^{log\_gain} π + shift)$ where its pre-activation π is positive, else 0.
    The gate learns by a price, `coefficient` times the mean sum of ReLU(π), and by having to
    reconstruct the target from ReLU(π) through the decoder held fixed. Coefficient and shift are
    in units of activations whose mean squared norm about their mean is 1. Raises ValueError for a
    negative or infinite coefficient.
    Source: Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated SAEs".
    """

    coefficient: float
    start: ClassVar[Mapping[str, float]] = MappingProxyType({"log_gain": 0.0, "shift": 0.0})

    def __post_init__(self) -> None:
        Code.__post_init__(self)
        check_weight(self, "coefficient", "weighs sparsity against reconstruction")

    def latents(
        self, weights: Weights, x: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "*run batch d_sae"]:
        """Magnitudes where the gate is open."""
        return _magnitude(weights, weights.pre(x))

    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """The squared error, the price of open gates and the error of the gates alone."""
        pre = weights.pre(x)
        z, gate = _magnitude(weights, pre), pre.relu()
        error = target - weights.decode(z)
        alone = target - (gate @ weights.W_dec.detach() + weights.b_dec.detach())
        price = self.coefficient * gate.sum(-1).mean()
        return Objective(squared(error) + price + squared(alone), z, error)


def _magnitude(
    weights: Weights, pre: Float[Tensor, "*run batch d_sae"]
) -> Float[Tensor, "*run batch d_sae"]:
    gain = weights.extra["log_gain"].exp().unsqueeze(-2)
    shift = weights.extra["shift"].unsqueeze(-2)
    return (gain * pre + shift).relu().masked_fill(~(pre > 0), 0.0)
