"""What is in the world: sparse features, how often each is active, how large and with which."""

from superpose.features.amplitudes import Amplitude, Constant, Exponential, HalfNormal, Uniform
from superpose.features.laws import Anticorrelated, Correlated, Finite, Independent, Law
from superpose.features.points import Points
from superpose.features.world import Features

__all__ = [
    "Amplitude",
    "Anticorrelated",
    "Constant",
    "Correlated",
    "Exponential",
    "Features",
    "Finite",
    "HalfNormal",
    "Independent",
    "Law",
    "Points",
    "Uniform",
]
