"""The codes of the bench by name, each for a width and a wanted number of active latents."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

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

_PRICES = tuple(np.geomspace(0.01, 3.0, 9).tolist())
_CLOSER = (0.8, 1.0, 1.25)
_SCORED = 4_096


def _whole(l0: float) -> int:
    return max(1, round(l0))


def pilots(name: str, levels: int) -> int:
    """How many trainings it takes to find the codes of so many wanted numbers."""
    return 0 if name in DIRECT else len(_PRICES) + levels * len(_CLOSER)


def codes_for(
    name: str,
    world: Mixture,
    d_sae: int,
    l0: Sequence[float],
    recipe: tuple[SAETraining, int],
    tell: Callable[[int], None],
) -> list[Code]:
    """One code for each wanted number of active latents, of a training and its seed.

    `tell` hears how many of the `pilots` are done.

    A price is found by a pilot: nine prices from 0.01 to 3, each trained to the end (what a price
    leaves active falls for as long as training lasts), then three around each of those that the
    first nine say. The logarithm of the price is interpolated in that of the measured L0. Beyond
    the pilot's range the nearest price is taken; what came out is measured in the end.
    """
    if name in DIRECT:
        return [DIRECT[name](d_sae, wanted) for wanted in l0]
    training, seed = recipe
    x = world.sample(_SCORED, seed).x

    def active(tried: list[float], before: int) -> list[float]:
        ladder = [PRICED[name](d_sae, price) for price in tried]
        stacks = unmix(world, ladder, training, seeds=1, seed=seed)
        tell(before + len(tried))
        return [float((sae[0].encode(x) > 0).sum(-1).double().mean()) for sae in stacks]

    tried, found = list(_PRICES), active(list(_PRICES), 0)
    closer = [price * step for price in prices(tried, found, l0) for step in _CLOSER]
    chosen = prices(tried + closer, found + active(closer, len(tried)), l0)
    return [PRICED[name](d_sae, price) for price in chosen]


def prices(tried: Sequence[float], found: Sequence[float], l0: Sequence[float]) -> list[float]:
    """The price of each wanted L0, from those found at some prices.

    >>> [round(price, 3) for price in prices([0.1, 1.0], [8.0, 2.0], [4.0])]
    [0.316]
    """
    order = np.argsort(tried)
    # A higher price leaves no more latents active; where noise says so, the least so far counts.
    falling = np.minimum.accumulate(np.maximum(np.array(found)[order], 1e-3))
    level = np.interp(np.log(l0), np.log(falling[::-1]), np.log(np.array(tried)[order][::-1]))
    return np.exp(level).tolist()
