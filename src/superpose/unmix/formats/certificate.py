"""Certificates: that a dictionary and a folder of another tool are the same function, in numbers.

The folder is evaluated by the formula that its tool documents, from the tensors as they lie in the
files, in float64 and without our classes; the dictionary by its own methods, as they run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from superpose.unmix.codes import MatchingPursuit
from superpose.unmix.formats.files import FormatError
from superpose.unmix.formats.formulas import Formula
from superpose.unmix.formats.pieces import MATRICES, precise
from superpose.unmix.sae import SAE
from superpose.unmix.weights import Weights

TOLERANCE = 1e-5
PROBES = 128
_NEAR = 1e-4  # how near a latent's edge, as a share of its distance, probes go on both sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How far a dictionary and a folder differ on `probes` inputs drawn at the dictionary's scale.

    `encode_*` are largest differences of latents, `decode_*` of what the same latents decode to;
    the relative ones are relative to the sum of the magnitudes that a number is made of, as
    rounding is. `active` is the mean number of active latents of a probe. `supports_equal` says
    that the same latents are active, but for the `on_edge` ones that are within rounding of
    switching. Of a stack these are the worst of its `members`.
    """

    format: str
    probes: int
    members: int = 1
    active: float
    encode_absolute: float
    encode_relative: float
    decode_absolute: float
    decode_relative: float
    supports_equal: bool
    on_edge: int

    @property
    def passed(self) -> bool:
        """Whether nothing differs by more than 1e-5, relatively, and the supports are equal."""
        differ = max(self.encode_relative, self.decode_relative)
        return self.supports_equal and differ <= TOLERANCE

    def about(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "passed": self.passed, "tolerance": TOLERANCE}

    @classmethod
    def of(cls, members: "Sequence[Certificate]") -> "Certificate":
        """One certificate of several members: the worst of each number, the mean of `active`."""
        worst = {
            name: max(getattr(member, name) for member in members)
            for name in ("encode_absolute", "encode_relative", "decode_absolute", "decode_relative")
        }
        return replace(
            members[0],
            **worst,
            members=len(members),
            active=sum(member.active for member in members) / len(members),
            supports_equal=all(member.supports_equal for member in members),
            on_edge=sum(member.on_edge for member in members),
        )


def certify(sae: SAE, formula: Formula, format: str, where: object) -> Certificate:
    """Compare one member with a folder's formula; raises FormatError where they differ."""
    x = probes(sae)
    kind = torch.float64 if isinstance(sae.code, MatchingPursuit) else torch.float32
    # A pursuit's rounds branch on near ties, so there the same precision on both sides.
    parts = {name: getattr(sae, name).detach().to("cpu", kind) for name in MATRICES}
    extra = {name: value.detach().to("cpu", kind) for name, value in sae.extra.items()}
    ours = replace(sae, **parts, extra=extra)
    theirs = formula.encode(x.double())
    z = ours.encode(x.to(kind)).double()
    differ = (z > 0) != (theirs.z > 0)
    edge = differ & (theirs.margin.abs() <= TOLERANCE * theirs.size)
    gap = (z - theirs.z).abs().masked_fill(edge, 0.0)
    latents = theirs.z.float()
    decoded = formula.decode(latents.double())
    missed = (ours.decode(latents.to(kind)).double() - decoded.y).abs()
    certificate = Certificate(
        format=format,
        probes=len(x),
        active=float((theirs.z > 0).sum(-1).double().mean()),
        encode_absolute=float(gap.max()),
        encode_relative=_relative(gap, theirs.size),
        decode_absolute=float(missed.max()),
        decode_relative=_relative(missed, decoded.size),
        supports_equal=not bool((differ & ~edge).any()),
        on_edge=int(edge.sum()),
    )
    if not certificate.passed:
        raise FormatError(
            f"{where}: the dictionary and the {format} files are not the same function: encode "
            f"differs by {certificate.encode_relative:.1e}, decode by "
            f"{certificate.decode_relative:.1e} (relative, at most {TOLERANCE:.0e}), supports "
            f"{'agree' if certificate.supports_equal else 'differ'}; nothing was kept"
        )
    return certificate


def probes(sae: SAE, number: int = PROBES) -> Float[Tensor, "probes d_in"]:
    """Inputs at the scale of a single member, the same ones each time: latents switch on them.

    A quarter each goes from the centre along one encoder direction to beyond where that latent
    switches on, lies closely before and behind where it does, mixes several directions, and is
    Gaussian; half of each about b_dec (where it is a point of the input), half about 0.
    """
    draw = torch.Generator().manual_seed(0)
    weights = precise(sae)
    zero = torch.zeros(sae.W_enc.shape[-2], dtype=torch.float64)
    # A transcoder's b_dec is a point of its output.
    centres = [zero, weights.b_dec] if sae.subtract else [zero]
    count = number // (4 * len(centres))
    return torch.cat([_about(centre, weights, count, draw) for centre in centres]).float()


def _about(
    centre: Float[Tensor, " d_in"], weights: Weights, count: int, draw: torch.Generator
) -> Float[Tensor, "probes d_in"]:
    """`count` probes of each of the four kinds about a centre."""
    length = weights.W_enc.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    directions = (weights.W_enc / length).T
    distance = (_edges(weights) - weights.pre(centre.unsqueeze(0))[0]) / length
    scale = _scale(distance)
    number = torch.arange(count)
    order = torch.randperm(len(length), generator=draw)
    chosen, twice = order[number % len(order)], order[number // 2 % len(order)]
    far = distance[chosen].clamp_min(0.0) * (1.0 + 2.0 * _uniform(count, draw))
    beyond = torch.where(far > 0, far, scale * 3.0 * _uniform(count, draw))
    side = _NEAR * (1.0 - 2.0 * (number % 2))
    near = distance[twice] + side * (distance[twice].abs() + scale)
    several = directions[torch.randint(len(length), (count, 4), generator=draw)]
    amounts = -scale * _uniform(count * 4, draw).log().view(count, 4)
    spread = scale * 16.0 ** (_uniform(count, draw) - 0.25)
    normal = torch.randn(count, len(centre), generator=draw, dtype=torch.float64)
    return centre + torch.cat(
        [
            directions[chosen] * beyond.unsqueeze(-1),
            directions[twice] * near.unsqueeze(-1),
            (several * amounts.unsqueeze(-1)).sum(1),
            normal * spread.unsqueeze(-1),
        ]
    )


def _uniform(count: int, draw: torch.Generator) -> Float[Tensor, " count"]:
    # Not 0, of which a logarithm is taken.
    return torch.rand(count, generator=draw, dtype=torch.float64).clamp_min(1e-12)


def _edges(weights: Weights) -> Float[Tensor, " d_sae"]:
    """The pre-activation from which on each latent can be active."""
    if "threshold" in weights.extra:
        return weights.extra["threshold"].clamp_min(0.0)
    if "shift" in weights.extra:
        return (-weights.extra["shift"] / weights.extra["log_gain"].exp()).clamp_min(0.0)
    return torch.zeros(weights.W_enc.shape[-1], dtype=torch.float64)


def _scale(distance: Float[Tensor, " d_sae"]) -> Float[Tensor, ""]:
    """How far from the centre latents typically switch; 1 where all of them switch at it."""
    finite = distance.abs()[distance.isfinite() & (distance != 0)]
    return finite.median() if len(finite) else torch.ones((), dtype=torch.float64)


def _relative(gap: Float[Tensor, "batch n"], size: Float[Tensor, "batch n"]) -> float:
    ratio = gap / size.clamp_min(torch.finfo(torch.float32).tiny)
    return float(ratio.nan_to_num(nan=torch.inf).max())
