"""SAELens: cfg.json and sae_weights.safetensors, of a finished SAE or of one in training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from superpose.unmix.codes import (
    L1,
    BatchTopK,
    Code,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    TopK,
)
from superpose.unmix.formats import formulas
from superpose.unmix.formats.files import (
    COUNT,
    FLAG,
    TABLE,
    TEXT,
    FormatError,
    read_json,
    read_tensors,
    take,
    value_of,
)
from superpose.unmix.formats.formulas import Formula
from superpose.unmix.formats.pieces import (
    NOTE,
    Reading,
    by_norm,
    finished,
    noted,
    precise,
    scaled,
)
from superpose.unmix.formats.saelens_units import Units, units_of
from superpose.unmix.weights import Weights

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"

_JUMPS = ("JumpReLU", "BatchTopK", "Matryoshka")
KINDS = {
    "standard": ("L1",),
    "transcoder": ("L1",),
    "topk": ("TopK",),
    "jumprelu": _JUMPS,
    "jumprelu_transcoder": _JUMPS,
    "batchtopk": ("BatchTopK", "JumpReLU"),
    "matryoshka_batchtopk": ("Matryoshka", "JumpReLU"),
    "gated": ("Gated",),
    "matching_pursuit": ("MatchingPursuit",),
}
_TRANSCODERS = ("transcoder", "jumprelu_transcoder")
_IN_TRAINING = ("batchtopk", "matryoshka_batchtopk")
_REFUSED = {
    "abstopk": "its latents keep their sign, and ours are not negative",
    "temporal": "its latents attend to other positions, and ours see one sample",
    "skip_transcoder": "it has a linear path W_skip, which our dictionaries have not",
    "jumprelu_skip_transcoder": "it has a linear path W_skip, which our dictionaries have not",
}
_OLD_KEYS = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
_NAMES = """
architecture d_in d_sae d_out dtype device apply_b_dec_to_input normalize_activations
reshape_activations metadata k rescale_acts_by_decoder_norm residual_threshold max_iterations
stop_on_duplicate_support decoder_init_norm l1_coefficient lp_norm l1_warm_up_steps
topk_threshold_lr aux_loss_coefficient use_sparse_activations matryoshka_widths
use_matryoshka_aux_loss jumprelu_init_threshold jumprelu_bandwidth jumprelu_sparsity_loss_mode
l0_coefficient l0_warm_up_steps pre_act_loss_coefficient jumprelu_tanh_scale
jumprelu_ste_to_input target_l0
"""
_KEYS = frozenset(_NAMES.split())


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A configuration, brought to the form of version 6, with what is decided by it."""

    config: dict[str, Any]
    path: Path
    architecture: str
    units: Units
    rescale: bool
    traps: list[str]


def parse(folder: Path, scale: float | None = None) -> Reading:
    """Read one folder; raises FormatError.

    `scale` is the factor that training multiplied activations by, where that is not in the folder.
    """
    path, file = folder / CONFIG, folder / WEIGHTS
    traps: list[str] = []
    config = _version_6(read_json(path), path, traps)
    architecture = _architecture(config, path)
    units = units_of(folder, config, scale, traps)
    training = architecture in _IN_TRAINING
    rescale = value_of(config, path, "rescale_acts_by_decoder_norm", FLAG, training)
    rescale = rescale and (training or architecture == "topk")
    source = _Source(config, path, architecture, units, rescale, traps)
    _look_over(source)
    tensors = read_tensors(file)
    parts = _parts(tensors, file, source)
    code, known = _code(source, parts.W_enc.shape[1])
    sae = finished(_ours(parts, source), code, tuple(traps), known=known)
    firing = _firing(folder / SPARSITY, parts.W_enc.shape[1])
    return Reading(sae, _formula(parts, source, code), tuple(traps), firing)


def _version_6(config: dict[str, Any], path: Path, traps: list[str]) -> dict[str, Any]:
    """The configuration as SAELens rewrites those of before version 6; others as they are."""
    metadata = value_of(config, path, "metadata", TABLE, {})
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "none")
    major = version.split(".")[0]
    if major.isdecimal() and int(major) >= 6:
        return config
    traps.append(
        f"{path}: its sae_lens_version is {version[:20]}, not 6.0.0 or later, so SAELens rewrites "
        "it by the rules of before version 6 and drops nested keys; so did we"
    )
    return _rewritten({_OLD_KEYS.get(key, key): value for key, value in config.items()}, path)


def _rewritten(old: dict[str, Any], path: Path) -> dict[str, Any]:
    """A configuration of before version 6, by its later names."""
    chosen, details = old.get("activation_fn", "relu"), old.get("activation_fn_kwargs")
    if chosen == "topk" and isinstance(details, dict) and "k" in details:
        old |= {"architecture": "topk", "k": details["k"]}
    elif chosen != "relu":
        raise FormatError(f"{path}: activation_fn {str(chosen)[:40]!r} is not known here")
    hook = str(old.get("hook_name") or "")
    old.setdefault("reshape_activations", "hook_z" if "hook_z" in hook else "none")
    named = old.get("normalize_activations")
    if named is None or isinstance(named, bool):
        old["normalize_activations"] = "expected_average_only_in" if named else "none"
    if old.get("finetuning_scaling_factor"):
        raise FormatError(
            f"{path}: finetuning_scaling_factor rescales latents after the code; fold it first"
        )
    return {"architecture": "standard", **{key: old[key] for key in old if key in _KEYS}}


def _architecture(config: Mapping[str, Any], path: Path) -> str:
    architecture = value_of(config, path, "architecture", TEXT)
    if architecture not in KINDS:
        why = _REFUSED.get(architecture, f"known are {', '.join(KINDS)}")
        raise FormatError(f"{path}: architecture {architecture[:40]!r} cannot be read: {why}")
    subtract = value_of(config, path, "apply_b_dec_to_input", FLAG, True)
    if subtract and architecture in _TRANSCODERS:
        raise FormatError(
            f"{path}: apply_b_dec_to_input is true, but a {architecture}'s b_dec is a point of its "
            "output; set it to false"
        )
    return architecture


def _look_over(source: _Source) -> None:
    """Note what SAELens would do with this configuration that nobody is told of there."""
    strange = sorted(set(source.config) - _KEYS)
    if strange:
        source.traps.append(
            f"{source.path}: SAELens drops the keys {', '.join(strange)[:200]} without a word; "
            "they were not read here either"
        )
    if source.config.get("reshape_activations", "none") == "hook_z":
        metadata = source.config.get("metadata")
        name = metadata.get("hook_name") if isinstance(metadata, dict) else None
        wrong = name is not None and not str(name).endswith("_z")
        also = f"; SAELens cannot load it, as its hook_name {name!r} does not end in _z"
        source.traps.append(
            f"{source.path}: its inputs are those of hook_z, the heads of a layer; flatten them to "
            f"[samples, heads · d_head] first{also if wrong else ''}"
        )


def _parts(tensors: Mapping[str, Tensor], file: Path, source: _Source) -> Weights:
    """The tensors in our layout, values as in the file, in float64."""
    config, path, architecture = source.config, source.path, source.architecture
    sizes = {name: value_of(config, path, name, COUNT) for name in ("d_in", "d_sae")}
    transcoder = architecture in _TRANSCODERS
    d_out = value_of(config, path, "d_out", COUNT) if transcoder else sizes["d_in"]
    sizes["d_out"] = d_out
    factor = tensors.get("scaling_factor")
    if factor is not None and not bool((factor == 1).all()):
        raise FormatError(f"{file}: scaling_factor rescales latents after the code; fold it first")
    W_dec = take(tensors, file, "W_dec", "d_sae d_out", sizes)
    b_dec = take(tensors, file, "b_dec", "d_out", sizes)
    extra: dict[str, Tensor] = {}
    if architecture == "matching_pursuit":
        W_enc, b_enc = W_dec.mT, W_dec.new_zeros(len(W_dec))
    else:
        W_enc = take(tensors, file, "W_enc", "d_in d_sae", sizes)
        bias = "b_gate" if architecture == "gated" else "b_enc"
        b_enc = take(tensors, file, bias, "d_sae", sizes)
    if architecture == "gated":
        extra = {name: take(tensors, file, name, "d_sae", sizes) for name in ("r_mag", "b_mag")}
    elif architecture in _IN_TRAINING:
        threshold = take(tensors, file, "topk_threshold", "", sizes)
        extra = {"threshold": threshold.expand(len(b_enc))}
    elif architecture in ("jumprelu", "jumprelu_transcoder"):
        log = (
            take(tensors, file, "log_threshold", "d_sae", sizes)
            if ("log_threshold" in tensors)
            else None
        )
        level = take(tensors, file, "threshold", "d_sae", sizes) if log is None else log.exp()
        extra = {"threshold": level}
    _note_precision({"W_enc": W_enc, "W_dec": W_dec}, source)
    subtract = value_of(config, path, "apply_b_dec_to_input", FLAG, True)
    return precise(Weights(W_enc, b_enc, W_dec, b_dec, extra=extra, subtract=subtract))


def _note_precision(matrices: Mapping[str, Tensor], source: _Source) -> None:
    stored = {str(value.dtype).removeprefix("torch.") for value in matrices.values()}
    named = str(source.config.get("dtype", "float32")).removeprefix("torch.")
    how = "rounded to float32" if "float64" in stored else "read as float32, exactly"
    if stored != {"float32"}:
        source.traps.append(f"{source.path}: weights of {', '.join(sorted(stored))}, {how}")
    if stored != {named}:
        source.traps.append(
            f"{source.path}: dtype {named[:20]!r} is what SAELens rounds the stored "
            f"{', '.join(sorted(stored))} to when it loads them; they were read as stored"
        )


def _ours(parts: Weights, source: _Source) -> Weights:
    """The function of the file in raw inputs, under our names."""
    extra = dict(parts.extra)
    if "threshold" in extra:
        # Below 0 a threshold cuts nothing, as only positive values pass at all.
        extra = {"threshold": extra["threshold"].clamp_min(0.0)}
    elif "r_mag" in extra:
        shift = extra["b_mag"] - extra["r_mag"].exp() * parts.b_enc
        extra = {"log_gain": extra["r_mag"], "shift": shift}
    weights = replace(parts, extra=extra)
    if source.rescale:
        weights = by_norm(weights)
    if source.units.scale != 1.0:
        weights = scaled(weights, source.units.scale, source.units.latents(source.rescale))
    return source.units.unwhitened(weights)


def _code(source: _Source, d_sae: int) -> tuple[Code, bool]:
    """The code, and whether its terms in training are known."""
    architecture, config, path = source.architecture, source.config, source.path
    jump = JumpReLU(d_sae=d_sae, l0=1.0, strength=0.0, bandwidth=1.0)
    k = config.get("k")
    # A k of batches is a mean there, and may be a fraction, which only a threshold can be.
    whole = isinstance(k, int | float) and k in range(1, d_sae + 1) and not isinstance(k, bool)
    if architecture == "topk" and not whole:
        raise FormatError(
            f"{path}: k is {str(k)[:40]!r}, where it should be a whole number of 1 to {d_sae}"
        )
    count = int(k) if isinstance(k, int | float) and whole else 1
    widths = config.get("matryoshka_widths")
    defaults: dict[str, Callable[[], Code]] = {
        "topk": lambda: TopK(d_sae=d_sae, k=count),
        "batchtopk": lambda: BatchTopK(d_sae=d_sae, k=count) if whole else jump,
        "matryoshka_batchtopk": lambda: (
            Matryoshka(d_sae=d_sae, k=count, widths=_widths(widths, path, d_sae)) if whole else jump
        ),
        "gated": lambda: Gated(d_sae=d_sae, coefficient=0.0),
        "matching_pursuit": lambda: MatchingPursuit(d_sae=d_sae, k=_rounds(config, path, d_sae)),
        "jumprelu": lambda: jump,
        "jumprelu_transcoder": lambda: jump,
    }
    default = defaults.get(architecture, lambda: L1(d_sae=d_sae, coefficient=0.0))()
    metadata = value_of(config, path, "metadata", TABLE, {})
    code, known = noted(metadata.get(NOTE), default, KINDS[architecture], path)
    has_terms = isinstance(code, L1 | JumpReLU | Gated)
    return code, known or not has_terms


def _widths(found: Any, path: Path, d_sae: int) -> tuple[int, ...]:
    try:
        return Matryoshka(d_sae=d_sae, k=1, widths=tuple(found)).widths
    except (TypeError, ValueError):
        raise FormatError(
            f"{path}: matryoshka_widths is {str(found)[:80]!r}, where it should be whole numbers "
            f"that ascend to d_sae = {d_sae}"
        ) from None


def _rounds(config: Mapping[str, Any], path: Path, d_sae: int) -> int:
    rounds = config.get("max_iterations")
    rounds = config["d_in"] if rounds is None else rounds
    early = config.get("residual_threshold", 1e-2) != 0
    if early or config.get("stop_on_duplicate_support", True):
        raise FormatError(
            f"{path}: its pursuit stops early, by residual_threshold or by "
            "stop_on_duplicate_support, and ours goes a fixed number of rounds: it can be read "
            "where the first is 0 and the second false"
        )
    if not config.get("apply_b_dec_to_input", True):
        raise FormatError(f"{path}: its pursuit leaves b_dec out on both sides, and ours has it")
    if type(rounds) is not int or not 1 <= rounds <= d_sae:
        raise FormatError(
            f"{path}: max_iterations is {str(rounds)[:40]!r}, where our pursuits go 1 to d_sae = "
            f"{d_sae} rounds"
        )
    return rounds


def _firing(path: Path, d_sae: int) -> Float[Tensor, " d_sae"] | None:
    if not path.is_file():
        return None
    found = read_tensors(path).get("sparsity")
    if found is None or list(found.shape) != [d_sae] or not found.is_floating_point():
        raise FormatError(
            f"{path}: 'sparsity' should be the log10 of {d_sae} frequencies, one a latent"
        )
    return torch.pow(10.0, found.double()).float()


def _formula(parts: Weights, source: _Source, code: Code) -> Formula:
    """What SAELens computes from its tensors: training's units outside, its code inside."""
    norm = parts.W_dec.norm(dim=-1)

    def encode(x: Float[Tensor, "batch d_in"]) -> formulas.Encoded:
        if isinstance(code, MatchingPursuit):
            return formulas.pursuit(x, parts.W_dec, parts.b_dec, code.k)
        inner = formulas.product(x, parts.W_enc, parts.b_dec if parts.subtract else None)
        pre = inner.plus(parts.b_enc)
        if "r_mag" in parts.extra:
            gain = parts.extra["r_mag"].exp()
            return formulas.gated(pre, inner.times(gain).plus(parts.extra["b_mag"]))
        pre = pre.times(norm) if source.rescale else pre
        if "threshold" in parts.extra:
            return formulas.jump(pre, parts.extra["threshold"])
        return formulas.topk(pre, code.k) if isinstance(code, TopK) else formulas.relu(pre)

    def decode(z: Float[Tensor, "batch d_sae"]) -> formulas.Decoded:
        return formulas.linear(z / norm if source.rescale else z, parts.W_dec, parts.b_dec)

    return source.units.around(Formula(encode, decode), source.rescale)
