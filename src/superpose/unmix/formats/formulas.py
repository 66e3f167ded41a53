"""The formulas of other tools in plain float64: what their files compute, without our classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
_BLOCK = 4096  # latents at a time, so that no second copy of a matrix is made in float64


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Latents by a tool's formula, with what float32 can make of them.

    `margin` is how far each latent is from switching on or off; `size` is the sum of magnitudes
    that its pre-activation is made of, which rounding is relative to.
    """

    z: Float[Tensor, "batch d_sae"]
    margin: Float[Tensor, "batch d_sae"]
    size: Float[Tensor, "batch d_sae"]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A reconstruction by a tool's formula, and the sum of magnitudes that it is made of."""

    y: Float[Tensor, "batch d_out"]
    size: Float[Tensor, "batch d_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Formula:
    """What another tool computes from its files: two functions of float64 tensors."""

    encode: Callable[[Float[Tensor, "batch d_in"]], Encoded]
    decode: Callable[[Float[Tensor, "batch d_sae"]], Decoded]


@dataclass(frozen=True, slots=True, eq=False)
class Pre:
    """Pre-activations, and the sum of magnitudes that each is made of."""

    value: Float[Tensor, "batch d_sae"]
    size: Float[Tensor, "batch d_sae"]

    def times(self, factor: Float[Tensor, " d_sae"]) -> "Pre":
        """Each latent's times a factor of its own."""
        return Pre(self.value * factor, self.size * factor.abs())

    def plus(self, bias: Float[Tensor, " d_sae"]) -> "Pre":
        """With a bias added to each latent's."""
        return Pre(self.value + bias.double(), self.size + bias.double().abs())


def product(
    x: Float[Tensor, "batch d_in"],
    W: Float[Tensor, "d_in d_sae"],
    shift: Float[Tensor, " d_in"] | None = None,
) -> Pre:
    """(x − shift) W."""
    inside = x if shift is None else x - shift.double()
    reach = x.norm(dim=-1) + (0.0 if shift is None else shift.double().norm())
    blocks = [block.double() for block in W.split(_BLOCK, dim=1)]
    value = torch.cat([inside @ block for block in blocks], 1)
    return Pre(value, torch.cat([reach.outer(block.norm(dim=0)) for block in blocks], 1))


def relu(pre: Pre) -> Encoded:
    """The positive part."""
    return Encoded(pre.value.relu(), pre.value, pre.size)


def jump(pre: Pre, threshold: Float[Tensor, "..."]) -> Encoded:
    """The positive part where it exceeds the threshold; one for all latents, or one for each."""
    level = threshold.double()
    z = pre.value.relu() * (pre.value > level)
    return Encoded(z, pre.value - level.clamp_min(0.0), pre.size)


def topk(pre: Pre, k: int) -> Encoded:
    """The positive part of the k largest; of equal ones, which no tool orders, the first."""
    order = pre.value.argsort(dim=-1, descending=True, stable=True)
    z = torch.zeros_like(pre.value)
    kept = order[:, :k]
    z.scatter_(1, kept, pre.value.gather(1, kept).relu())
    margin = pre.value.abs()
    if k < pre.value.shape[1]:
        two = pre.value.gather(1, order[:, k - 1 : k + 1])
        margin = margin.minimum((pre.value - two.mean(1, keepdim=True)).abs())
    return Encoded(z, margin, pre.size)


def gated(gate: Pre, magnitude: Pre) -> Encoded:
    """The positive part of the magnitude where the gate is positive."""
    z = magnitude.value.relu() * (gate.value > 0)
    # Near the edge of either, by the measure of the one that is nearer.
    shares = [part.value.abs() / part.size.clamp_min(_TINY) for part in (gate, magnitude)]
    return Encoded(z, torch.minimum(*shares) * magnitude.size, magnitude.size)


def pursuit(
    x: Float[Tensor, "batch d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    rounds: int,
) -> Encoded:
    """So many rounds of the best positive direction, each taking its part from what is left."""
    rows, left = W_dec.double(), x - b_dec.double()
    z = torch.zeros(len(x), len(rows), dtype=torch.float64)
    sample = torch.arange(len(x))
    for _ in range(rounds):
        amount, place = (left @ rows.T).relu().max(dim=1)
        z[sample, place] += amount
        left = left - amount.unsqueeze(1) * rows[place]
    size = (x.norm(dim=1) + b_dec.double().norm()).outer(rows.norm(dim=1))
    return Encoded(z, torch.full_like(z, torch.inf), size)


def linear(
    z: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
) -> Decoded:
    """z W_dec + b_dec."""
    y = b_dec.double().expand(len(z), -1)
    size = y.abs()
    parts = zip(z.split(_BLOCK, dim=1), W_dec.split(_BLOCK), strict=True)
    for some, rows in parts:
        y = y + some @ rows.double()
        size = size + some @ rows.double().abs()
    return Decoded(y, size)


def rescaled(formula: Formula, by: float, latents: float) -> Formula:
    """The formula inside a change of units: inputs times `by`, latents times `latents`.

    What it decodes to is divided by `by` again.
    """

    def encode(x: Float[Tensor, "batch d_in"]) -> Encoded:
        inside = formula.encode(x * by)
        return Encoded(inside.z * latents, inside.margin * latents, inside.size * latents)

    def decode(z: Float[Tensor, "batch d_sae"]) -> Decoded:
        inside = formula.decode(z / latents)
        return Decoded(inside.y / by, inside.size / by)

    return Formula(encode, decode)
