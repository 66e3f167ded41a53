"""Which features are active together."""

from dataclasses import dataclass

from superpose.features.points import Points


@dataclass(frozen=True, slots=True)
class Independent:
    """Every feature is a set of its own: active or not regardless of the others."""

    size = 1
    exclusive = False


@dataclass(frozen=True, slots=True)
class Correlated:
    """The `size` members of a set are on or off together; their magnitudes are independent."""

    size: int
    exclusive = False


@dataclass(frozen=True, slots=True)
class Anticorrelated:
    """At most one of the `size` members of a set is on: when the set is, one chosen uniformly."""

    size: int
    exclusive = True


@dataclass(frozen=True, slots=True)
class Finite:
    """One of a data set's points, each as likely: features come as they do there."""

    points: Points
    size = 1
    exclusive = False


Law = Independent | Correlated | Anticorrelated | Finite
