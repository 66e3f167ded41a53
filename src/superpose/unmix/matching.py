"""Matching a dictionary to the true directions: did it find what was put in?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import betainc
from torch import Tensor

from superpose.statistics import Interval, least_detectable_difference, mean_interval
from superpose.unmix.detection import (
    Correlations,
    Hits,
    Scores,
    Sums,
    coverage_by_decile,
    harmonic,
    resampled,
)
from superpose.unmix.evidence import Errors, Evidence, activation_assignment, assign
from superpose.unmix.firing import Active, size
from superpose.unmix.sae import Dictionary
from superpose.unmix.shrinkage import Slopes
from superpose.unmix.weights import Samples, samples_like

THRESHOLD = 0.9
_FIRING = "activations and active"
_AMPLITUDES = "activations, and active as amplitudes"
_NEEDS = {
    "l0": "activations",
    "explained_variance": "activations",
    "dead": "activations",
    "firing_precision": _FIRING,
    "firing_recall": _FIRING,
    "firing_f1": _FIRING,
    "mcc_activation": _AMPLITUDES,
    "shrinkage": _AMPLITUDES,
}
_FIELDS = ("scores", "assignment", "features", "sums", "threshold")


@dataclass(frozen=True, slots=True)
class Match:
    """The scores of a dictionary by name, one number a run, and who was matched with whom.

    A score is read as an attribute, `match.recall`. `assignment` holds the latent of each true
    direction in the one-to-one matching of largest total cosine, −1 where there were too few.
    `features` says the same feature by feature: the largest cosine with any latent, `best`, that
    with the assigned one, `cosine`, and, where measured, its `frequency` (the share of samples it
    is on in), `precision`, `recall`, `f1`, `shrinkage`, `gain` and `offset`. `sums` is what the
    scores on samples are made of, block by block.
    """

    scores: dict[str, Float[np.ndarray, " runs"]]
    assignment: Int[np.ndarray, "runs k"]
    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    sums: tuple[Sums, ...] = ()
    threshold: float = THRESHOLD

    def __getattr__(self, name: str) -> Float[np.ndarray, " runs"]:
        if name.startswith("__") or name in _FIELDS:
            raise AttributeError(name)
        if name in self.scores:
            return self.scores[name]
        if name in _NEEDS:
            raise AttributeError(f"match.{name} was not measured: give match() {_NEEDS[name]}")
        raise AttributeError(f"match.{name}: the scores are {', '.join(self.scores)}")

    def interval(self, name: str) -> Interval:
        """Mean of a score over the runs with its 95 % interval.

        The members of one stack differ in their first weights alone: the interval says how much
        those decide. For other samples and worlds train with other seeds, and pool the scores.
        """
        return mean_interval(getattr(self, name))

    def sample_interval(self, name: str, minus: "Match | None" = None) -> Interval:
        """Mean of a score over the runs with its 95 % interval under resampling of the samples.

        It says how sure the samples make the score of these runs, not how others would do. With
        `minus` it is the difference to another match on the same samples, resampled in pairs.
        The bootstrap draws blocks of consecutive samples, at most 64 of them. Raises ValueError
        for scores of directions alone, and for a pair that saw other numbers of samples.
        """
        number = self._blocks(name)
        value = getattr(self, name).mean()
        replicas = resampled(self.sums, name, number)
        if minus is not None:
            if minus._blocks(name) != number or minus._samples() != self._samples():
                raise ValueError(
                    f"sample_interval({name!r}, minus=...): both have to be scored on the same "
                    f"samples, but saw {self._samples()} and {minus._samples()}"
                )
            value -= getattr(minus, name).mean()
            replicas = replicas - resampled(minus.sums, name, number)
        low, high = np.quantile(replicas, [0.025, 0.975])
        return Interval(float(value), float(low), float(high))

    def least_difference(self, name: str) -> float:
        """The difference of means that as many runs of each of two such dictionaries can detect.

        With power 0.8 at the 5 % level, for the spread over runs seen here; infinite for one run.
        """
        values = getattr(self, name)
        if len(values) < 2:
            return np.inf
        return least_detectable_difference(float(values.std(ddof=1)), len(values))

    def table(self) -> pa.Table:
        """One row a run, one column a score."""
        runs = len(self.assignment)
        return pa.table({"run": np.arange(runs), **self.scores})

    def feature_table(self) -> pa.Table:
        """One row a run and true direction: run, feature, latent, and its entry in `features`."""
        runs, k = self.assignment.shape
        run, feature = np.divmod(np.arange(runs * k), k)
        own = {
            name: np.broadcast_to(values, (runs, k)).ravel()
            for name, values in self.features.items()
        }
        return pa.table({"run": run, "feature": feature, "latent": self.assignment.ravel(), **own})

    def deciles(self) -> pa.Table:
        """Which features are found, by how often they are on, with intervals over the runs.

        One row a tenth of the features that are ever on, the rarest first: `decile`, `features`,
        `frequency_low` and `frequency_high`, and `coverage` (the share above the threshold), the
        mean largest `cosine` and `f1`, each with `_low` and `_high`.
        """
        if "frequency" not in self.features:
            raise ValueError(
                "deciles(): how often a feature is on is not known: give match() " + _FIRING
            )
        return coverage_by_decile(self.features, self.threshold)

    def _samples(self) -> int:
        return int(getattr(self.sums[0], "samples").sum())  # noqa: B009

    def _blocks(self, name: str) -> int:
        if not self.sums:
            raise ValueError(f"sample_interval({name!r}): give match() {_NEEDS.get(name, _FIRING)}")
        return len(getattr(self.sums[0], "samples"))  # noqa: B009


def match(
    sae: Dictionary,
    truth: Samples,
    activations: Samples | None = None,
    active: Active | None = None,
    threshold: float = THRESHOLD,
) -> Match:
    r"""Score a dictionary against the true directions, by signed cosine: rays, not lines.

    From directions alone: `mmcs`, the mean over true directions of the largest cosine with a
    latent; `mmcs_reverse`, latents and truth exchanged; `mmcs_random`, what as many random
    directions would reach; `mcc`, the mean cosine of the one-to-one matching; `recall`, the share
    of true directions with a latent at cosine above the threshold, 0.9; `precision`, the share of
    latents with exactly one true direction above it; `uniqueness`, the share of latents
    whose partner in the one-to-one matching lies above it, which duplicates lower; `f1` of recall
    and precision.

    With `activations`: `l0`, latents active a sample; `explained_variance`,
    $1 - \sum\|x - \hat x\|^2 / \sum\|x - \bar x\|^2$; `dead`, the share of latents that never
    fire on these samples, which `precision` and `uniqueness` then leave out.

    With `active`, which feature is on in which sample: `firing_precision`, `firing_recall` and
    `firing_f1` of the assigned latent as a detector of its feature, averaged over the features
    that are ever on. A feature whose latent is at the threshold or less is not covered and
    counts 0. `active` is a table of truth values or of amplitudes, or sparse rows of amplitudes
    (`Activity`, as a world draws them). With amplitudes f also: `mcc_activation`, the mean
    |correlation| of latent and amplitude in the one-to-one matching where it is largest;
    `shrinkage`, the mean slope $\sum z a / \sum a^2$ over covered features, a = f ‖direction‖.

    All lie in [0, 1] or [−1, 1], 1 is good, but for l0 and dead. Memory is that of the table of
    cosines, 4 k d_sae bytes (8 while matching), and 8 bytes an active latent. Raises ValueError
    for true directions of zero length and shapes that do not fit.

    >>> from superpose.unmix.baselines import neurons
    >>> match(neurons(2), torch.tensor([[2.0, 0.0], [0.0, -1.0]])).recall
    array([1.])
    """
    W = checked_truth(sae, truth, "match")
    found = None
    if activations is not None:
        found = Evidence.of(sae, checked_samples(sae, activations, "match"), active, len(W))
    elif active is not None:
        raise ValueError("match: active needs the activations of the same samples")
    if not -1.0 <= threshold <= 1.0:
        raise ValueError(f"match(threshold={threshold!r}): it is a cosine, from -1 to 1")
    scores, assignment, each = _geometry(sae, W, found, threshold)
    if found is None:
        return Match(scores, assignment, each, threshold=threshold)
    sums = _sums(found, W, assignment, each["cosine"] > threshold)
    once = np.ones(len(found.errors.samples))
    scores["dead"] = 1.0 - found.fired.mean(-1)
    for part in sums:
        scores |= part.scores(once)
        if isinstance(part, Hits):
            each |= part.each(once)
            each["frequency"] = each["frequency"] / size(found.summing)[1]
        elif isinstance(part, Slopes):
            each |= part.each(once)
    return Match(scores, assignment, each, sums, threshold)


@lru_cache
def random_mmcs(d_in: int, d_sae: int) -> float:
    r"""Expected largest cosine of a direction with `d_sae` uniformly random ones, in `d_in` dims.

    $\int_{-1}^1 (1 - F(c)^K)\,dc - 1$ with F the distribution of the cosine,
    $(1 + c)/2 \sim Beta(\frac{d-1}2, \frac{d-1}2)$.

    >>> round(random_mmcs(20, 40), 3)
    0.468
    """
    if d_in == 1:
        return 1.0 - 2.0 * 0.5**d_sae

    def above(c: float) -> float:
        return random_reach(c, d_in, d_sae)

    return quad(above, -1, 0)[0] + quad(above, 0, 1, limit=200)[0] - 1.0


def random_reach(cosine: float, d_in: int, d_sae: int) -> float:
    r"""The chance that one of `d_sae` random directions comes closer than `cosine` to a given one.

    $1 - F(c)^K$, as in `random_mmcs`.

    >>> round(random_reach(0.0, 2, 1), 6)
    0.5
    """
    half = (d_in - 1) / 2
    below = betainc(half, half, (1 + cosine) / 2) if d_in > 1 else float(cosine >= 1) / 2 + 0.5
    return float(1.0 - below**d_sae)


def checked_truth(sae: Dictionary, truth: Samples, call: str) -> Float[Tensor, "k d_in"]:
    """True directions as a float32 tensor; ValueError, in the name of the `call`, for no such."""
    directions = sae.directions.float().cpu()
    table = samples_like(directions, truth, directions.shape[-1], f"{call}: true directions")
    if len(table) == 0 or not bool(torch.isfinite(table).all()):
        raise ValueError(f"{call}: true directions are at least one, and finite")
    short = (~(table.norm(dim=-1) > 0)).nonzero().ravel().tolist()
    if short:
        raise ValueError(
            f"{call}: true directions {short[:5]} have no length; leave out features that the "
            "model does not represent"
        )
    return table


def checked_samples(sae: Dictionary, x: Samples, call: str) -> Float[Tensor, "samples d_in"]:
    """Activations as a float32 tensor; ValueError, in the name of the `call`, for no such."""
    directions = sae.directions.float()
    table = samples_like(directions, x, directions.shape[-1], f"{call}: activations")
    if len(table) == 0:
        raise ValueError(f"{call}: activations have no samples; give at least one")
    if not bool(torch.isfinite(table).all()):
        raise ValueError(
            f"{call}: activations have NaN or infinite values; leave those samples out"
        )
    return table


def _sums(
    found: Evidence,
    truth: Float[Tensor, "k d_in"],
    assignment: Int[np.ndarray, "runs k"],
    covered: Bool[np.ndarray, "runs k"],
) -> tuple[Errors | Hits | Correlations | Slopes, ...]:
    if found.features is None:
        return (found.errors,)
    features, latents, summing = found.features, found.latents, found.summing
    hits = Hits.count(features, latents, assignment, covered, summing)
    if not found.amplitudes:
        return found.errors, hits
    closest = activation_assignment(features, latents)
    return (
        found.errors,
        hits,
        Correlations.count(features, latents, closest, summing),
        Slopes.count(found.lengths(truth), latents, assignment, covered, summing),
    )


def _geometry(
    sae: Dictionary,
    truth: Float[Tensor, "k d_in"],
    found: Evidence | None,
    threshold: float,
) -> tuple[Scores, Int[np.ndarray, "runs k"], dict[str, NDArray[Any]]]:
    """Scores of directions alone, the assignment, and the cosines of each feature."""
    unit = torch.nn.functional.normalize(truth.double(), dim=-1).float()
    directions = sae.directions.detach().float().cpu()
    directions = directions.reshape(-1, *directions.shape[-2:])
    runs, d_sae, d_in = directions.shape
    alive = np.ones((runs, d_sae), bool) if found is None else found.fired
    rows = []
    # One run at a time: the table of cosines is the largest thing there is.
    for own, living in zip(directions, alive, strict=True):
        cosine = (unit @ own.T).numpy()
        close = cosine > threshold
        latent = assign(cosine)
        paired = np.take_along_axis(cosine, latent.clip(0)[:, None], 1)[:, 0]
        paired = np.where(latent < 0, 0.0, paired)
        unique = ((paired > threshold) & living[latent.clip(0)]).sum()
        rows.append(
            {
                "mmcs": cosine.max(1).mean(dtype=np.float64),
                "mmcs_reverse": cosine.max(0).mean(dtype=np.float64),
                "mmcs_random": random_mmcs(d_in, d_sae),
                "mcc": paired.mean(dtype=np.float64),
                "recall": close.any(1).mean(),
                "precision": ((close.sum(0) == 1) & living).sum() / max(living.sum(), 1),
                "uniqueness": unique / max(living.sum(), 1),
                "latent": latent,
                "cosine": paired,
                "best": cosine.max(1),
            }
        )
    stack = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    assignment = stack.pop("latent")
    each = {name: stack.pop(name) for name in ("best", "cosine")}
    return stack | {"f1": harmonic(stack["recall"], stack["precision"])}, assignment, each
