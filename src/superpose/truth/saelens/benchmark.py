"""The world of SynthSAEBench, at the size it was published and at a sixteenth of it."""

from typing import Any

from superpose.truth.mixture import Mixture
from superpose.truth.saelens.configurations import from_saelens

# Features, dimensions and roots. A sixteenth of the features has a quarter of the active ones, for
# which a sixteenth of the dimensions (48) would be tighter than the published world is; see
# docs/truth.md for what 64 give.
_SIZES = {1.0: (16_384, 768, 128), 1 / 16: (1_024, 64, 8)}


def synthsaebench(scale: float = 1.0, seed: int = 42) -> Mixture:
    """SynthSAEBench-16k v2, built from its published configuration; `scale=1/16` is a small one.

    16,384 features in 768 dimensions, Zipf's law from .4 to 5e-4, 128 trees of four exclusive
    children to a depth of three that are scaled by their parents, weak correlations of rank 25,
    folded normal magnitudes, directions pushed apart, a bias. At 1/16 it is 1,024 features in 64
    dimensions and 8 trees, with the same laws. The laws are those of the released model; its
    directions were drawn on a GPU, which no seed gives on a CPU: its folder is read by
    `read_saelens`. At full size it takes 90 s of one core and 0.9 GB.
    Raises ValueError for other scales.
    Source: Chanin and Garriga-Alonso, SynthSAEBench (arXiv 2602.14687).

    >>> synthsaebench(scale=1/16)
    Mixture(n=1024, d=64, noise=0)
    """
    if scale not in _SIZES:
        raise ValueError(f"synthsaebench(scale={scale!r}): 1, as published, or 1/16")
    return from_saelens(configuration(*_SIZES[scale], seed))


def configuration(features: int, dims: int, roots: int, seed: int) -> dict[str, Any]:
    """The published configuration of v2, for other sizes, as SAELens writes it."""
    return {
        "num_features": features,
        "hidden_dim": dims,
        "firing_probability": {
            "exponent": 0.5,
            "max_prob": 0.4,
            "min_prob": 5e-4,
            "generator_name": "zipfian",
        },
        "hierarchy": {
            "total_root_nodes": roots,
            "branching_factor": 4,
            "max_depth": 3,
            "mutually_exclusive_portion": 1.0,
            "mutually_exclusive_min_depth": 0,
            "mutually_exclusive_max_depth": None,
            "compensate_probabilities": True,
            "scale_children_by_parent": True,
        },
        "orthogonalization": {"num_steps": 100, "lr": 3e-4, "chunk_size": 1024},
        "correlation": {"rank": 25, "correlation_scale": 0.1, "seed": None},
        "std_firing_magnitudes": {
            "mean": 0.5,
            "std": 0.5,
            "min_value": None,
            "max_value": None,
            "generator_name": "folded_normal",
        },
        "mean_firing_magnitudes": {"start": 5.0, "end": 4.0, "generator_name": "linear"},
        "bias": 0.5,
        "dtype": "float32",
        "seed": seed,
    }
