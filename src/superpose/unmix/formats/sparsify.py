"""Sparsify: cfg.json and sae.safetensors in the folder of a hookpoint."""

from pathlib import Path

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from superpose.records import write_text
from superpose.records.files import pretty_json
from superpose.unmix.codes import TopK
from superpose.unmix.formats import formulas
from superpose.unmix.formats.files import (
    COUNT,
    COUNT_OR_ZERO,
    FLAG,
    TEXT,
    FormatError,
    read_json,
    read_tensors,
    take,
    value_of,
)
from superpose.unmix.formats.formulas import Formula
from superpose.unmix.formats.pieces import NOTE, Draft, Reading, finished, note, noted
from superpose.unmix.sae import SAE
from superpose.unmix.weights import Weights

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

READ_BY_SAELENS = (
    "SAELens 6.54.12 reads sparsify folders with the decoder transposed (an error, or silently "
    'another dictionary where d_sae = d_in); give it format="saelens" instead'
)


def parse(folder: Path) -> Reading:
    """Read the folder of one hookpoint; raises FormatError."""
    path = folder / CONFIG
    config = read_json(path)
    activation = value_of(config, path, "activation", TEXT, "topk")
    if activation != "topk":
        raise FormatError(
            f"{path}: activation {activation!r} keeps the largest of each group of latents, and "
            "only topk is known here"
        )
    for key, why in (
        ("skip_connection", "a linear path W_skip beside the latents"),
        ("signed", "latents of either sign"),
    ):
        if value_of(config, path, key, FLAG, False):
            raise FormatError(f"{path}: {key} adds {why}, which our dictionaries do not have")
    d_in = value_of(config, path, "d_in", COUNT)
    latents = value_of(config, path, "num_latents", COUNT_OR_ZERO, 0)
    latents = latents or d_in * value_of(config, path, "expansion_factor", COUNT, 32)
    k = value_of(config, path, "k", COUNT, 32)
    if k > latents:
        raise FormatError(f"{path}: k = {k} latents of {latents} cannot be kept; k is at most that")
    subtract = not value_of(config, path, "transcode", FLAG, False)
    file, sizes = folder / WEIGHTS, {"d_in": d_in, "d_sae": latents}
    tensors = read_tensors(file)
    if "W_skip" in tensors:
        raise FormatError(f"{file}: W_skip is a linear path, which our dictionaries do not have")
    E = take(tensors, file, "encoder.weight", "d_sae d_in", sizes)
    b_enc = take(tensors, file, "encoder.bias", "d_sae", sizes)
    W_dec = take(tensors, file, "W_dec", "d_sae d_in", sizes)
    b_dec = take(tensors, file, "b_dec", "d_in", sizes)

    def encode(x: Float[Tensor, "batch d_in"]) -> formulas.Encoded:
        pre = formulas.product(x, E.T, b_dec if subtract else None).plus(b_enc)
        return formulas.topk(pre, k)

    def decode(z: Float[Tensor, "batch d_sae"]) -> formulas.Decoded:
        return formulas.linear(z, W_dec, b_dec)

    default = TopK(d_sae=latents, k=k)
    code, _ = noted(config.get(NOTE), default, ("TopK",), path)
    weights = Weights(E.T, b_enc, W_dec, b_dec, subtract=subtract)
    return Reading(finished(weights, code), Formula(encode, decode))


def draft(sae: SAE) -> Draft:
    """One member as sparsify keeps it; raises FormatError for what it does not know."""
    if not isinstance(sae.code, TopK):
        raise FormatError(
            f'save(format="sparsify"): {type(sae.code).__name__} is not known there, only TopK '
            'is; choose "saelens" or "dictionary_learning"'
        )
    d_in, d_sae = sae.W_enc.shape
    if sae.W_dec.shape[-1] != d_in:
        raise FormatError(
            f'save(format="sparsify"): input and output have {d_in} and {sae.W_dec.shape[-1]} '
            "dimensions, and sparsify knows one size for both"
        )
    config = {
        "activation": "topk",
        "expansion_factor": max(1, d_sae // d_in),
        "normalize_decoder": True,
        "num_latents": d_sae,
        "k": sae.code.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": not sae.subtract,
        "d_in": d_in,
        NOTE: note(sae.code),
    }
    tensors = {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in tensors.items()}
    return Draft(config, tensors, (READ_BY_SAELENS,))


def write(folder: Path, drawn: Draft) -> None:
    """Put a draft into a folder."""
    write_text(folder / CONFIG, pretty_json(drawn.config))
    save_file(drawn.tensors, folder / WEIGHTS)
