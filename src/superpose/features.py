"""What is in the world: sparse features, how often each is active, how large and with which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.special import erfcinv
from torch import Tensor


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


Law = Independent | Correlated | Anticorrelated


@dataclass(frozen=True, slots=True)
class Uniform:
    """An active feature is uniform on (0, 1]."""

    mean = 1 / 2
    square = 1 / 3

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return u


@dataclass(frozen=True, slots=True)
class Exponential:
    """The magnitude of an active feature has density $e^{-x/s} / s$; its mean is `scale` $s$."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("Exponential", "scale", self.scale)

    @property
    def mean(self) -> float:
        """Mean of a magnitude, $s$."""
        return self.scale

    @property
    def square(self) -> float:
        """Mean square of a magnitude, $2 s^2$."""
        return 2 * self.scale**2

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return (-self.scale * np.log(u)).astype(u.dtype)


@dataclass(frozen=True, slots=True)
class HalfNormal:
    """The magnitude of an active feature is that of a normal number of deviation `scale`."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("HalfNormal", "scale", self.scale)

    @property
    def mean(self) -> float:
        r"""Mean of a magnitude, $s \sqrt{2 / \pi}$."""
        return self.scale * (2 / np.pi) ** 0.5

    @property
    def square(self) -> float:
        """Mean square of a magnitude, $s^2$."""
        return self.scale**2

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return (self.scale * 2**0.5 * erfcinv(u)).astype(u.dtype)


@dataclass(frozen=True, slots=True)
class Constant:
    """The magnitude of an active feature is always `value`: binary features."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("Constant", "value", self.value)

    @property
    def mean(self) -> float:
        """Mean of a magnitude, `value`."""
        return self.value

    @property
    def square(self) -> float:
        """Mean square of a magnitude, `value` squared."""
        return self.value**2

    def magnitudes(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Magnitudes of this law from numbers that are uniform on (0, 1]."""
        return np.full_like(u, self.value)


Amplitude = Uniform | Exponential | HalfNormal | Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    r"""`n` sparse features: zero most of the time, of a random magnitude when active.

    `p` is the probability that a feature is active (the papers' $1 - S$): one number, or one
    for each feature; under a law of sets it is the probability that the *set* is on, one
    number or one for each set. `importance` weights the squared error: a ratio $r$ means
    $I_i = r^i$ (1 makes all equal), a sequence gives every $I_i$. `amplitude` is the law of a
    magnitude: `Uniform()` on (0, 1], `Exponential(scale)`, `HalfNormal(scale)` or
    `Constant(value)`; where `signed`, an active feature is negative half of the time. Features
    are inert: equal arguments make equal, hashable worlds.

    Moments of an independent, uniform feature: $E x = p/2$, $E x^2 = p/3$,
    $Var\, x = p/3 - p^2/4$.
    Raises ValueError for a `p` outside (0, 1], a negative importance, a scale that is not
    positive or mismatched lengths.
    Source: Toy Models of Superposition, section 2 (the feature distribution).

    >>> world = Features(n=4, p=0.5, importance=0.7)
    >>> world.sample(3, seed=1).shape
    torch.Size([3, 4])
    >>> world == Features(n=4, p=0.5, importance=0.7)
    True
    """

    n: int
    p: float | Sequence[float] = 0.1
    importance: float | Sequence[float] = 1.0
    law: Law = Independent()
    amplitude: Amplitude = Uniform()
    signed: bool = False

    def __post_init__(self) -> None:
        _check_count("n", self.n)
        _check_count("size", self.law.size)
        if self.n % self.law.size:
            raise ValueError(
                f"Features(n={self.n}) with sets of {self.law.size}: "
                "n must be a whole number of sets"
            )
        object.__setattr__(self, "p", _scalar_or_tuple("p", self.p, self.sets))
        object.__setattr__(
            self, "importance", _scalar_or_tuple("importance", self.importance, self.n)
        )
        if not isinstance(self.amplitude, Amplitude) or not isinstance(self.signed, bool):
            raise ValueError(
                f"Features(amplitude={self.amplitude!r}, signed={self.signed!r}): an amplitude is "
                "Uniform(), Exponential(scale), HalfNormal(scale) or Constant(value), and signed "
                "is True or False"
            )
        _check_p(self.p)
        _check_importance(self.importance)

    @classmethod
    def correlated(
        cls,
        *,
        sets: int,
        size: int,
        p: float | Sequence[float],
        importance: float | Sequence[float] = 1.0,
        amplitude: Amplitude = Uniform(),
        signed: bool = False,
    ) -> "Features":
        """`sets` sets of `size` features, each set on or off as a whole with probability `p`.

        >>> (Features.correlated(sets=2, size=2, p=0.5).sample(64)[:, :2] > 0).sum(1).unique()
        tensor([0, 2])
        """
        law = Correlated(size)
        return cls(
            n=sets * size,
            p=p,
            importance=importance,
            law=law,
            amplitude=amplitude,
            signed=signed,
        )

    @classmethod
    def anticorrelated(
        cls,
        *,
        sets: int,
        size: int,
        p: float | Sequence[float],
        importance: float | Sequence[float] = 1.0,
        amplitude: Amplitude = Uniform(),
        signed: bool = False,
    ) -> "Features":
        """`sets` sets of `size`: on with probability `p`, then exactly one member, uniformly.

        >>> (Features.anticorrelated(sets=2, size=2, p=0.9).sample(64)[:, :2] > 0).sum(1).max()
        tensor(1)
        """
        law = Anticorrelated(size)
        return cls(
            n=sets * size,
            p=p,
            importance=importance,
            law=law,
            amplitude=amplitude,
            signed=signed,
        )

    @classmethod
    def exactly_one(
        cls,
        n: int,
        *,
        importance: float | Sequence[float] = 1.0,
        amplitude: Amplitude = Uniform(),
        signed: bool = False,
    ) -> "Features":
        """Always exactly one active feature of `n`, chosen uniformly.

        >>> (Features.exactly_one(n=6).sample(64) > 0).sum(1).unique()
        tensor([1])
        """
        return cls.anticorrelated(
            sets=1, size=n, p=1.0, importance=importance, amplitude=amplitude, signed=signed
        )

    @property
    def sets(self) -> int:
        """The number of sets, `n / law.size`."""
        return self.n // self.law.size

    @property
    def set_probability(self) -> Float[np.ndarray, " sets"]:
        """The probability that each set is on, float64."""
        return np.broadcast_to(np.asarray(self.p, np.float64), (self.sets,)).copy()

    @property
    def probability(self) -> Float[np.ndarray, " n"]:
        """The probability that each feature is active, float64."""
        members = self.law.size if self.law.exclusive else 1
        return np.repeat(self.set_probability / members, self.law.size)

    @property
    def importances(self) -> Float[np.ndarray, " n"]:
        """The weight $I_i$ of each feature in the loss, float64."""
        given = np.asarray(self.importance, np.float64)
        return given if given.ndim else given ** np.arange(self.n)

    def sample(self, batch: int, seed: int = 0) -> Float[Tensor, "batch n"]:
        """A dense float32 batch; the same numbers as `sample_sparse` with the same seed."""
        return torch.from_numpy(self.sample_sparse(batch, seed).toarray())

    def sample_sparse(self, batch: int, seed: int = 0) -> csr_array:
        """A float32 CSR batch `[batch, n]` whose cost follows the number of active entries.

        Jumps from one active set to the next by geometric gaps, so that nothing is drawn for
        what stays off.

        >>> Features(n=10_000, p=1e-4).sample_sparse(1_000, seed=0).shape
        (1000, 10000)
        """
        _check_count("batch", batch)
        rng = np.random.default_rng(np.random.SeedSequence([_check_seed(seed), self.n]))
        row, which = self._active_sets(batch, rng)
        size = self.law.size
        if self.law.exclusive:
            column = which * size + rng.integers(0, size, which.size)
        else:
            column = (which[:, None] * size + np.arange(size)).ravel()
            row = np.repeat(row, size)
        order = np.lexsort((column, row))
        value = self.active_values(1.0 - rng.random(column.size, dtype=np.float32))
        start = np.searchsorted(row[order], np.arange(batch + 1))
        return csr_array((value, column[order], start), shape=(batch, self.n))

    def active_values(self, u: Float[np.ndarray, " *k"]) -> Float[np.ndarray, " *k"]:
        """Values of active features from numbers that are uniform on (0, 1], one each.

        >>> Features(n=1, amplitude=Constant(2.0), signed=True).active_values(np.array([0.2, 0.7]))
        array([-2.,  2.])
        """
        if not self.signed:
            return self.amplitude.magnitudes(u)
        # The half that u lies in decides the sign, its place within it the magnitude.
        positive = u > 0.5
        magnitude = self.amplitude.magnitudes(np.where(positive, 2 * u - 1, 2 * u))
        return np.where(positive, magnitude, -magnitude)

    def _active_sets(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows, sets = [], []
        probability = self.set_probability
        for p in np.unique(probability):
            (columns,) = np.nonzero(probability == p)
            cell = _bernoulli_positions(batch * columns.size, p, rng)
            rows.append(cell // columns.size)
            sets.append(columns[cell % columns.size])
        return np.concatenate(rows), np.concatenate(sets)


def _bernoulli_positions(cells: int, p: float, rng: np.random.Generator) -> np.ndarray:
    """Positions of the successes among `cells` independent trials, in increasing order."""
    if p == 1.0:
        return np.arange(cells)
    found, last = [], -1
    while last < cells - 1:
        mean = (cells - 1 - last) * p
        gaps = rng.geometric(p, int(mean + 4 * np.sqrt(mean) + 8))
        # A gap near the end of int64 would overflow the running sum; past the end is past the end.
        position = last + np.cumsum(np.minimum(gaps, cells + 1))
        found.append(position)
        last = position[-1]
    position = np.concatenate(found) if found else np.empty(0, np.int64)
    return position[position < cells]


def _scalar_or_tuple(name: str, value: Any, length: int) -> float | tuple[float, ...]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"Features({name}={value!r}): {name} is a number or numbers") from None
    if array.ndim == 0:
        return float(array)
    if array.shape != (length,):
        raise ValueError(
            f"Features: {name} has shape {list(array.shape)}, "
            f"but there are {length} to give one each; pass one number or {length}"
        )
    return tuple(array.tolist())


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Features({name}={value!r}): {name} is a whole number of at least 1")


def _check_seed(seed: int) -> int:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}: a seed is a whole number of at least 0")
    return int(seed)


def _check_p(p: float | Sequence[float]) -> None:
    for value in np.atleast_1d(p).tolist():
        if not 0.0 < value <= 1.0:
            hint = f"; for a sparsity of {value:g} pass p={1 - value:g}" if value == 0.0 else ""
            if 1.0 < value <= 100.0:
                hint = f"; for {value:g} % pass p={value / 100:g}"
            raise ValueError(
                f"Features(p={value:g}): p is the probability that a feature is active "
                f"and lies in (0, 1]{hint}"
            )


def _check_scale(law: str, name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0.0 < value < np.inf):
        raise ValueError(
            f"{law}({name}={value!r}): the {name} of a magnitude is positive and finite; for "
            "features of either sign pass signed=True to Features"
        )


def _check_importance(importance: float | Sequence[float]) -> None:
    for value in np.atleast_1d(importance).tolist():
        if not 0.0 <= value < np.inf:
            raise ValueError(
                f"Features(importance={value:g}): importance weights the squared error and is "
                "finite and at least 0; a ratio r means I_i = r**i"
            )
