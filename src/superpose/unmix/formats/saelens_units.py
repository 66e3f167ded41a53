"""The units that SAELens trains in, as its checkpoints keep them beside the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from superpose.unmix.formats import formulas
from superpose.unmix.formats.files import FormatError, read_json, read_tensors, take
from superpose.unmix.formats.formulas import Formula
from superpose.unmix.weights import Weights

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
_REFUSED = {
    "layer_norm": "it standardises each input by its own mean and deviation",
    "constant_norm_rescale": "it divides each input by its own norm",
}


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """Inputs become (x − mean) matrix inside, and outputs y inverse + mean outside."""

    mean: Float[Tensor, " d_in"]
    matrix: Float[Tensor, "d_in d_in"]
    inverse: Float[Tensor, "d_in d_in"]


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Inputs become `scale` times as large inside, or are whitened."""

    scale: float = 1.0
    whitening: Whitening | None = None

    def latents(self, rescale: bool) -> float:
        """What folding the scale away multiplies latents by.

        Where they are lengths (`rescale`), those of the raw inputs; else they stay as they are.
        """
        return 1.0 / self.scale if rescale else 1.0

    def around(self, formula: Formula, rescale: bool) -> Formula:
        """The formula as a function of raw inputs."""
        if self.scale != 1.0:
            formula = formulas.rescaled(formula, self.scale, self.latents(rescale))
        white = self.whitening
        if white is None:
            return formula
        inside = formula

        def encode(x: Float[Tensor, "batch d_in"]) -> formulas.Encoded:
            found = inside.encode((x - white.mean) @ white.matrix)
            # What is subtracted before the matrix can be large beside what is left.
            reach = (x.norm(dim=-1) + white.mean.norm()) * white.matrix.norm(2)
            near = ((x - white.mean) @ white.matrix).norm(dim=-1).clamp_min(1e-300)
            larger = (reach / near).clamp_min(1.0).unsqueeze(-1)
            return replace(found, size=found.size * larger)

        def decode(z: Float[Tensor, "batch d_sae"]) -> formulas.Decoded:
            found = inside.decode(z)
            size = found.size @ white.inverse.abs() + white.mean.abs()
            return formulas.Decoded(found.y @ white.inverse + white.mean, size)

        return Formula(encode, decode)

    def unwhitened(self, weights: Weights) -> Weights:
        """The weights for raw inputs, in float64, where these are for whitened ones."""
        white = self.whitening
        if white is None:
            return weights
        W_enc = white.matrix @ weights.W_enc
        b_dec = weights.b_dec @ white.inverse + white.mean
        b_enc = weights.b_enc - white.mean @ W_enc
        if weights.subtract:
            b_enc = b_enc - weights.b_dec @ weights.W_enc + b_dec @ W_enc
        return replace(
            weights, W_enc=W_enc, b_enc=b_enc, W_dec=weights.W_dec @ white.inverse, b_dec=b_dec
        )


def units_of(
    folder: Path, config: Mapping[str, Any], scale: float | None, traps: list[str]
) -> Units:
    """What the configuration says of units, with the numbers beside it; raises FormatError."""
    path, mode = folder / "cfg.json", config.get("normalize_activations", "none")
    if scale is not None and mode != "expected_average_only_in":
        raise FormatError(
            f"{path}: normalize_activations is {str(mode)[:40]!r}, so there is no scale to give"
        )
    if mode == "none":
        return Units()
    why = _REFUSED.get(mode) if isinstance(mode, str) else None
    if why or mode not in ("expected_average_only_in", "covariance_whitening"):
        raise FormatError(
            f"{path}: normalize_activations {str(mode)[:40]!r} cannot be folded into weights: "
            f"{why or 'it is not known here'}"
        )
    if config.get("architecture") in ("matching_pursuit", "transcoder", "jumprelu_transcoder"):
        raise FormatError(
            f"{path}: normalize_activations {mode!r} of a {config['architecture']} cannot be "
            "folded: SAELens changes its input by it and its output not, or ties both"
        )
    if mode == "covariance_whitening":
        traps.append(
            f"{path}: trained on whitened activations, which SAELens does not undo when it loads "
            f"this folder; {WHITENING} was folded into the weights"
        )
        return Units(whitening=_whitening(folder, config))
    found = _factor(folder, scale)
    traps.append(
        f"{path}: trained on activations times {found:g}, by which SAELens multiplies nothing when "
        "it loads this folder; the factor was folded into the weights"
    )
    return Units(scale=found)


def _factor(folder: Path, scale: float | None) -> float:
    file = folder / SCALER
    if scale is None and file.is_file():
        scale = read_json(file).get("scaling_factor")
    if scale is None:
        raise FormatError(
            f"{folder / 'cfg.json'}: normalize_activations is 'expected_average_only_in', but the "
            f"factor is not in the folder ({SCALER}); pass unmix.formats.read scale=, "
            "√d_in over the mean norm of the activations it was trained on"
        )
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise FormatError(f"{file}: scaling_factor {str(scale)[:40]!r} should be a positive number")
    return float(scale)


def _whitening(folder: Path, config: Mapping[str, Any]) -> Whitening:
    file = folder / WHITENING
    if not file.is_file():
        raise FormatError(
            f"{folder / 'cfg.json'}: normalize_activations is 'covariance_whitening', but "
            f"{WHITENING} is not in the folder; take both from the checkpoint"
        )
    tensors, sizes = read_tensors(file), {"d_in": config.get("d_in", 0)}
    square = "d_in d_in"
    return Whitening(
        take(tensors, file, "mean", "d_in", sizes).double(),
        take(tensors, file, "matrix", square, sizes).double(),
        take(tensors, file, "inverse_matrix", square, sizes).double(),
    )
