"""Dictionary_learning: config.json and ae.pt, a dictionary class each with names of its own."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from superpose.records import write_text
from superpose.records.files import pretty_json
from superpose.unmix.codes import L1, BatchTopK, Code, Gated, JumpReLU, Matryoshka, TopK
from superpose.unmix.formats import formulas
from superpose.unmix.formats.files import (
    TABLE,
    TEXT,
    FormatError,
    named,
    read_json,
    read_pickle,
    take,
    value_of,
)
from superpose.unmix.formats.formulas import Formula
from superpose.unmix.formats.pieces import (
    NOTE,
    Draft,
    Reading,
    by_norm,
    finished,
    norms_differ,
    note,
    noted,
    precise,
    scaled,
    subtracting,
)
from superpose.unmix.sae import SAE
from superpose.unmix.weights import Weights

CONFIG, WEIGHTS = "config.json", "ae.pt"
_NORM_TOLERANCE = 1e-5
_WITH_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_WITH_K = ("AutoEncoderTopK", *_WITH_THRESHOLD)


@dataclass(frozen=True, slots=True)
class _Class:
    """Where a dictionary class keeps what: names of tensors, and of codes it can be."""

    encoder: str
    encoder_bias: str
    decoder: str
    decoder_bias: str
    kinds: tuple[str, ...]
    subtract: bool = True

    @property
    def linear(self) -> bool:
        """Whether the matrices are those of linear layers: output first."""
        return self.encoder.endswith(".weight")


_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_CLASSES = {
    "AutoEncoder": _Class(*_LINEAR, "bias", ("L1",)),
    "AutoEncoderNew": _Class(*_LINEAR, "decoder.bias", ("L1",), subtract=False),
    "AutoEncoderTopK": _Class(*_LINEAR, "b_dec", ("TopK",)),
    "BatchTopKSAE": _Class(*_LINEAR, "b_dec", ("BatchTopK",)),
    "MatryoshkaBatchTopKSAE": _Class("W_enc", "b_enc", "W_dec", "b_dec", ("Matryoshka",)),
    "JumpReluAutoEncoder": _Class(
        "W_enc", "b_enc", "W_dec", "b_dec", ("JumpReLU", "BatchTopK", "Matryoshka"), subtract=False
    ),
    "GatedAutoEncoder": _Class(
        "encoder.weight", "gate_bias", "decoder.weight", "decoder_bias", ("Gated",)
    ),
}
_TRAINERS = {
    "AutoEncoder": "StandardTrainer",
    "AutoEncoderNew": "StandardTrainerAprilUpdate",
    "AutoEncoderTopK": "TopKTrainer",
    "BatchTopKSAE": "BatchTopKTrainer",
    "MatryoshkaBatchTopKSAE": "MatryoshkaBatchTopKTrainer",
    "JumpReluAutoEncoder": "JumpReluTrainer",
    "GatedAutoEncoder": "GatedSAETrainer",
}


def parse(folder: Path, raw: bool = False) -> Reading:
    """Read one trainer's folder; raises FormatError.

    An `AutoEncoder` is given as that library loads it, its decoder rows renormalised to 1, or as
    it lies in the file where `raw`.
    """
    path, file = folder / CONFIG, folder / WEIGHTS
    trainer = value_of(read_json(path), path, "trainer", TABLE)
    name = value_of(trainer, path, "dict_class", TEXT)
    if name not in _CLASSES:
        raise FormatError(
            f"{path}: dict_class {name[:80]!r} is not known here; known are {', '.join(_CLASSES)}"
        )
    state, norm, traps = _finished_state(read_pickle(file), file, trainer)
    parts = _parts(name, state, file)
    code, known = _code(name, state, trainer, path, parts.W_enc.shape[1])
    renormalise = name == "AutoEncoder" and not raw and bool(norms_differ(parts, _NORM_TOLERANCE))
    if renormalise:
        traps.append(_renormalised(parts, file))
    traps += _threshold_traps(name, parts, trainer, file)
    formula = _formula(name, parts, code, renormalise)
    formula = formula if norm == 1.0 else formulas.rescaled(formula, 1.0 / norm, norm)
    weights = by_norm(parts) if renormalise else parts
    weights = weights if norm == 1.0 else scaled(weights, 1.0 / norm, norm)
    sae = finished(_ours(weights), code, tuple(traps), known=known)
    return Reading(sae, formula, tuple(traps))


def _finished_state(
    state: dict[str, Any], file: Path, trainer: Mapping[str, Any]
) -> tuple[dict[str, Any], float, list[str]]:
    """The named tensors, the factor that they have still to be multiplied by, and the traps."""
    if not isinstance(state.get("ae"), dict):
        if trainer.get("norm_factor") is None:
            return state, 1.0, []
        return (
            state,
            1.0,
            [
                f"{file}: its norm_factor {trainer['norm_factor']!r} is in the weights already and "
                "was not applied again"
            ],
        )
    norm = state.get("norm_factor", 1.0)
    if isinstance(norm, bool) or not isinstance(norm, int | float) or not 0 < norm < math.inf:
        raise FormatError(
            f"{file}: norm_factor is {str(norm)[:80]!r}, where it should be a positive number"
        )
    done = f"were multiplied by its norm_factor, {norm:g}"
    if "norm_factor" not in state:
        done = "were left as they are: it has no norm_factor, which normalised training needs"
    trap = (
        f"{file}: a backup of step {str(state.get('step'))[:20]} in mid-training, which that "
        f"library cannot load; its biases and thresholds {done}"
    )
    return named(state["ae"], file), float(norm), [trap]


def _parts(name: str, state: Mapping[str, Any], file: Path) -> Weights:
    """The tensors in our layout, values as in the file, in float64."""
    kind, sizes = _CLASSES[name], {}
    enc_law, dec_law = ("d_sae d_in", "d_in d_sae") if kind.linear else ("d_in d_sae", "d_sae d_in")
    E = take(state, file, kind.encoder, enc_law, sizes)
    b_enc = take(state, file, kind.encoder_bias, "d_sae", sizes)
    D = take(state, file, kind.decoder, dec_law, sizes)
    b_dec = take(state, file, kind.decoder_bias, "d_in", sizes)
    extra: dict[str, Tensor] = {}
    if name == "GatedAutoEncoder":
        extra = {key: take(state, file, key, "d_sae", sizes) for key in ("r_mag", "mag_bias")}
    elif name == "JumpReluAutoEncoder":
        extra = {"threshold": take(state, file, "threshold", "d_sae", sizes)}
    elif name in _WITH_THRESHOLD:
        extra = {"threshold": take(state, file, "threshold", "", sizes).expand(len(b_enc))}
    matrices = (E.T, D.T) if kind.linear else (E, D)
    return precise(
        Weights(matrices[0], b_enc, matrices[1], b_dec, extra=extra, subtract=kind.subtract)
    )


def _ours(parts: Weights) -> Weights:
    """The tensors under our names: thresholds of at least 0, magnitudes told from the gate."""
    if "threshold" in parts.extra:
        # Below 0 a threshold cuts nothing, as only positive values pass at all.
        return replace(parts, extra={"threshold": parts.extra["threshold"].clamp_min(0.0)})
    if "r_mag" in parts.extra:
        gain = parts.extra["r_mag"]
        shift = parts.extra["mag_bias"] - gain.exp() * parts.b_enc
        return replace(parts, extra={"log_gain": gain, "shift": shift})
    return parts


def _code(
    name: str, state: Mapping[str, Any], trainer: Mapping[str, Any], path: Path, d_sae: int
) -> tuple[Code, bool]:
    """The code of a class, and whether its terms in training are known."""
    k = _k(state, trainer, path, d_sae) if name in _WITH_K else 1
    defaults: dict[str, Callable[[], Code]] = {
        "AutoEncoder": lambda: L1(d_sae=d_sae, coefficient=0.0),
        "AutoEncoderNew": lambda: L1(d_sae=d_sae, coefficient=0.0),
        "AutoEncoderTopK": lambda: TopK(d_sae=d_sae, k=k),
        "BatchTopKSAE": lambda: BatchTopK(d_sae=d_sae, k=k),
        "MatryoshkaBatchTopKSAE": lambda: Matryoshka(
            d_sae=d_sae, k=k, widths=_widths(state, path.parent / WEIGHTS, d_sae)
        ),
        "JumpReluAutoEncoder": lambda: JumpReLU(d_sae=d_sae, l0=1.0, strength=0.0, bandwidth=1.0),
        "GatedAutoEncoder": lambda: Gated(d_sae=d_sae, coefficient=0.0),
    }
    code, known = noted(trainer.get(NOTE), defaults[name](), _CLASSES[name].kinds, path)
    return code, known or name in _WITH_K


def _k(state: Mapping[str, Any], trainer: Mapping[str, Any], path: Path, d_sae: int) -> int:
    found = state.get("k", trainer.get("k"))
    if isinstance(found, Tensor):
        whole = found.numel() == 1 and not found.is_floating_point() and not found.is_complex()
        found = int(found) if whole else None
    declared = trainer.get("k", found)
    if type(found) is not int or not 1 <= found <= d_sae or declared != found:
        raise FormatError(
            f"{path}: k is {str(declared)[:40]!r} here and {str(found)[:40]!r} in {WEIGHTS}, where "
            f"both should be one whole number of 1 to {d_sae}"
        )
    return found


def _widths(state: Mapping[str, Any], file: Path, d_sae: int) -> tuple[int, ...]:
    sizes = state.get("group_sizes")
    whole = isinstance(sizes, Tensor) and sizes.ndim == 1 and sizes.dtype == torch.int64
    groups = sizes.tolist() if isinstance(sizes, Tensor) and whole and len(sizes) <= d_sae else []
    if sum(groups) != d_sae or min(groups) < 1:
        raise FormatError(
            f"{file}: group_sizes should be whole numbers of at least 1 and sum to d_sae = {d_sae}"
        )
    return tuple(sum(groups[: count + 1]) for count in range(len(groups)))


def _renormalised(parts: Weights, file: Path) -> str:
    if float(parts.W_dec.norm(dim=-1).min()) == 0.0:
        raise FormatError(
            f"{file}: a row of the decoder is 0, which that library cannot renormalise on loading; "
            "pass raw=True to unmix.formats.read for it as it is"
        )
    worst = norms_differ(parts, 0.0)
    return (
        f"{file}: that library renormalises this decoder on loading (norms differ from 1 by up to "
        f"{worst:.2g}), so the latents are its latents; pass raw=True to unmix.formats.read for "
        "those of the file"
    )


def _threshold_traps(
    name: str, parts: Weights, trainer: Mapping[str, Any], file: Path
) -> list[str]:
    if name not in _WITH_THRESHOLD or float(parts.extra["threshold"][0]) >= 0:
        return []
    start = str(trainer.get("threshold_start_step", 1000))[:20]
    return [
        f"{file}: its threshold is still {float(parts.extra['threshold'][0]):g}, as training ended "
        f"before step {start}: every positive latent is active, a dense ReLU and no {name}"
    ]


def _formula(name: str, parts: Weights, code: Code, renormalise: bool) -> Formula:
    """What that library computes from its tensors."""
    norm = parts.W_dec.norm(dim=-1)

    def encode(x: Float[Tensor, "batch d_in"]) -> formulas.Encoded:
        inner = formulas.product(x, parts.W_enc, parts.b_dec if parts.subtract else None)
        pre = inner.plus(parts.b_enc)
        if isinstance(code, TopK):
            return formulas.topk(pre, code.k)
        if name == "GatedAutoEncoder":
            gain = parts.extra["r_mag"].exp()
            return formulas.gated(pre, inner.times(gain).plus(parts.extra["mag_bias"]))
        if "threshold" in parts.extra:
            return formulas.jump(pre, parts.extra["threshold"])
        return formulas.relu(pre.times(norm) if renormalise else pre)

    def decode(z: Float[Tensor, "batch d_sae"]) -> formulas.Decoded:
        rows = parts.W_dec / norm.unsqueeze(-1) if renormalise else parts.W_dec
        return formulas.linear(z, rows, parts.b_dec)

    return Formula(encode, decode)


def draft(sae: SAE) -> Draft:
    """One member as dictionary_learning keeps it; raises FormatError for what it does not know."""
    d_in, d_sae = sae.W_enc.shape
    if sae.W_dec.shape[-1] != d_in:
        raise FormatError(
            f'save(format="dictionary_learning"): input and output have {d_in} and '
            f"{sae.W_dec.shape[-1]} dimensions, and its classes have one activation_dim for both"
        )
    name = _class_of(sae)
    kind = _CLASSES[name]
    weights = subtracting(precise(sae), kind.subtract)
    tensors = {
        kind.encoder: weights.W_enc.T if kind.linear else weights.W_enc,
        kind.encoder_bias: weights.b_enc,
        kind.decoder: weights.W_dec.T if kind.linear else weights.W_dec,
        kind.decoder_bias: weights.b_dec,
    }
    if name == "GatedAutoEncoder":
        gain = weights.extra["log_gain"]
        bias = weights.extra["shift"] + gain.exp() * weights.b_enc
        tensors |= {"r_mag": gain, "mag_bias": bias}
    if name == "JumpReluAutoEncoder":
        tensors["threshold"] = weights.extra["threshold"]
    tensors = {key: value.float().contiguous() for key, value in tensors.items()}
    if isinstance(sae.code, TopK | BatchTopK | Matryoshka) and name in _WITH_K:
        # The per-sample selection of TopK has no use for a threshold; -1 says there is none.
        threshold = sae.extra["threshold"][0].cpu() if "threshold" in sae.extra else -1.0
        tensors["k"] = torch.tensor(sae.code.k, dtype=torch.int32)
        tensors["threshold"] = torch.as_tensor(threshold, dtype=torch.float32).clone()
    if isinstance(sae.code, Matryoshka) and name in _WITH_K:
        widths = torch.tensor((0, *sae.code.widths))
        tensors["group_sizes"] = widths.diff()
    trainer = {
        "trainer_class": _TRAINERS[name],
        "dict_class": name,
        "activation_dim": d_in,
        "dict_size": d_sae,
        "layer": None,
        "lm_name": None,
        "submodule_name": None,
        "trained_with": "superpose",
        NOTE: note(sae.code),
    }
    if name in _WITH_K:
        trainer["k"] = int(tensors["k"])
    return Draft({"trainer": trainer, "buffer": {"d_submodule": d_in}}, tensors)


def _class_of(sae: SAE) -> str:
    if isinstance(sae.code, L1):
        unit = not norms_differ(sae, _NORM_TOLERANCE)
        return "AutoEncoder" if sae.subtract and unit else "AutoEncoderNew"
    if isinstance(sae.code, BatchTopK | Matryoshka):
        threshold = sae.extra["threshold"]
        if not bool((threshold == threshold[0]).all()):
            return "JumpReluAutoEncoder"  # the others have one threshold for all latents
    for name, kind in _CLASSES.items():
        if type(sae.code).__name__ in kind.kinds:
            return name
    raise FormatError(
        f'save(format="dictionary_learning"): {type(sae.code).__name__} is not known there; '
        'choose "saelens" or keep it as superpose'
    )


def write(folder: Path, drawn: Draft) -> None:
    """Put a draft into a folder."""
    write_text(folder / CONFIG, pretty_json(drawn.config))
    torch.save(drawn.tensors, folder / WEIGHTS)
