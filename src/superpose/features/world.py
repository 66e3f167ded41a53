"""A world of sparse features: drawn from a law, or the points of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from superpose.features.amplitudes import Amplitude, Uniform
from superpose.features.laws import Anticorrelated, Correlated, Finite, Independent, Law
from superpose.features.points import Points

# The law of a world that is given none.
_P, _INDEPENDENT, _UNIFORM = 0.1, Independent(), Uniform()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    r"""`n` sparse features: zero most of the time, of a random magnitude when active.

    `p` is the probability that a feature is active (the papers' $1 - S$): one number, or one
    for each feature; under a law of sets it is the probability that the *set* is on, one
    number or one for each set. `importance` weights the squared error: a ratio $r$ means
    $I_i = r^i$ (1 makes all equal), a sequence gives every $I_i$. `amplitude` is the law of a
    magnitude: `Uniform()` on (0, 1], `Exponential(scale)`, `HalfNormal(scale)` or
    `Constant(value)`; where `signed`, an active feature is negative half of the time. `law` says
    which are active together; the constructors `correlated`, `anticorrelated`, `exactly_one` and
    `finite` choose it. Features are inert: equal arguments make equal, hashable worlds.

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
    p: float | Sequence[float] = _P
    importance: float | Sequence[float] = 1.0
    law: Law = _INDEPENDENT
    amplitude: Amplitude = _UNIFORM
    signed: bool = False

    def __post_init__(self) -> None:
        _check_count("n", self.n)
        if not isinstance(self.law, Law):
            raise ValueError(
                f"Features(law={self.law!r}): a law is made by Features.correlated, "
                "anticorrelated, exactly_one or finite"
            )
        _check_count("size", self.law.size)
        if self.n % self.law.size:
            raise ValueError(
                f"Features(n={self.n}) with sets of {self.law.size}: "
                "n must be a whole number of sets"
            )
        if isinstance(self.law, Finite):
            self._follow(self.law.points)
        else:
            object.__setattr__(self, "p", _scalar_or_tuple("p", self.p, self.sets))
            _check_p(self.p)
        object.__setattr__(
            self, "importance", _scalar_or_tuple("importance", self.importance, self.n)
        )
        if not isinstance(self.amplitude, Amplitude) or not isinstance(self.signed, bool):
            raise ValueError(
                f"Features(amplitude={self.amplitude!r}, signed={self.signed!r}): an amplitude is "
                "Uniform(), Exponential(scale), HalfNormal(scale) or Constant(value), and signed "
                "is True or False"
            )
        _check_importance(self.importance)

    def _follow(self, points: Points) -> None:
        """Take n and p from the points, and refuse what says otherwise."""
        frequency = tuple(points.frequency.tolist())
        given = (self.n, self.amplitude, self.signed)
        if given != (points.n, _UNIFORM, False) or self.p not in (_P, frequency):
            raise ValueError(
                f"Features(n={self.n}, law={self.law!r}): n, p and the values of a finite world "
                "are those of its points; make one by Features.finite(points, importance=…)"
            )
        object.__setattr__(self, "p", frequency)

    @classmethod
    def correlated(
        cls,
        *,
        sets: int,
        size: int,
        p: float | Sequence[float],
        importance: float | Sequence[float] = 1.0,
        amplitude: Amplitude = _UNIFORM,
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
        amplitude: Amplitude = _UNIFORM,
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
        amplitude: Amplitude = _UNIFORM,
        signed: bool = False,
    ) -> "Features":
        """Always exactly one active feature of `n`, chosen uniformly.

        >>> (Features.exactly_one(n=6).sample(64) > 0).sum(1).unique()
        tensor([1])
        """
        return cls.anticorrelated(
            sets=1, size=n, p=1.0, importance=importance, amplitude=amplitude, signed=signed
        )

    @classmethod
    def finite(cls, points: Any, *, importance: float | Sequence[float] = 1.0) -> "Features":
        """The points of a data set, `[T, n]`, each as likely as another.

        `points` is an array, a tensor, a sparse matrix or `Points`; training takes all of them at
        every step, in their order. `p` is the share of the points in which each feature is
        active (not 0), which may be 0 here. Equal points make equal worlds.
        Raises ValueError for points that are no matrix of finite numbers.
        Source: Henighan et al., Superposition, Memorization, and Double Descent (2023).

        30 points of norm 1 to memorise, from 1,000 features of which one in a hundred is active:

        >>> x = Features(n=1_000, p=0.01).sample_sparse(30, seed=0)
        >>> norm = np.sqrt((x**2).sum(1))
        >>> world = Features.finite(x.multiply(1 / norm[:, None]))
        >>> world.points.shape, world.sample(2, seed=0).norm(dim=1).allclose(torch.ones(2))
        ((30, 1000), True)
        """
        points = points if isinstance(points, Points) else Points(points)
        return cls(n=points.n, importance=importance, law=Finite(points))

    @property
    def points(self) -> csr_array | None:
        """The data set of a finite world, float32 CSR `[T, n]`; None under any other law."""
        return self.law.points.matrix if isinstance(self.law, Finite) else None

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
        what stays off. Of a finite world it draws points, with replacement.

        >>> Features(n=10_000, p=1e-4).sample_sparse(1_000, seed=0).shape
        (1000, 10000)
        """
        _check_count("batch", batch)
        rng = np.random.default_rng(np.random.SeedSequence([_check_seed(seed), self.n]))
        if isinstance(self.law, Finite):
            return self.law.points.matrix[rng.integers(0, self.law.points.count, batch)]
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

        >>> Features(n=1, signed=True).active_values(np.array([0.2, 0.7])).round(6)
        array([-0.4,  0.4])

        Raises ValueError for a finite world, whose values are those of its points.
        """
        if isinstance(self.law, Finite):
            raise ValueError(
                "active_values: the values of a finite world are those of its points; see "
                "`points`, or draw from them with `sample`"
            )
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


def _check_importance(importance: float | Sequence[float]) -> None:
    for value in np.atleast_1d(importance).tolist():
        if not 0.0 <= value < np.inf:
            raise ValueError(
                f"Features(importance={value:g}): importance weights the squared error and is "
                "finite and at least 0; a ratio r means I_i = r**i"
            )
