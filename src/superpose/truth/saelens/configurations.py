"""A SAELens `SyntheticModelConfig`, as plain JSON data, and the world that it describes.

Everything drawn is drawn as SAELens does on a CPU, from the same seeds: probabilities, magnitudes
and hierarchies are equal, directions up to rounding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.truth.amplitudes import Folded
from superpose.truth.correlations import LowRank, capped
from superpose.truth.directions import orthogonalised
from superpose.truth.firing import Firing
from superpose.truth.forest import Forest
from superpose.truth.mixture import Mixture
from superpose.truth.probabilities import zipf
from superpose.truth.saelens.hierarchies import grown

# What each part of a world draws with is the configuration's seed and so much.
STDS, MEANS, HIERARCHY, CORRELATION = range(1, 5)


def from_saelens(configuration: Mapping[str, Any]) -> Mixture:
    """The world of a `SyntheticModelConfig` of SAELens, given as its JSON.

    On a CPU SAELens builds the same world from it; on a GPU its generator draws other directions,
    bias and correlations. Raises ValueError for configurations that lack a seed or are not known.

    >>> flat = {"generator_name": "linear", "max_prob": 0.2, "min_prob": 0.1}
    >>> world = from_saelens({"num_features": 3, "hidden_dim": 2, "firing_probability": flat,
    ...                       "bias": False, "seed": 0})
    >>> world.probability.round(3)
    array([0.2 , 0.15, 0.1 ])
    """
    n, seed = int(configuration["num_features"]), configuration.get("seed")
    if seed is None:
        raise ValueError(
            "from_saelens: the configuration has no seed, so each time it is another world; give "
            "it one, or save the model with SAELens and read its folder"
        )
    section, forest, correlation = configuration.get("hierarchy"), None, None
    if section is not None:
        forest = grown(n, section, seed + HIERARCHY)
    if (shared := configuration.get("correlation")) is not None:
        draw = torch.Generator().manual_seed(seed + CORRELATION)
        factor = torch.randn(n, shared["rank"], generator=draw) * shared["correlation_scale"]
        correlation = LowRank(capped(factor.double().numpy()))
    W, bias = _directions(configuration, n, seed)
    firing = Firing(
        p=probabilities(configuration, forest),
        amplitude=Folded(*magnitudes(configuration)),
        correlation=correlation,
        forest=forest,
    )
    world = Mixture(firing, W, bias)
    world.configuration = dict(configuration)
    return world


def probabilities(
    configuration: Mapping[str, Any], forest: Forest | None
) -> Float[np.ndarray, " n"]:
    """The probability of each feature to fire, raised for a hierarchy where that is asked for."""
    spec, n = dict(configuration["firing_probability"]), int(configuration["num_features"])
    kind = spec.pop("generator_name")
    low, high = spec.get("min_prob", 0.01), spec.get("max_prob", 0.5 if kind == "random" else 0.3)
    if kind == "zipfian":
        found = zipf(n, spec.get("exponent", 1.0), high, low)
    elif kind == "linear":
        found = np.linspace(high, low, n)
    elif kind == "random":
        draw = _generator(configuration, 0, "probabilities")
        found = low + (high - low) * torch.rand(n, generator=draw).double().numpy()
    else:
        raise ValueError(
            f"SAELens: firing probabilities of kind {kind!r}; zipfian, linear and random are known"
        )
    section = configuration.get("hierarchy")
    if forest is not None and section is not None and section.get("compensate_probabilities"):
        found = forest.compensated(found, exact=False)
    return found


def magnitudes(
    configuration: Mapping[str, Any],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean and deviation of each feature's magnitude."""
    mean = _sizes(configuration, "mean_firing_magnitudes", 1.0, MEANS)
    return mean, _sizes(configuration, "std_firing_magnitudes", 0.0, STDS)


def _sizes(
    configuration: Mapping[str, Any], name: str, default: float, offset: int
) -> Float[np.ndarray, " n"]:
    n, spec = int(configuration["num_features"]), configuration.get(name, default)
    if not isinstance(spec, Mapping):
        return np.full(n, float(spec))
    kind = spec.get("generator_name")
    if kind == "constant":
        return np.full(n, float(spec.get("value", 1.0)))
    if kind == "linear":
        return np.linspace(spec["start"], spec["end"], n)
    if kind == "exponential":
        return np.geomspace(spec["start"], spec["end"], n)
    if kind == "folded_normal":
        drawn = torch.randn(n, generator=_generator(configuration, offset, name)).double().numpy()
        size = np.abs(spec.get("mean", 0.0) + spec.get("std", 0.1) * drawn)
        return np.clip(size, spec.get("min_value"), spec.get("max_value"))
    raise ValueError(
        f"SAELens: {name} of kind {kind!r}; constant, linear, exponential and folded_normal are "
        "known"
    )


def _generator(configuration: Mapping[str, Any], offset: int, what: str) -> torch.Generator:
    seed = configuration.get("seed")
    if seed is None:
        raise ValueError(
            f"SAELens: {what} were drawn at random without a seed, and are kept nowhere else; save "
            "the model with a seed"
        )
    return torch.Generator().manual_seed(seed + offset)


def _directions(configuration: Mapping[str, Any], n: int, seed: int) -> tuple[Tensor, Tensor]:
    d, norm = int(configuration["hidden_dim"]), float(configuration.get("bias", 1.0))
    draw = torch.Generator().manual_seed(seed)
    W = torch.nn.functional.normalize(torch.randn(n, d, generator=draw), dim=1)
    bias = torch.zeros(d)
    if norm:
        bias = norm * torch.nn.functional.normalize(torch.randn(d, generator=draw), dim=0)
    if (apart := configuration.get("orthogonalization")) is not None:
        W = orthogonalised(W, apart.get("num_steps", 200), apart.get("lr", 0.01))
    return W, bias
