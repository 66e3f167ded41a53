"""The worlds of the bench by name: each seed draws another of the same law."""

from collections.abc import Callable, Mapping

from superpose.engine import Training, train
from superpose.features import Features
from superpose.models import ToyModel
from superpose.truth import (
    Firing,
    Folded,
    Forest,
    LowRank,
    Mixture,
    random_directions,
    synthsaebench,
    zipf,
)

_AMPLITUDE = Folded(1.0, 0.25)


def linear(seed: int) -> Mixture:
    """128 equally frequent, independent features in 48 random dimensions, four on in the mean."""
    firing = Firing(p=4 / 128, n=128, amplitude=_AMPLITUDE)
    return Mixture(firing, random_directions(128, 48, seed))


def zipfian(seed: int) -> Mixture:
    """As many in as many dimensions, of Zipf's frequencies and with correlations of low rank."""
    firing = Firing(
        p=zipf(128, 1.0, 0.3, 0.01),
        amplitude=_AMPLITUDE,
        correlation=LowRank.random(128, 8, 0.2, seed),
    )
    return Mixture(firing, random_directions(128, 48, seed))


def hierarchy(seed: int) -> Mixture:
    """Ten trees of three exclusive children, two levels deep: 130 features in 48 dimensions."""
    forest = Forest.regular(130, roots=10, branching=3, depth=2, exclusive=True)
    firing = Firing(p=[0.15] * 10 + [0.25] * 120, amplitude=_AMPLITUDE, forest=forest)
    return Mixture(firing, random_directions(130, 48, seed))


def toy(seed: int) -> Mixture:
    """The hidden layer of a trained toy model: 60 features that found their places in 20."""
    world = Features(n=60, p=0.05)
    run = train(ToyModel(n=60, m=20), world, Training(steps=4_000), runs=1, seed=seed)
    return Mixture.of(run.best())


def synthetic(seed: int) -> Mixture:
    """SynthSAEBench at a sixteenth of its size: 1,024 features in 64 dimensions."""
    return synthsaebench(1 / 16, seed)


WORLDS: Mapping[str, Callable[[int], Mixture]] = {
    "linear": linear,
    "zipf": zipfian,
    "hierarchy": hierarchy,
    "toy": toy,
    "synthsaebench": synthetic,
}
"""Each world by its name: a function of the seed."""
