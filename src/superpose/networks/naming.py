"""Naming: which label a unit stands for, on what evidence, and how well it detects it.

Evidence and score come from different halves of the samples: labels are found enriched on the
discovery half, with false discoveries controlled over all units and labels, and the name is
scored on the held-out half, which had no part in choosing it.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats
from scipy.optimize import root_scalar

from superpose.activations import Activations
from superpose.statistics import Interval, false_discovery_q, proportion_interval
from superpose.unmix import SAE, Dictionary

UNNAMED, DEAD = "unnamed", "dead"
_LARGEST_SET = 3
_UNMEASURED = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class Detection:
    """How well a latent detects its labels on held-out samples; NaN for a latent without any.

    `score` is the area under the ROC curve (0.5 is chance, 1 perfect), `precision` the share of
    its labels where it is active, `recall` the share of its labels' samples where it is.
    """

    score: Interval = _UNMEASURED
    precision: Interval = _UNMEASURED
    recall: Interval = _UNMEASURED


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What one latent stands for, and the evidence.

    `q` is the largest q-value among `labels`, which are few or none. `firing_rate` is the share of
    samples where the latent is above 0, `examples` are the samples of its strongest activations,
    strongest first, `share` is how many of them have its labels.

    `enriched` are all labels with a q-value within the level, the one with most activation first,
    and `mixture` is the effective number of labels in its strong activations, the exponential of
    the entropy of their shares (1 is a single label).
    """

    latent: int
    labels: tuple[str, ...] = ()
    q: float = np.nan
    detection: Detection = Detection()
    firing_rate: float = 0.0
    examples: tuple[int, ...] = ()
    share: float = np.nan
    enriched: tuple[str, ...] = ()
    mixture: float = np.nan

    @property
    def name(self) -> str:
        """Its labels, or "unnamed" where none is enriched, or "dead" where it never fires."""
        return " or ".join(self.labels) or (UNNAMED if self.examples else DEAD)

    @property
    def score(self) -> Interval:
        """The area under the ROC curve of its detection."""
        return self.detection.score


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """A `Name` for each latent, in their order; `advice` says why there are none, or few."""

    latents: tuple[Name, ...]
    level: float
    advice: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, latent: int) -> Name:
        return self.latents[latent]

    @property
    def named(self) -> tuple[Name, ...]:
        """The latents that have a name."""
        return tuple(each for each in self.latents if each.labels)

    @property
    def named_share(self) -> float:
        """The share of living latents that have a name; NaN if all are dead."""
        living = sum(each.name != DEAD for each in self.latents)
        return len(self.named) / living if living else np.nan

    def table(self) -> pa.Table:
        """One row a latent.

        Columns: latent, name, labels, q, score, score_low, score_high, precision, precision_low,
        precision_high, recall, recall_low, recall_high, firing_rate, examples, share, enriched,
        mixture.
        """
        columns: dict[str, pa.Array] = {}
        for column, kind in _COLUMNS.items():
            values = [getattr(each, column) for each in self.latents]
            if kind is not None:
                columns[column] = pa.array(values, kind)
                continue
            for part in ("score", "precision", "recall"):
                intervals = [getattr(detection, part) for detection in values]
                columns[part] = pa.array([each.estimate for each in intervals], pa.float64())
                columns[f"{part}_low"] = pa.array([each.low for each in intervals], pa.float64())
                columns[f"{part}_high"] = pa.array([each.high for each in intervals], pa.float64())
        return pa.table(columns)


# None marks what spreads over columns of its own.
_COLUMNS: dict[str, pa.DataType | None] = {
    "latent": pa.int64(),
    "name": pa.string(),
    "labels": pa.list_(pa.string()),
    "q": pa.float64(),
    "detection": None,
    "firing_rate": pa.float64(),
    "examples": pa.list_(pa.int64()),
    "share": pa.float64(),
    "enriched": pa.list_(pa.string()),
    "mixture": pa.float64(),
}


def name(
    dictionary: Dictionary,
    acts: Activations,
    *,
    member: int = 0,
    level: float = 0.05,
    strongest: float = 0.25,
    seed: int = 0,
) -> Names:
    """Name each latent of one `member` of a dictionary by the labels it fires on.

    A latent counts as active where it is above 0 and among its `strongest` share of the discovery
    samples: for sparse latents that is wherever they fire, for dense neurons where they are strong.
    Each latent is tested against each label (Fisher's exact test, one-sided: active more often on
    the label than elsewhere), and all tests share one control of false discoveries (Benjamini and
    Hochberg at `level`). Of the enriched labels the one with the best F1 on the discovery half
    becomes the name, joined by up to two more as long as they raise it. Plain neurons are named
    through `unmix.neurons(d)`.

    Labels are `acts.labels`, or `acts.tokens` where there are none; with neither, all living
    latents are unnamed, and `advice` says so. A name says what a latent detects among the labels
    given, not what it means: what was never labelled cannot be found.

    Raises ValueError for a dictionary of other dimensions, a member that is not there, and
    `level` or `strongest` outside (0, 1).

    >>> from superpose.unmix import neurons
    >>> x = torch.eye(2).repeat(20, 1)
    >>> names = name(neurons(2), Activations(x, labels=["cat", "dog"] * 20))
    >>> [each.name for each in names.latents]
    ['cat', 'dog', 'dead', 'dead']
    """
    for option, value in (("level", level), ("strongest", strongest)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"name({option}={value!r}): {option} is a share and lies in (0, 1)")
    z = latents(dictionary, acts, member)
    labels = acts.labels if acts.labels is not None else acts.tokens
    if labels is None:
        why = "these activations have no labels, so nothing could be named; pass labels="
        return Names(tuple(_nameless(k, z[:, k]) for k in range(z.shape[1])), level, (why,))
    evidence = _Evidence(z, labels, level, strongest, seed)
    named = tuple(evidence.name(k) for k in range(z.shape[1]))
    return Names(named, level, evidence.advice)


@torch.no_grad()
def latents(
    dictionary: Dictionary, acts: Activations, member: int = 0
) -> Float[np.ndarray, "samples latents"]:
    """What the latents of one member say on each sample."""
    d_in = dictionary.directions.shape[-1]
    if d_in != acts.x.shape[1]:
        raise ValueError(
            f"name: the dictionary has {d_in} dimensions, the activations {acts.x.shape[1]}"
        )
    stack = dictionary.directions.shape[:-2]
    if stack and not -stack[0] <= member < stack[0]:
        raise ValueError(f"name(member={member}): the dictionary has {stack[0]} members")
    if stack and isinstance(dictionary, SAE):
        dictionary, stack = dictionary[member], ()
    z = dictionary.encode(acts.x)
    return (z[member] if stack else z).cpu().numpy()


class _Evidence:
    """Counts of every latent against every label on the discovery half, and their q-values."""

    def __init__(
        self,
        z: Float[np.ndarray, "samples latents"],
        labels: Shaped[np.ndarray, " samples"],
        level: float,
        strongest: float,
        seed: int,
    ) -> None:
        values, self.code = np.unique(labels, return_inverse=True)
        self.labels = tuple(str(value) for value in values)
        self.z, self.level = z, level
        self.discovery, self.held_out = _halves(self.code, seed)
        first = z[self.discovery]
        self.threshold = strong_above(first, strongest)
        member = np.eye(len(values), dtype=np.float32)[self.code[self.discovery]]
        active = first > self.threshold
        self.hits = (active.astype(np.float32).T @ member).astype(np.int64)
        self.calls, self.positives = active.sum(0), member.sum(0).astype(np.int64)
        self.q = self._q_values()
        few = "" if (self.q <= level).any() else "no label is enriched in any latent"
        self.advice = (few,) if few else ()

    def _q_values(self) -> Float[np.ndarray, "latents labels"]:
        samples = len(self.discovery)
        p = stats.hypergeom.sf(self.hits - 1, samples, self.positives, self.calls[:, None])
        q = np.ones_like(p)
        # A latent that is silent here gives no test, whatever the labels are.
        q[self.calls > 0] = false_discovery_q(np.clip(p[self.calls > 0], 0.0, 1.0))
        return q

    def name(self, latent: int) -> Name:
        z = self.z[:, latent]
        active = z > self.threshold[latent]
        mass = np.bincount(self.code, z * active, len(self.labels))
        enriched = np.flatnonzero(self.q[latent] <= self.level)
        enriched = enriched[np.argsort(-mass[enriched], kind="stable")]
        blank = _nameless(latent, z)
        if blank.name == DEAD:
            return blank
        chosen = self._choose(latent, enriched)
        described = replace(
            blank,
            enriched=tuple(self.labels[label] for label in enriched),
            mixture=_effective_number(mass),
        )
        if not chosen:
            return described
        words = tuple(self.labels[label] for label in chosen)
        truth = np.isin(self.code, chosen)
        return replace(
            described,
            labels=words,
            q=float(self.q[latent, chosen].max()),
            detection=_detect(z[self.held_out], active[self.held_out], truth[self.held_out]),
            share=float(truth[list(blank.examples)].mean()),
        )

    def _choose(self, latent: int, enriched: Int[np.ndarray, " some"]) -> list[int]:
        """Labels added one by one while the F1 of their union rises."""
        chosen: list[int] = []
        best = 0.0
        while len(chosen) < _LARGEST_SET:
            left = [label for label in enriched.tolist() if label not in chosen]
            f1 = [self._f1(latent, [*chosen, label]) for label in left]
            if not f1 or max(f1) <= best:
                break
            best = max(f1)
            chosen.append(left[int(np.argmax(f1))])
        return chosen

    def _f1(self, latent: int, labels: list[int]) -> float:
        both = self.calls[latent] + self.positives[labels].sum()
        return float(2 * self.hits[latent, labels].sum() / both)


def strong_above(
    z: Float[np.ndarray, "samples latents"], strongest: float = 0.25
) -> Float[np.ndarray, " latents"]:
    """Above which value a latent is strong: 0, or what its `strongest` share of samples exceeds."""
    top = z.max(0)
    bound = np.quantile(z, 1 - strongest, axis=0).astype(z.dtype)
    # Where the largest value itself is that common, it alone is strong.
    bound = np.where(bound >= top, np.nextafter(top, np.float32(-np.inf)), bound)
    return np.maximum(bound, 0)


def _halves(
    code: Int[np.ndarray, " samples"], seed: int
) -> tuple[Int[np.ndarray, " first"], Int[np.ndarray, " second"]]:
    """Two random halves with the same number of each label, give or take one."""
    order = np.lexsort((np.random.default_rng(seed).random(len(code)), code))
    return order[::2], order[1::2]


def _nameless(latent: int, z: Float[np.ndarray, " samples"], top: int = 9) -> Name:
    rate = float((z > 0).mean())
    strongest = np.argsort(-z, kind="stable")[:top]
    examples = tuple(int(i) for i in strongest if z[i] > 0)
    return Name(latent=latent, firing_rate=rate, examples=examples)


def _detect(
    z: Float[np.ndarray, " samples"],
    active: Bool[np.ndarray, " samples"],
    truth: Bool[np.ndarray, " samples"],
) -> Detection:
    hits = int((active & truth).sum())
    return Detection(
        auc_interval(z, truth),
        proportion_interval(hits, int(active.sum())),
        proportion_interval(hits, int(truth.sum())),
    )


def auc_interval(
    z: Float[np.ndarray, " samples"], truth: Bool[np.ndarray, " samples"], level: float = 0.95
) -> Interval:
    r"""Area under the ROC curve of `z` as a detector of `truth`, with a score interval.

    The chance that a positive has the larger value, ties counting half. The limits are where
    $(\hat A - A)^2 = c^2\,V(A)$, with the variance of exponential scores: unlike a standard
    error, it does not vanish for a perfect detector. NaN if either class is empty.
    Source: Newcombe 2006, Statistics in Medicine 25, method 5; Hanley & McNeil 1982.

    >>> print(auc_interval(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True])))
    1 [0.386, 1]
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return Interval(np.nan, np.nan, np.nan, level)
    rank = stats.rankdata(z)[truth].sum()
    area = float((rank - positives * (positives + 1) / 2) / (positives * negatives))
    wide = float(stats.norm.ppf((1 + level) / 2)) ** 2
    more = (positives + negatives) / 2 - 1

    def gap(a: float) -> float:
        spread = a * (1 - a) * (1 + more * ((1 - a) / (2 - a) + a / (1 + a)))
        return (area - a) ** 2 - wide * spread / (positives * negatives)

    # At the estimate itself the gap is negative, or a root that is not the limit.
    low = root_scalar(gap, bracket=(0.0, area * (1 - 1e-9))).root if area > 0.0 else 0.0
    high = root_scalar(gap, bracket=(area + (1 - area) * 1e-9, 1.0)).root if area < 1.0 else 1.0
    return Interval(area, float(low), float(high), level)


def _effective_number(mass: Float[np.ndarray, " labels"]) -> float:
    total = mass.sum()
    if not total > 0:
        return np.nan
    share = mass[mass > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
