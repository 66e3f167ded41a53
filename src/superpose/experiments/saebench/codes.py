"""The codes of the bench by name, each for a width and a wanted number of active latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from superpose.truth import Mixture
from superpose.unmix import (
    L1,
    BatchTopK,
    Code,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    SAETraining,
    TopK,
    unmix,
)

DIRECT: Mapping[str, Callable[[int, float], Code]] = {
    "TopK": lambda d_sae, l0: TopK(d_sae=d_sae, k=_whole(l0)),
    "BatchTopK": lambda d_sae, l0: BatchTopK(d_sae=d_sae, k=_whole(l0)),
    "Matryoshka": lambda d_sae, l0: Matryoshka(d_sae=d_sae, k=_whole(l0)),
    "JumpReLU": lambda d_sae, l0: JumpReLU(d_sae=d_sae, l0=l0),
    "MatchingPursuit": lambda d_sae, l0: MatchingPursuit(d_sae=d_sae, k=_whole(l0)),
}
"""Codes that are told how many latents shall be active."""

PRICED: Mapping[str, Callable[[int, float], Code]] = {
    "L1": lambda d_sae, price: L1(d_sae=d_sae, coefficient=price),
    "Gated": lambda d_sae, price: Gated(d_sae=d_sae, coefficient=price),
}
"""Codes that are told a price; a pilot finds the price of a wanted number."""

CODES = ("L1", "TopK", "BatchTopK", "JumpReLU", "Gated", "Matryoshka", "MatchingPursuit")

_PRICES = tuple(np.geomspace(0.01, 1.0, 7).tolist())
_PILOT = 1 / 5
_SCORED = 4_096


def _whole(l0: float) -> int:
    return max(1, round(l0))


def codes_for(
    name: str, world: Mixture, d_sae: int, l0: Sequence[float], recipe: tuple[SAETraining, int]
) -> list[Code]:
    """One code for each wanted number of active latents, of a training and its seed.

    A price is found by a pilot: seven prices from 0.01 to 1, trained on a fifth of the samples,
    and the logarithm of the price is interpolated in that of the measured L0. Beyond the pilot's
    range the nearest price is taken; what came out is measured in the end.
    """
    if name in DIRECT:
        return [DIRECT[name](d_sae, wanted) for wanted in l0]
    training, seed = recipe
    pilot = replace(training, samples=max(1, int(training.samples * _PILOT)))
    ladder = [PRICED[name](d_sae, price) for price in _PRICES]
    stacks = unmix(world, ladder, pilot, seeds=1, seed=seed)
    x = world.sample(_SCORED, seed).x
    found = np.array([float((sae[0].encode(x) > 0).sum(-1).double().mean()) for sae in stacks])
    return [PRICED[name](d_sae, price) for price in prices(np.array(_PRICES), found, l0)]


def prices(
    tried: Float[np.ndarray, " prices"], found: Float[np.ndarray, " prices"], l0: Sequence[float]
) -> list[float]:
    """The price of each wanted L0, from those found at some prices that rise.

    >>> [round(price, 3) for price in prices(np.array([0.1, 1.0]), np.array([8.0, 2.0]), [4.0])]
    [0.316]
    """
    # A higher price leaves no more latents active; where noise says so, the least so far counts.
    falling = np.minimum.accumulate(np.maximum(found, 1e-3))
    level = np.interp(np.log(l0), np.log(falling[::-1]), np.log(tried[::-1]))
    return np.exp(level).tolist()
