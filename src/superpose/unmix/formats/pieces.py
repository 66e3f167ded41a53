"""What each format is made of: drafts to write, readings, folded weights, codes and their notes."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from superpose.unmix.codes import CODES, Code
from superpose.unmix.formats.files import FormatError
from superpose.unmix.formats.formulas import Formula
from superpose.unmix.sae import SAE
from superpose.unmix.weights import Weights

NOTE = "superpose_code"
MATRICES = ("W_enc", "b_enc", "W_dec", "b_dec")


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A member as a tool keeps it: its configuration, its tensors, and the traps on the way."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    traps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a folder holds: our dictionary, its tool's formula, and the traps on the way.

    `firing` is the share of samples on which each latent is active, where the folder knows it.
    """

    sae: SAE
    formula: Formula
    traps: tuple[str, ...] = ()
    firing: Float[Tensor, " d_sae"] | None = None


def precise(weights: Weights) -> Weights:
    """The weights alone, in float64 on the CPU."""
    extra = {name: value.detach().cpu().double() for name, value in weights.extra.items()}
    return Weights(
        *(getattr(weights, name).detach().cpu().double() for name in MATRICES),
        extra=extra,
        subtract=weights.subtract,
    )


def finished(
    weights: Weights, code: Code, traps: tuple[str, ...] = (), *, known: bool = True
) -> SAE:
    """The dictionary in float32, with memory of its own.

    `known` is whether the code's terms in training are, which else its advice says.
    """
    parts = {
        name: getattr(weights, name).detach().to(torch.float32, copy=True).contiguous()
        for name in MATRICES
    }
    extra = {name: value.detach().float().contiguous() for name, value in weights.extra.items()}
    unknown = "read from another tool: the terms of its code in training are not known"
    advice = (*traps, *(() if known else (unknown,)))
    return SAE(**parts, code=code, extra=extra, subtract=weights.subtract, advice=advice)


def scaled(weights: Weights, by: float, latents: float) -> Weights:
    """The same dictionary for inputs that are 1/`by` as large, with latents `latents` as large."""
    moved = {
        name: value if name == "log_gain" else value * latents
        for name, value in weights.extra.items()
    }
    return replace(
        weights,
        W_enc=weights.W_enc * (by * latents),
        b_enc=weights.b_enc * latents,
        W_dec=weights.W_dec / (by * latents),
        b_dec=weights.b_dec / by,
        extra=moved,
    )


def by_norm(weights: Weights) -> Weights:
    """With the norms of the decoder's rows moved into the encoder; thresholds stay as they are."""
    norm = weights.W_dec.norm(dim=-1)
    return replace(
        weights,
        W_enc=weights.W_enc * norm,
        b_enc=weights.b_enc * norm,
        W_dec=weights.W_dec / norm.unsqueeze(-1),
    )


def subtracting(weights: Weights, subtract: bool) -> Weights:
    """The same function, with the decoder's bias taken from the input first, or not."""
    if weights.subtract == subtract:
        return weights
    sign = 1.0 if subtract else -1.0
    moved = weights.b_enc + sign * (weights.b_dec @ weights.W_enc)
    return replace(weights, b_enc=moved, subtract=subtract)


def norms_differ(weights: Weights, tolerance: float) -> float:
    """By how much the norm of a decoder row differs from 1 at most; 0 where within tolerance."""
    worst = float((weights.W_dec.double().norm(dim=-1) - 1.0).abs().max())
    return worst if worst > tolerance else 0.0


def note(code: Code) -> dict[str, Any]:
    """A code as plain data, to be put where another tool keeps free-form remarks."""
    return {"name": type(code).__name__, **asdict(code)}


def noted(found: Any, default: Code, kinds: tuple[str, ...], path: Path) -> tuple[Code, bool]:
    """The code of a note, and True; or the default where there is none, and False.

    Raises FormatError for a note that describes no code of these kinds and this size.
    """
    if found is None:
        return default, False
    try:
        described: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        name = described.pop("name")
        code = CODES[name](**described)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: its {NOTE!r} describes no code ({error}); take it out"
        ) from None
    if name not in kinds or code.d_sae != default.d_sae:
        raise FormatError(
            f"{path}: its {NOTE!r} describes {code}, but the weights are of {default}; take it out"
        )
    return code, True


def require_member(sae: SAE, format: str) -> None:
    """Raise FormatError unless one finite dictionary of one layer is given."""
    if sae.layers:
        raise FormatError(
            f"save(format={format!r}): this is a crosscoder of layers {list(sae.layers)}, and "
            f"{format} knows one layer; save it as superpose"
        )
    tensors = {name: getattr(sae, name) for name in MATRICES} | dict(sae.extra)
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise FormatError(
                f"save(format={format!r}): {name} holds NaN or infinite values, so the training "
                "diverged; train again at a lower rate"
            )
