"""To SAELens: a finished SAE under the architecture that computes the same function."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from superpose import __version__
from superpose.records import write_text
from superpose.records.files import pretty_json
from superpose.unmix.codes import MatchingPursuit, TopK
from superpose.unmix.formats.files import FormatError
from superpose.unmix.formats.pieces import NOTE, Draft, norms_differ, note, precise
from superpose.unmix.formats.saelens import CONFIG, SPARSITY, WEIGHTS
from superpose.unmix.sae import SAE

# Whose loader the files are written for: below 6 it would rewrite the configuration.
_LOADER = "6.54.12"
_UNIT = 1e-3
_LEAST_FREQUENCY = 1e-10

_ARCHITECTURES = {
    "L1": "standard",
    "TopK": "topk",
    "JumpReLU": "jumprelu",
    "BatchTopK": "jumprelu",
    "Matryoshka": "jumprelu",
    "Gated": "gated",
    "MatchingPursuit": "matching_pursuit",
}
_TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}


def draft(sae: SAE, firing: Float[Tensor, " d_sae"] | None = None) -> Draft:
    """One member as SAELens keeps it; raises FormatError for what it does not know."""
    architecture = _architecture(sae)
    d_in, d_sae = sae.W_enc.shape
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _LOADER,
            "sae_lens_training_version": None,
            "training_architecture": type(sae.code).__name__.lower(),
            "superpose_version": __version__,
            NOTE: note(sae.code),
        },
    }
    weights = precise(sae)
    tensors = {"W_dec": weights.W_dec, "b_dec": weights.b_dec}
    if architecture in _TRANSCODERS.values():
        config["d_out"] = sae.W_dec.shape[-1]
    if isinstance(sae.code, MatchingPursuit):
        config |= {
            "residual_threshold": 0.0,
            "max_iterations": sae.code.k,
            "stop_on_duplicate_support": False,
        }
    else:
        bias = "b_gate" if architecture == "gated" else "b_enc"
        tensors |= {"W_enc": weights.W_enc, bias: weights.b_enc}
    if isinstance(sae.code, TopK):
        config |= {"k": sae.code.k, "rescale_acts_by_decoder_norm": False}
    if architecture == "gated":
        gain = weights.extra["log_gain"]
        shift = weights.extra["shift"] + gain.exp() * weights.b_enc
        tensors |= {"r_mag": gain, "b_mag": shift}
    elif "threshold" in weights.extra:
        tensors["threshold"] = weights.extra["threshold"]
    tensors = {name: value.float().contiguous() for name, value in tensors.items()}
    if firing is not None:
        tensors[SPARSITY] = _sparsity(firing, d_sae)
    worst = norms_differ(sae, _UNIT)
    trap = (
        f"decoder rows have norms that differ from 1 by up to {worst:.2g}: SAEBench and others "
        "that read SAELens folders warn of it, or renormalise them and so change the latents",
    )
    return Draft(config, tensors, trap if worst else ())


def _architecture(sae: SAE) -> str:
    name = type(sae.code).__name__
    architecture = _ARCHITECTURES.get(name)
    if architecture is None:
        raise FormatError(
            f'save(format="saelens"): {name} is not known there; keep it as superpose'
        )
    if sae.subtract:
        return architecture
    if architecture in _TRANSCODERS:
        return _TRANSCODERS[architecture]
    if architecture == "matching_pursuit" or sae.W_dec.shape[-1] != sae.W_enc.shape[-2]:
        raise FormatError(
            f'save(format="saelens"): a transcoder with the code {name} is not known there, only '
            "with L1, JumpReLU, BatchTopK or Matryoshka is"
        )
    return architecture


def _sparsity(firing: Float[Tensor, " d_sae"], d_sae: int) -> Float[Tensor, " d_sae"]:
    if list(firing.shape) != [d_sae] or not bool(((firing >= 0) & (firing <= 1)).all()):
        raise FormatError(
            f'save(format="saelens"): firing of shape {list(firing.shape)} should be {d_sae} '
            "shares of samples between 0 and 1, one a latent of each member"
        )
    return torch.log10(firing.detach().cpu().double() + _LEAST_FREQUENCY).float()


def write(folder: Path, drawn: Draft) -> None:
    """Put a draft into a folder."""
    write_text(folder / CONFIG, pretty_json(drawn.config))
    tensors = dict(drawn.tensors)
    sparsity = tensors.pop(SPARSITY, None)
    save_file(tensors, folder / WEIGHTS)
    if sparsity is not None:
        save_file({"sparsity": sparsity}, folder / SPARSITY)
