"""Folders of a SAELens `SyntheticModel`: what is in them, and what their reader makes of it."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from superpose.features import Constant, Features, Independent
from superpose.records import RecordError, write_bytes, write_text
from superpose.truth.amplitudes import Folded
from superpose.truth.correlations import LowRank
from superpose.truth.firing import Firing
from superpose.truth.mixture import Mixture
from superpose.truth.saelens.configurations import magnitudes, probabilities
from superpose.truth.saelens.hierarchies import formatted, parsed

CONFIGURATION, TENSORS = "synthetic_model_config.json", "synthetic_model.safetensors"
HIERARCHY = "hierarchy.json"

# Probabilities and magnitudes are float32 there.
_CLOSE = 1e-5


def read_saelens(folder: str | Path) -> Mixture:
    """The world of a folder that SAELens saved a `SyntheticModel` to.

    Directions, bias, probabilities, correlations and the hierarchy are those saved; magnitudes are
    drawn again from the configuration, as SAELens does. It takes the thresholds of correlated
    features from the configuration as well: where they contradict the probabilities beside them
    there is a warning, and they count.
    Raises RecordError for files that are missing, damaged or do not fit.
    """
    folder = Path(folder)
    configuration = _json(folder / CONFIGURATION)
    tensors = _tensors(folder / TENSORS)
    try:
        n, d = int(configuration["num_features"]), int(configuration["hidden_dim"])
        shapes = {"feature_vectors": (n, d), "bias": (d,), "firing_probabilities": (n,)}
        for name, shape in shapes.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                raise ValueError(f"{TENSORS}: {name} is to be there, of shape {list(shape)}")
        forest, correlation = None, None
        if (folder / HIERARCHY).exists():
            forest = parsed(n, _json(folder / HIERARCHY).get("roots"))
        p = tensors["firing_probabilities"].double().numpy()
        if (factor := tensors.get("correlation_factor")) is not None:
            correlation = LowRank(factor.double().numpy())
            drawn_with = probabilities(configuration, forest)
            if not np.allclose(p, drawn_with, atol=_CLOSE):
                warnings.warn(
                    f"{folder}: firing_probabilities differ from those of {CONFIGURATION}, which "
                    "SAELens takes the thresholds of correlated features from; so does this world",
                    stacklevel=2,
                )
                p = drawn_with
        amplitude = Folded(*magnitudes(configuration))
        firing = Firing(p=p, amplitude=amplitude, correlation=correlation, forest=forest)
        world = Mixture(firing, tensors["feature_vectors"], tensors["bias"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{folder}: no SyntheticModel of SAELens that can be read ({error})"
        ) from None
    world.configuration = configuration
    return world


def write_saelens(world: Mixture, folder: str | Path) -> Path:
    """Write a world as a folder that `SyntheticModel.load_from_disk` of SAELens reads.

    It can hold features that fire alone, under a forest or with a `LowRank` correlation, of a
    constant magnitude or a `Folded` one whose means and deviations are constant, linear or
    geometric in the number of the feature; or any world that came from SAELens. Raises ValueError
    for others, and FileExistsError where the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: not empty; write to a new folder")
    if world.noise or world.n != world.features.n:
        raise ValueError(
            "write_saelens: SAELens has no noise, and no features beside those of the truth; build "
            "the world without them"
        )
    firing = _firing(world)
    configuration = _configuration(world, firing)
    tensors = {
        "feature_vectors": world.directions,
        "bias": world.bias,
        "firing_probabilities": torch.from_numpy(firing.p.copy()).float(),
    }
    if firing.correlation is not None:
        factor = torch.from_numpy(firing.correlation.factor.copy()).float()
        tensors["correlation_factor"] = factor
        tensors["correlation_diag"] = 1.0 - (factor**2).sum(1)
    trees = [] if firing.forest is None else formatted(firing.forest)
    write_text(folder / CONFIGURATION, json.dumps(configuration, indent=2))
    write_bytes(folder / TENSORS, save(tensors))
    if trees:
        write_text(folder / HIERARCHY, json.dumps({"roots": trees}, indent=2))
    return folder


def _firing(world: Mixture) -> Firing:
    """The features as `Firing`; raises ValueError for those that are not."""
    features = world.features
    if isinstance(features, Features) and isinstance(features.law, Independent):
        features = (
            Firing(n=features.n, p=features.probability, amplitude=features.amplitude)
            if not features.signed
            else features
        )
    if not isinstance(features, Firing) or not isinstance(features.amplitude, Folded | Constant):
        raise ValueError(
            "write_saelens: SAELens knows features that fire, of constant or Folded magnitudes, "
            f"not {type(features).__name__} of other laws; see truth.Firing"
        )
    return features


def _configuration(world: Mixture, firing: Firing) -> dict[str, Any]:
    """The configuration from which SAELens completes what the other files leave open."""
    known = world.configuration
    if known is not None and _says(known, firing):
        return {**known, "num_features": world.n, "hidden_dim": world.d}
    if firing.correlation is not None:
        raise ValueError(
            "write_saelens: SAELens takes the thresholds of correlated features from its "
            "configuration alone, so their probabilities cannot be chosen freely: build the world "
            "with from_saelens(configuration)"
        )
    amplitude = firing.amplitude
    std = amplitude.std if isinstance(amplitude, Folded) else 0.0
    # SAELens replaces these probabilities by those in the tensors; it wants them in (0, 1].
    low, high = (float(np.clip(end, 1e-6, 1.0)) for end in (firing.p.min(), firing.p.max()))
    return {
        "num_features": world.n,
        "hidden_dim": world.d,
        "firing_probability": {"max_prob": high, "min_prob": low, "generator_name": "linear"},
        "hierarchy": None,
        "orthogonalization": None,
        "correlation": None,
        "std_firing_magnitudes": _spec("std", std, world.n),
        "mean_firing_magnitudes": _spec("mean", amplitude.mean, world.n),
        "bias": float(world.bias.norm()),
        "dtype": "float32",
        "seed": None,
    }


def _says(configuration: Mapping[str, Any], firing: Firing) -> bool:
    """Whether SAELens would draw magnitudes, and thresholds where they matter, as these are."""
    if not isinstance(firing.amplitude, Folded):
        return False
    mean, std = magnitudes(configuration)
    same = np.allclose(mean, firing.amplitude.mean) and np.allclose(std, firing.amplitude.std)
    if same and firing.correlation is not None:
        same = np.allclose(probabilities(configuration, firing.forest), firing.p, atol=_CLOSE)
    return bool(same)


def _spec(name: str, values: Any, n: int) -> float | dict[str, Any]:
    """A law of SAELens for the sizes of all features; raises ValueError where it has none."""
    sizes = np.broadcast_to(np.asarray(values, np.float64), (n,))
    start, end = float(sizes[0]), float(sizes[-1])
    if np.allclose(sizes, start, rtol=1e-6):
        return start
    if min(start, end) > 0:
        for kind, line in (("linear", np.linspace), ("exponential", np.geomspace)):
            if np.allclose(sizes, line(start, end, n), rtol=1e-6):
                return {"start": start, "end": end, "generator_name": kind}
    raise ValueError(
        f"write_saelens: SAELens has no law for these values of {name}: it keeps none, and draws "
        "them from a configuration; make them constant, linear or geometric, or build the world "
        "with from_saelens(configuration)"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(found, dict):
        raise RecordError(f"{path}: not a JSON object")
    return found


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path}: not readable as safetensors ({error})") from None
