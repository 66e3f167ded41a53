"""Is there superposition? A test from activations alone, the true directions unknown.

A complete sparse model has no more features than dimensions. Its data are as far from Gaussian as
those of superposed features, so to reject a Gaussian, or shuffled units, shows nothing. This test
asks instead whether a code with more lines than dimensions comes closer to held-out samples than
the best complete one does, by more than it would on data of a complete model that is like the
data in all else. Two nulls have to be rejected.

*Complete.* In the basis of its features each sample is on along some axes and off along the
others, with magnitudes that know nothing of each other once it is known which are on; a feature
beyond the basis turns several axes on in fixed proportions. So each draw permutes the magnitudes of
every axis among the samples that have it on with the same sign, and leaves the rest: which features
go together, their frequencies, their laws of magnitude, the mixing and the noise stay, the
proportions go. The basis is not known. Three are tried, each right where others fail, and all have
to be rejected: the lines closest to the samples, for sparse features; the independent components,
for features that are on too often to be seen alone; and the components of what is left of
the samples when the mean of those with the same axes on is taken off, for features that go
together, whose plain components are mixtures.

*Elliptical.* Each sample gets a random direction at its own distance, in the metric of the second
moments. That holds Gaussian data of any covariance, and clouds that have no directions to find.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from superpose.activations import Activations
from superpose.networks.lines import FLOOR, distance, refine, unit, widen

_FEW = 50
_SPREAD = 0.01
_CONDITION = 100.0
_OFF = 3.0
_FAINT = 0.1
_MINOR = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """What the test found.

    `gain` is the statistic: the mean distance of held-out samples from the best complete code over
    that from the overcomplete one, above 1 where the latter is closer. `complete` and `elliptical`
    are the same on the draws of the two nulls (of complete models, the largest over the bases),
    which end with the first that reaches it. `d` counts the dimensions in which the
    samples spread, `active` the lines a sample may take, `two_sided` the axes of the complete code
    on which both signs are common.
    """

    p_value: float
    level: float
    gain: float
    complete: Float[np.ndarray, " draws"]
    elliptical: Float[np.ndarray, " others"]
    samples: int
    d: int
    active: int
    two_sided: int
    advice: tuple[str, ...] = ()

    @property
    def present(self) -> bool:
        """Whether superposition is claimed: the wider code is closer, by more than chance."""
        return self.p_value <= self.level and self.gain > 1.0

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        compared = (
            f"with {self.active} of its lines a sample, an overcomplete code comes "
            f"{self.gain:.3g} times as close to held-out samples as the best complete one"
        )
        if self.present:
            return (
                f"{compared}; of {len(self.complete)} draws each, complete sparse models reach "
                f"{self.complete.max():.3g} and elliptical clouds {self.elliptical.max():.3g}: "
                f"more features than dimensions (p = {self.p_value:.2g})"
            )
        other = self.complete if self.complete.max() >= self.gain else self.elliptical
        name = "a complete sparse model" if other is self.complete else "an elliptical cloud"
        return f"{compared}; so does draw {len(other)} of {name} (p = {self.p_value:.2g})"


def superposition_test(
    acts: Activations | Float[Tensor, "samples units"],
    *,
    level: float = 0.05,
    draws: int = 19,
    active: int | None = None,
    samples: int = 4_000,
    seed: int = 0,
) -> Presence:
    r"""Test the null that no more features than dimensions make these activations.

    Two codes are fitted to half of the samples: d lines, and d more (4 if that is more). Each
    sample of the other half is coded by `active` lines of either, by default one below 6
    dimensions, two below 12, else three. With r the distance of a sample from its reconstruction,
    the statistic is $\sum r_{complete} / \sum r_{overcomplete}$. Superposition is claimed if no
    draw of either null reaches it. The p-value is $1/b$ if draw b is the first that does, else
    $1/(draws + 1)$: data that a null explains are soon done with. It holds its level as far as the
    best complete code finds the features of a complete model; `benchmarks/presence.py` measures
    how far that is.

    No such test can see features that point opposite ways: a digon lies on one line and looks
    like one feature that has both signs. Antipodal pairs alone are not claimed; `two_sided` counts
    the axes that may be such pairs. The test misses features that are on too often for lines to
    show, and can be fooled where features that are on together have magnitudes that depend on each
    other. Of more than `samples` samples, that many are drawn at random.

    Raises ValueError for a level outside (0, 1), too few draws to reach it, `active` below 1,
    samples that are all equal, and fewer than 100 samples or 8 for each dimension.
    Source: Besag & Clifford 1991 (sequential p-values); nulls and statistic are this project's.

    >>> rng = np.random.default_rng(0)
    >>> sparse = rng.random((600, 4)) * (rng.random((600, 4)) < 0.2)
    >>> superposition_test(Tensor(sparse @ rng.standard_normal((4, 4)))).present
    False
    """
    _check(level, draws, active)
    rng = np.random.default_rng(seed)
    x, advice = _spread_out(acts, samples, rng)
    d = x.shape[1]
    taken = min(min(1 + d // 6, 3) if active is None else active, d)
    bases = _bases(x, taken, rng)
    A, s = bases[0]
    gain = _gain(s @ A, A, taken, rng)
    complete, elliptical = _drawn(gain, bases, taken, draws, rng)
    reached = max(complete + elliptical) >= gain
    both = _two_sided(s)
    return Presence(
        p_value=1 / len(complete) if reached else 1 / (draws + 1),
        level=level,
        gain=gain,
        complete=np.array(complete),
        elliptical=np.array(elliptical),
        samples=len(x),
        d=d,
        active=taken,
        two_sided=both,
        advice=(*advice, *_advice(len(x), d, both)),
    )


def _check(level: float, draws: int, active: int | None) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"superposition_test(level={level!r}): the level is the chance of a false alarm and "
            "lies in (0, 1)"
        )
    if 1 / (draws + 1) > level * (1 + 1e-9):
        needed = int(np.ceil(1 / level - 1 - 1e-9))
        raise ValueError(
            f"superposition_test(draws={draws}): the least p-value of that many draws is "
            f"{1 / (draws + 1):.3g}, above the level of {level:g}; draw {needed} or more"
        )
    if active is not None and active < 1:
        raise ValueError(f"superposition_test(active={active}): a sample takes at least one line")


def _spread_out(
    acts: Activations | Tensor, samples: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "samples d"], tuple[str, ...]]:
    """Samples in random order, about their mean, in the dimensions in which they spread."""
    whole = (acts if isinstance(acts, Activations) else Activations(acts)).x.cpu().double().numpy()
    x = whole[rng.permutation(len(whole))[:samples]]
    x = x - x.mean(0)
    _, strength, axes = np.linalg.svd(x, full_matrices=False)
    if not strength[0] > 1e-12 * np.abs(whole).max():
        raise ValueError("superposition_test: all samples are equal, so there is nothing to test")
    d = int((strength > _SPREAD * strength[0]).sum())
    needed = max(100, 8 * d)
    if len(x) < needed:
        raise ValueError(
            f"superposition_test: {len(x)} samples of {d} dimensions; {needed} are the least that "
            "half of them can fit a code and the other half test it"
        )
    flat = f"of {x.shape[1]} units, the samples spread in {d} dimensions, which were tested"
    return x @ axes[:d].T, (flat,) if d < x.shape[1] else ()


Basis = tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "samples d"]]


def _bases(x: Float[np.ndarray, "samples d"], active: int, rng: np.random.Generator) -> list[Basis]:
    """Bases in which a complete model may be written, the closest lines first.

    Each comes with the samples in its coordinates, 0 where a feature is off.
    """
    components = _components(x, rng)
    # Off is where each component has its most frequent value.
    x = x - _modes(x @ np.linalg.inv(components)) @ components
    starts = (_refined(x, components, active), _lines(x, active, rng), components)
    usable = [A for A in starts if np.linalg.cond(A) < _CONDITION] or [components]
    closest = _written(x, min(usable, key=lambda each: distance(x, each, active)))
    others = [_written(x, components)]
    apart = _within_patterns(*closest, rng)
    if apart is not None:
        others.append(_written(x, apart))
    return [closest, *others]


def _written(x: Float[np.ndarray, "samples d"], A: Float[np.ndarray, "d d"]) -> Basis:
    s = x @ np.linalg.inv(A)
    return A, s - _modes(s)


def _components(
    x: Float[np.ndarray, "samples d"], rng: np.random.Generator, rounds: int = 100
) -> Float[np.ndarray, "lines d"]:
    """Directions of the independent components: FastICA, all at once, contrast log cosh.

    Rounds are capped: noise has no components to converge to, and then any basis will do.
    Source: Hyvärinen & Oja 2000.
    """
    _, strength, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = strength > 1e-5 * strength[0]
    scales = strength[kept, None] * axes[kept] / np.sqrt(len(x))
    z = (x - x.mean(0)) @ np.linalg.pinv(scales)
    Q = np.linalg.qr(rng.standard_normal((len(scales), len(scales))))[0]
    for _ in range(rounds):
        g = np.tanh(z @ Q.T)
        left, _, right = np.linalg.svd(g.T @ z / len(z) - (1 - g**2).mean(0)[:, None] * Q)
        before, Q = Q, left @ right
        if np.abs(np.abs((Q * before).sum(1)) - 1).max() < 1e-4:
            break
    return unit(Q @ scales)


def _within_patterns(
    A: Float[np.ndarray, "d d"], s: Float[np.ndarray, "samples d"], rng: np.random.Generator
) -> Float[np.ndarray, "d d"] | None:
    """Components of the deviations from the mean of samples with the same axes on, if there are d.

    Where magnitudes are independent given the pattern, the mean is a sum over the axes that are on,
    and the deviations along the features are uncorrelated even if the features go together.
    """
    x, on = s @ A, np.abs(s) > _thresholds(s)
    pattern = np.column_stack([np.ones(len(s)), on])
    left = x - pattern @ np.linalg.lstsq(pattern, x, rcond=None)[0]
    left = left[on.any(1)]
    if len(left) < 8 * len(A) or np.abs(left).max() < 1e-6 * np.abs(x).max():
        return None
    found = _components(left, rng)
    return found if len(found) == len(A) and np.linalg.cond(found) < _CONDITION else None


def _lines(
    x: Float[np.ndarray, "samples d"], active: int, rng: np.random.Generator
) -> Float[np.ndarray, "d d"]:
    """As many lines as dimensions, found without a start."""
    d = x.shape[1]
    return _refined(x, widen(x, np.zeros((1, d)), 1, d, rng)[1:], active)


def _refined(
    x: Float[np.ndarray, "samples d"], D: Float[np.ndarray, "lines d"], active: int
) -> Float[np.ndarray, "lines d"]:
    D = refine(x, D, 1)
    return refine(x, D, active) if active > 1 else D


def _drawn(
    gain: float, bases: list[Basis], active: int, draws: int, rng: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Gains on draws of both nulls in turns, up to the first that reaches `gain`."""
    A, s = bases[0]
    complete: list[float] = []
    elliptical: list[float] = []
    while len(complete) < draws:
        complete.append(_complete_gain(gain, bases, active, rng))
        if complete[-1] >= gain:
            break
        cloud = _elliptical(s @ A, rng)
        elliptical.append(_gain(cloud, _lines(cloud, active, rng), active, rng))
        if elliptical[-1] >= gain:
            break
    return complete, elliptical


def _complete_gain(gain: float, bases: list[Basis], active: int, rng: np.random.Generator) -> float:
    """The largest gain on a draw in each basis, or the first that reaches `gain`."""
    largest = 0.0
    for B, s in bases:
        drawn = _complete(s, rng) @ B
        largest = max(largest, _gain(drawn, bases[0][0], active, rng))
        if largest >= gain:
            break
    return largest


def _gain(
    x: Float[np.ndarray, "samples d"],
    A: Float[np.ndarray, "d d"],
    active: int,
    rng: np.random.Generator,
) -> float:
    """The statistic; both codes start from the axes A."""
    half, d = len(x) // 2, len(A)
    train, test = x[:half], x[half:]
    complete = refine(train, A, active, scales=(0.1, FLOOR))
    wide = refine(train, widen(train, complete, active, max(d, 4), rng), active)
    best = min(distance(test, A, active), distance(test, complete, active))
    return best / distance(test, wide, active)


def _complete(
    s: Float[np.ndarray, "samples d"], rng: np.random.Generator
) -> Float[np.ndarray, "samples d"]:
    """Magnitudes permuted among the samples that have the same axis on with the same sign."""
    drawn = s.copy()
    for axis, threshold in enumerate(_thresholds(s)):
        for on in (s[:, axis] > threshold, s[:, axis] < -threshold):
            drawn[on, axis] = rng.permutation(s[on, axis])
    return drawn


def _elliptical(
    y: Float[np.ndarray, "samples d"], rng: np.random.Generator
) -> Float[np.ndarray, "samples d"]:
    """Each sample at its own distance in a random direction, both in the metric of the whole."""
    root = np.linalg.cholesky(y.T @ y / len(y))
    radius = np.linalg.norm(np.linalg.solve(root, y.T), axis=0)
    return radius[:, None] * unit(rng.standard_normal(y.shape)) @ root.T


def _thresholds(s: Float[np.ndarray, "samples d"]) -> Float[np.ndarray, " d"]:
    """Above which size an axis is on: three deviations of the noise, or a tenth of what is usual.

    The tenth is for data without noise: an axis that is a few degrees off takes a little of the
    others' features, which is not a feature of its own.
    """
    # A normal number exceeds 0.2533 deviations in 80 % of cases; features that are on count as
    # noise here, which errs towards fewer permutations.
    noise = np.quantile(np.abs(s), 0.2, axis=0) / 0.2533
    usual = np.sqrt((s**4).sum(0) / np.maximum((s**2).sum(0), 1e-300))
    return np.maximum(_OFF * noise, _FAINT * usual)


def _modes(s: Float[np.ndarray, "samples d"], share: float = 0.125) -> Float[np.ndarray, " d"]:
    """Mean of the densest eighth of each column, found by halving."""
    ordered = np.sort(s, axis=0)
    modes = np.empty(s.shape[1])
    for axis, column in enumerate(ordered.T):
        size = len(column)
        while size > share * len(s):
            size = (size + 1) // 2
            start = int(np.argmin(column[size - 1 :] - column[: len(column) - size + 1]))
            column = column[start : start + size]
        modes[axis] = column.mean()
    return modes


def _two_sided(s: Float[np.ndarray, "samples d"]) -> int:
    """Axes on which the rarer sign makes at least a tenth of the samples that are on."""
    threshold = _thresholds(s)
    above, below = (s > threshold).sum(0), (s < -threshold).sum(0)
    return int((np.minimum(above, below) > np.maximum(_MINOR * (above + below), 10)).sum())


def _advice(samples: int, d: int, two_sided: int) -> tuple[str, ...]:
    advice = []
    if samples < _FEW * d:
        advice.append(
            f"{samples} samples of {d} dimensions are few: the test misses much below {_FEW * d}"
        )
    if two_sided:
        advice.append(
            f"{two_sided} of {d} axes carry both signs: each is one signed feature or two features "
            "that point opposite ways, which activations alone do not tell apart"
        )
    return tuple(advice)
