"""Worlds whose truth is known, to hold dictionaries against: `Mixture`, and what goes into one."""

from superpose.truth.amplitudes import Folded
from superpose.truth.correlations import LowRank
from superpose.truth.directions import (
    Coherence,
    coherence,
    equiangular,
    orthogonalised,
    random_directions,
)
from superpose.truth.firing import Circles, Firing, Together
from superpose.truth.forest import Forest
from superpose.truth.mixture import Drawn, Mixture, Rays
from superpose.truth.probabilities import zipf
from superpose.truth.saelens import from_saelens, read_saelens, synthsaebench, write_saelens

__all__ = [
    "Circles",
    "Coherence",
    "Drawn",
    "Firing",
    "Folded",
    "Forest",
    "LowRank",
    "Mixture",
    "Rays",
    "Together",
    "coherence",
    "equiangular",
    "from_saelens",
    "orthogonalised",
    "random_directions",
    "read_saelens",
    "synthsaebench",
    "write_saelens",
    "zipf",
]
