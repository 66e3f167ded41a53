"""What a latent that is on costs, before the coefficient."""

import numpy as np

from superpose.kernels.autoencoder.compiling import inner
from superpose.kernels.compiling import FASTMATH

ABS, SQRT, TANH, JUMP, GATE = range(5)
"""Codes whose latents are on above a level: three that pay for how large they are, one that pays
for how many exceed a trained level, and one whose gates pay for how open they are."""

ROUNDING, SATURATION = np.float32(1e-3), np.float32(4.0)  # as the codes have them
ZERO, ONE, TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


@inner(fastmath=FASTMATH)
def price(z, kind):
    """The price of a latent."""
    if kind == SQRT:
        return np.sqrt(z + ROUNDING) - np.sqrt(ROUNDING)
    if kind == TANH:
        fallen = np.exp(-TWO * SATURATION * z)
        return (ONE - fallen) / (ONE + fallen) / SATURATION
    return z


@inner(fastmath=FASTMATH)
def price_slope(z, kind):
    """How fast it rises."""
    if kind == SQRT:
        return ONE / (TWO * np.sqrt(z + ROUNDING))
    if kind == TANH:
        fallen = np.exp(-TWO * SATURATION * z)
        return TWO * TWO * fallen / ((ONE + fallen) * (ONE + fallen))
    return ONE
