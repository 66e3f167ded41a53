"""The confusion map: which latents say which features, and what goes wrong between them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from superpose.statistics import Interval, mean_interval
from superpose.unmix.absorption import absorbed, nested
from superpose.unmix.comparison import Comparison, Rules, overlaps
from superpose.unmix.evidence import Evidence, assign
from superpose.unmix.firing import Active, Rows, together
from superpose.unmix.matching import checked_samples, checked_truth
from superpose.unmix.sae import Dictionary
from superpose.unmix.weights import Samples

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Absorption, splitting, merging and hedging of a dictionary: scores, and a table of each.

    `scores` has one number a run by name, 0 good and 1 bad, NaN where there is no case to judge:
    `absorption`, the mean rate of the pairs of parent and child; `splitting`, the share of found
    features that are split; `merging`, the share of living latents that merge features;
    `hedging`, the share of pairs of a found and a missing correlated feature in which the latent
    of the one has a trace of the other, and `hedging_component`, the mean component, which chance
    does not raise. `judge` holds what
    they were judged by, dictionary and sparse rows. `map` has one row a run, feature and latent
    that have to do with one another.
    """

    scores: dict[str, Float[np.ndarray, " runs"]]
    map: pa.Table
    absorption: pa.Table
    splitting: pa.Table
    merging: pa.Table
    hedging: pa.Table
    judge: "Judge" = field(repr=False)

    def interval(self, name: str) -> Interval:
        """Mean of a score over the runs with its 95 % interval."""
        return mean_interval(self._known("interval", name))

    def sample_interval(self, name: str, resamples: int = 200) -> Interval:
        """Mean of a score over the runs with its 95 % interval under resampling of the samples.

        It says how sure the samples make the score of these runs, not how others would do. The
        bootstrap draws blocks of consecutive samples, at most 64 of them, and judges each of the
        `resamples` anew, for the same pairs of parent and child; those without a case are left
        out. Scores that count what lies beyond a threshold move in steps, and with few samples
        chance cases enter: above all that of hedging may then lie beside the score itself. It
        costs what judging does, `resamples` times. NaN where there is no case to judge. Raises
        ValueError for another score, and for fewer than 2 resamples.
        """
        if not isinstance(resamples, int | np.integer) or resamples < 2:
            raise ValueError(
                f"sample_interval(resamples={resamples!r}): a whole number of at least 2, say 200"
            )
        known = np.isfinite(values := self._known("sample_interval", name))
        replicas = [_mean(each[np.isfinite(each)]) for each in self.judge.replicas(name, resamples)]
        if not (known.any() and np.isfinite(replicas).any()):
            return Interval(_mean(values[known]), np.nan, np.nan)
        low, high = np.nanquantile(replicas, [0.025, 0.975])
        return Interval(_mean(values[known]), float(low), float(high))

    def _known(self, call: str, name: str) -> Float[np.ndarray, " runs"]:
        if name not in self.scores:
            raise ValueError(f"{call}({name!r}): the scores are {', '.join(self.scores)}")
        return self.scores[name]


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """What the rules look at: a dictionary, the truth, and both on some samples."""

    sae: Dictionary
    truth: Float[Tensor, "k d_in"]
    found: Evidence
    pairs: Int[np.ndarray, "pairs 2"]
    rules: Rules

    def runs(self) -> Iterator[Comparison]:
        """Each run beside the truth."""
        unit = torch.nn.functional.normalize(self.truth.double(), dim=-1).float().numpy()
        directions = self.sae.directions.detach().cpu().float()
        directions = directions.reshape(-1, *directions.shape[-2:]).numpy()
        for own, latents in zip(directions, self.found.latents, strict=True):
            cosine = unit @ own.T
            yield Comparison(unit, cosine, assign(cosine), self.found.known, latents, self.rules)

    def replicas(self, name: str, resamples: int) -> Float[np.ndarray, "resamples runs"]:
        """A score of each run under resampling of the blocks of samples."""
        bounds, rng = self.found.summing.indptr, np.random.default_rng(0)
        number = len(bounds) - 1
        drawn = rng.integers(number, size=(resamples, number))
        scores = np.empty((resamples, len(self.found.latents)))
        for at, run in enumerate(self.runs()):
            for draw, chosen in enumerate(drawn):
                those = np.concatenate([np.arange(*bounds[b : b + 2]) for b in chosen])
                features, latents = Rows(run.features[those]), Rows(run.latents[those])
                again = replace(run, features=features, latents=latents)
                scores[draw, at] = _scores(again, _judged(again, self.pairs))[name]
        return scores


def confusion(
    sae: Dictionary,
    truth: Samples,
    activations: Samples,
    active: Active,
    pairs: Int[np.ndarray, "pairs 2"] | None = None,
    rules: Rules | None = None,
) -> Confusion:
    r"""Which latents say which features: absorbed, split, merged or hedged.

    *Map*: cosine above `found`, or firing that overlaps by more (samples with both on, over those
    with either). Columns run, feature, latent, cosine, and the shares `latent_given_feature` and
    `feature_given_latent`.

    *Absorption* of a parent P by a child C (a row (P, C) of `pairs`, by default all that the
    samples show to be nested): the share of the samples with both on in which the latent of P is
    off while another is on that has C in it, and P beyond what C brings. Columns run, parent,
    child, samples, rate with rate_low and rate_high, weakening (1 − mean latent of P with C over
    that without), latents.

    *Splitting*: at least two latents are closest to the same feature, closer than `same`, mostly
    on when it is, and disjoint. Columns run, feature, latents, overlap (the smallest).

    *Merging*: a latent has a second feature in it, above `found` beyond what its closest brings,
    and both belong to its firing. Columns run, latent, features, cosines, and `together`, the
    share of its firing with the first two on: 1 for a composed feature, which needs both.
    Absorbing latents merge too.

    *Hedging*: a feature with a latent, and one without that correlates with it. The component
    of the latent along the missing feature, beyond what the found brings, counts in the sign of
    the correlation. Columns run, feature, latent, missing, correlation, component.

    Thresholds are in `rules`. Raises ValueError as `match` does. Source: Chanin et al. 2024 and
    2025 (arXiv 2409.14507, 2505.11756); Bricken et al. 2023 on splitting.

    >>> from superpose.unmix.baselines import neurons
    >>> x = torch.eye(2).repeat(20, 1)
    >>> confusion(neurons(2), torch.eye(2), x, x).scores["splitting"]
    array([0.])
    """
    W, x = checked_truth(sae, truth, "confusion"), checked_samples(sae, activations, "confusion")
    rules = rules or Rules()
    found = Evidence.of(sae, x, active, len(W))
    pairs = nested(found.known, rules.least) if pairs is None else _known(pairs, len(W))
    judge = Judge(sae, W, found, pairs, rules)
    judged: dict[str, list[list[Row]]] = {name: [] for name in _SCHEMAS}
    scores: list[dict[str, float]] = []
    for run in judge.runs():
        each = _judged(run, pairs)
        for name, rows in each.items():
            judged[name].append(rows)
        scores.append(_scores(run, each))
    tables = {name: _table(rows, _SCHEMAS[name]) for name, rows in judged.items()}
    return Confusion(
        {name: np.array([score[name] for score in scores]) for name in scores[0]},
        judge=judge,
        **tables,
    )


def _known(pairs: Int[np.ndarray, "pairs 2"], k: int) -> Int[np.ndarray, "pairs 2"]:
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < k):
        raise ValueError(
            f"confusion(pairs=…): pairs of features by number, from 0 to {k - 1}, but they go "
            f"from {pairs.min()} to {pairs.max()}"
        )
    return pairs


def _judged(run: Comparison, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, list[Row]]:
    return {
        "map": _map(run),
        "absorption": absorbed(run, pairs),
        "splitting": _split(run),
        "merging": _merged(run),
        "hedging": _hedged(run),
    }


def _scores(run: Comparison, each: dict[str, list[Row]]) -> dict[str, float]:
    rates = np.array([row["rate"] for row in each["absorption"]])
    component = np.array([row["component"] for row in each["hedging"]])
    stands = len(np.unique(_stands_for(run)[1]))
    living = int((run.calls > 0).sum())
    return {
        "absorption": _mean(rates[np.isfinite(rates)]),
        "splitting": len(each["splitting"]) / stands if stands else np.nan,
        "merging": len(each["merging"]) / living if living else np.nan,
        "hedging": _mean(component > run.rules.trace),
        "hedging_component": _mean(component),
    }


def _map(run: Comparison) -> list[Row]:
    rows = []
    for where, both in together(run.on, run.called):
        positives = run.positives[where, None]
        either = positives + run.calls - both
        overlap = both / np.maximum(either, 1)
        close = (run.cosine[where] > run.rules.found) | (overlap > run.rules.found)
        for at, latent in zip(*np.nonzero(close), strict=True):
            feature = where.start + at
            rows.append(
                {
                    "feature": int(feature),
                    "latent": int(latent),
                    "cosine": float(run.cosine[feature, latent]),
                    "latent_given_feature": both[at, latent] / max(run.positives[feature], 1),
                    "feature_given_latent": both[at, latent] / max(run.calls[latent], 1),
                }
            )
    return rows


def _stands_for(run: Comparison) -> tuple[NDArray, NDArray]:
    """The latents that stand for one feature alone, and mostly fire when it is on; which one."""
    closest = run.cosine.argmax(0)
    enough = run.calls >= run.rules.least
    latent = np.flatnonzero((run.cosine.max(0) > run.rules.same) & enough)
    mostly = run.both(latent, closest[latent]) / run.calls[latent] > 0.5
    return latent[mostly], closest[latent[mostly]]


def _split(run: Comparison) -> list[Row]:
    latent, feature = _stands_for(run)
    order = np.argsort(feature, kind="stable")
    latent, feature = latent[order], feature[order]
    rows = []
    for group in np.split(latent, np.flatnonzero(np.diff(feature)) + 1):
        if len(group) < 2:
            continue
        one, other = np.triu_indices(len(group), 1)
        shared = overlaps(run.called, group[one], run.called, group[other])
        rarer = np.minimum(run.calls[group[one]], run.calls[group[other]])
        apart = shared / rarer <= run.rules.disjoint
        if apart.any():
            those = np.unique(np.concatenate([group[one[apart]], group[other[apart]]]))
            feature_of = int(run.cosine[:, group[0]].argmax())
            rows.append(
                {
                    "feature": feature_of,
                    "latents": those.tolist(),
                    "overlap": float((shared / rarer).min()),
                }
            )
    return rows


def _merged(run: Comparison) -> list[Row]:
    closest = run.cosine.argmax(0)
    feature, latent = np.nonzero((run.cosine > run.rules.part) & (run.calls > 0))
    first = closest[latent]
    own = feature == first
    enough = np.where(own, run.cosine[feature, latent], run.beyond(latent, feature, first))
    kept = enough > run.rules.found
    feature, latent = feature[kept], latent[kept]
    kept = run.both(latent, feature) / run.calls[latent] > run.rules.disjoint
    feature, latent = feature[kept], latent[kept]
    order = np.lexsort((-run.cosine[feature, latent], latent))
    feature, latent = feature[order], latent[order]
    groups = np.split(np.arange(len(latent)), np.flatnonzero(np.diff(latent)) + 1)
    groups = [group for group in groups if len(group) > 1]
    on, called = run.on.tocsc(), run.called.tocsc()
    rows = []
    for group in groups:
        at, those = int(latent[group[0]]), feature[group]
        two = on[:, [those[0]]].multiply(on[:, [those[1]]]).multiply(called[:, [at]])
        rows.append(
            {
                "latent": at,
                "features": those.tolist(),
                "cosines": run.cosine[those, at].tolist(),
                "together": float(two.sum() / run.calls[at]),
            }
        )
    return rows


def _hedged(run: Comparison) -> list[Row]:
    missing = np.flatnonzero(~run.has_latent & (run.positives >= run.rules.least))
    found = np.flatnonzero(run.has_latent & (run.positives >= run.rules.least))
    if not (len(missing) and len(found)):
        return []
    samples = len(run.features.indptr) - 1
    exact = run.features.astype(np.float64)
    mean = np.asarray(exact.mean(0))
    spread = np.sqrt(np.asarray(exact.power(2).mean(0)) - mean**2)
    columns = run.features.tocsc()
    wanted, given = Rows(columns[:, missing].tocsr()), Rows(columns[:, found].tocsr())
    rows = []
    for where, products in together(wanted, given):
        feature = missing[where]
        covariance = products / samples - np.outer(mean[feature], mean[found])
        scale = np.outer(spread[feature], spread[found])
        correlation = covariance / np.where(scale > 0, scale, np.inf)
        at, to = np.nonzero(np.abs(correlation) > run.rules.correlated)
        latent = run.assignment[found[to]]
        component = run.beyond(latent, feature[at], found[to]) * np.sign(correlation[at, to])
        for j, other, size in zip(at, to, component, strict=True):
            rows.append(
                {
                    "feature": int(found[other]),
                    "latent": int(run.assignment[found[other]]),
                    "missing": int(feature[j]),
                    "correlation": float(correlation[j, other]),
                    "component": float(size),
                }
            )
    return rows


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _schema(**fields: Any) -> pa.Schema:
    return pa.schema([("run", pa.int64()), *fields.items()])


_WHOLE, _REAL = pa.int64(), pa.float64()
_SCHEMAS = {
    "map": _schema(
        feature=_WHOLE,
        latent=_WHOLE,
        cosine=_REAL,
        latent_given_feature=_REAL,
        feature_given_latent=_REAL,
    ),
    "absorption": _schema(
        parent=_WHOLE,
        child=_WHOLE,
        samples=_WHOLE,
        rate=_REAL,
        rate_low=_REAL,
        rate_high=_REAL,
        weakening=_REAL,
        latents=pa.list_(_WHOLE),
    ),
    "splitting": _schema(feature=_WHOLE, latents=pa.list_(_WHOLE), overlap=_REAL),
    "merging": _schema(
        latent=_WHOLE, features=pa.list_(_WHOLE), cosines=pa.list_(_REAL), together=_REAL
    ),
    "hedging": _schema(
        feature=_WHOLE, latent=_WHOLE, missing=_WHOLE, correlation=_REAL, component=_REAL
    ),
}


def _table(runs: list[list[Row]], schema: pa.Schema) -> pa.Table:
    rows = [{"run": number} | row for number, run in enumerate(runs) for row in run]
    return pa.Table.from_pylist(rows, schema=schema)
