"""Worlds of every law, small, for the tests of what they all keep."""

import numpy as np

from superpose.features import Exponential, Features, HalfNormal
from superpose.truth import Circles, Firing, Folded, Forest, LowRank, Together, zipf

NESTED = Forest(
    [-1, -1, 0, 0, 0, 2, 2, 1, -1],
    exclusive=[True, False, True, False, False, False, False, False, False],
)
FALLING = zipf(9, exponent=0.5, p_max=0.6, p_min=0.1)

WORLDS = {
    "independent": Features(n=6, p=(0.5, 0.3, 0.2, 0.1, 0.05, 1.0)),
    "signed": Features(n=4, p=0.3, signed=True, amplitude=Exponential(0.5)),
    "correlated": Features.correlated(sets=3, size=2, p=(0.5, 0.2, 0.1)),
    "anticorrelated": Features.anticorrelated(sets=2, size=4, p=(0.8, 0.3)),
    "exactly one": Features.exactly_one(n=5, amplitude=HalfNormal(2.0)),
    "finite": Features.finite(np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])),
    "Zipf": Firing(p=FALLING),
    "folded": Firing(n=9, p=0.4, amplitude=Folded(np.linspace(0.0, 2.0, 9), 1.0)),
    "forest": Firing(p=FALLING, forest=NESTED),
    "low rank": Firing(p=FALLING, correlation=LowRank.random(9, rank=2, scale=0.5, seed=1)),
    "low rank and forest": Firing(
        p=FALLING,
        amplitude=Folded(1.0, 0.7),
        correlation=LowRank.random(9, rank=3, scale=0.4, seed=2),
        forest=NESTED,
    ),
    "circles": Circles(count=3, p=0.2),
    "together": Together(Features(n=2, p=0.3), Circles(count=1, p=0.4), Firing(n=2, p=0.1)),
}
