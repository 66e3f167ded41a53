"""A trained threshold for each latent, and a price on how many exceed theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from superpose.unmix.codes.code import Code, Objective, check_weight, squared
from superpose.unmix.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpReLU(Code):
    r"""Pre-activations that exceed a threshold θ of their latent, 0 elsewhere: nothing is shrunk.

    Training adds $strength · (L_0 / l0 - 1)^2$, where $L_0$ is the mean number of active latents
    of a sample, so that about `l0` are active at the end. Its logarithm makes θ positive; as the
    step at θ has no slope of its own, θ learns from the pre-activations within half a `bandwidth`
    of it: $\partial z / \partial θ = -θ K / bandwidth$ and $\partial L_0 / \partial θ =
    -K / bandwidth$, where K is 1 there and 0 elsewhere. The bandwidth is in units of activations
    whose mean squared norm about their mean is 1. Raises ValueError unless 0 < l0 ≤ d_sae, and
    for a strength or bandwidth out of range.
    Source: Rajamanoharan et al. 2024, "Jumping Ahead", section 3.
    """

    l0: float
    strength: float = 1.0
    bandwidth: float = 0.1
    start: ClassVar[Mapping[str, float]] = MappingProxyType({"log_threshold": log(0.1)})

    def __post_init__(self) -> None:
        Code.__post_init__(self)
        check_weight(self, "l0", "is how many latents shall be active", positive=True)
        check_weight(self, "strength", "weighs the number of active latents")
        check_weight(self, "bandwidth", "is how near a threshold a value teaches", positive=True)
        if self.l0 > self.d_sae:
            raise ValueError(
                f"JumpReLU(d_sae={self.d_sae}, l0={self.l0!r}): l0 latents of d_sae are active, "
                "so l0 is at most d_sae"
            )

    def latents(
        self, weights: Weights, x: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "*run batch d_sae"]:
        """Pre-activations above their threshold."""
        pre = weights.pre(x)
        return pre.masked_fill(~(pre > weights.extra["threshold"].unsqueeze(-2)), 0.0)

    def objective(
        self,
        weights: Weights,
        x: Float[Tensor, "batch d_in"],
        target: Float[Tensor, "batch d_out"],
        dead: Bool[Tensor, " d_sae"],
    ) -> Objective:
        """The squared error, and the price of a number of active latents other than l0."""
        pre = weights.pre(x)
        threshold = weights.extra["log_threshold"].exp()
        level = threshold.detach()
        # Zero in value, and the slope of the step in the threshold.
        moved = (threshold - level) / self.bandwidth
        near = ((pre.detach() - level).abs() < self.bandwidth / 2).to(pre.dtype)
        above = pre > level
        z = pre.masked_fill(~above, 0.0) - level * near * moved
        active = (above.to(pre.dtype) - near * moved).sum(-1).mean()
        error = target - weights.decode(z)
        loss = squared(error) + self.strength * (active / self.l0 - 1.0) ** 2
        return Objective(loss, z, error)

    def finished(
        self, trained: Mapping[str, Float[Tensor, " d_sae"]], threshold: float
    ) -> dict[str, Float[Tensor, " d_sae"]]:
        """The threshold itself."""
        return {"threshold": trained["log_threshold"].exp()}

    def advice(self, l0: float) -> str:
        """Says by how much the number of active latents was missed, beyond a tenth of it."""
        if abs(l0 / self.l0 - 1.0) <= 0.1:
            return ""
        return (
            f"{l0:.3g} latents a sample were active at the end, not l0={self.l0:g}: thresholds "
            f"learn only from pre-activations within {self.bandwidth / 2:g} of them; a larger "
            "bandwidth may come nearer, or ask for another l0"
        )
