"""Matching a dictionary to the true directions: did it find what was put in?"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.special import betainc
from torch import Tensor

from superpose.statistics import Interval, mean_interval
from superpose.unmix.sae import Dictionary

THRESHOLD = 0.9
_CHUNK = 16_384
_NEEDS = {
    "l0": "activations",
    "explained_variance": "activations",
    "dead": "activations",
    "firing_precision": "activations and active",
    "firing_recall": "activations and active",
    "firing_f1": "activations and active",
}


@dataclass(frozen=True, slots=True)
class Match:
    """The scores of a dictionary by name, one number a run, and who was matched with whom.

    A score is read as an attribute, `match.recall`. `assignment` holds the latent of each true
    direction in the one-to-one matching of largest total cosine, −1 where there were too few.
    """

    scores: dict[str, Float[np.ndarray, " runs"]]
    assignment: Int[np.ndarray, "runs k"]

    def __getattr__(self, name: str) -> Float[np.ndarray, " runs"]:
        if name.startswith("__") or name in ("scores", "assignment"):
            raise AttributeError(name)
        if name in self.scores:
            return self.scores[name]
        if name in _NEEDS:
            raise AttributeError(f"match.{name} was not measured: give match() {_NEEDS[name]}")
        raise AttributeError(f"match.{name}: the scores are {', '.join(self.scores)}")

    def interval(self, name: str) -> Interval:
        """Mean of a score over the runs with its 95 % interval."""
        return mean_interval(getattr(self, name))

    def table(self) -> pa.Table:
        """One row a run, one column a score."""
        runs = len(self.assignment)
        return pa.table({"run": np.arange(runs), **self.scores})


def match(
    sae: Dictionary,
    truth: Float[Tensor, "k d_in"],
    activations: Float[Tensor, "samples d_in"] | None = None,
    active: Bool[Tensor, "rows features"] | None = None,
) -> Match:
    r"""Score a dictionary against the true directions, by signed cosine: rays, not lines.

    From directions alone: `mmcs`, the mean over true directions of the largest cosine with a
    latent; `mmcs_reverse`, latents and truth exchanged; `mmcs_random`, what as many random
    directions would reach; `mcc`, the mean cosine of the one-to-one matching; `recall`, the share
    of true directions with a latent at cosine above 0.9; `precision`, the share of latents with
    exactly one true direction above 0.9; `uniqueness`, the share of latents
    whose partner in the one-to-one matching lies above 0.9, which duplicates lower; `f1` of recall
    and precision.

    With `activations`: `l0`, latents active a sample; `explained_variance`,
    $1 - \sum\|x - \hat x\|^2 / \sum\|x - \bar x\|^2$; `dead`, the share of latents that never
    fire on these samples, which `precision` and `uniqueness` then leave out.

    With `active`, which feature is on in which sample: `firing_precision`, `firing_recall` and
    `firing_f1` of the assigned latent as a detector of its feature, averaged over the features
    that are ever on. A feature whose latent is at 0.9 or less is not covered and counts 0.

    All lie in [0, 1] or [−1, 1], 1 is good, but for l0 and dead. Raises ValueError for true
    directions of zero length and shapes that do not fit.

    >>> from superpose.unmix.baselines import neurons
    >>> match(neurons(2), torch.tensor([[2.0, 0.0], [0.0, -1.0]])).recall
    array([1.])
    """
    _check(sae, truth, activations, active)
    unit = torch.nn.functional.normalize(truth.detach().double().cpu(), dim=-1)
    directions = sae.directions.detach().double().cpu()
    directions = directions.reshape(-1, *directions.shape[-2:])
    cosine = (unit @ directions.mT).numpy()
    assignment = np.stack([_assign(run) for run in cosine])
    measured, alive = {}, np.ones((len(cosine), cosine.shape[-1]), bool)
    if activations is not None:
        covered = _assigned(cosine, assignment) > THRESHOLD
        watch = _Watch(len(cosine), cosine.shape[-1], assignment, covered)
        watch.read(sae, activations, active)
        measured, alive = watch.scores(), watch.fired
    return Match(_geometry(cosine, assignment, alive, directions.shape[-1]) | measured, assignment)


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
    half = (d_in - 1) / 2

    def above(c: float) -> float:
        return float(1.0 - betainc(half, half, (1 + c) / 2) ** d_sae)

    return quad(above, -1, 0)[0] + quad(above, 0, 1, limit=200)[0] - 1.0


def _check(
    sae: Dictionary,
    truth: Tensor,
    activations: Tensor | None,
    active: Tensor | None,
) -> None:
    d_in = sae.directions.shape[-1]
    if truth.ndim != 2 or truth.shape[1] != d_in or len(truth) == 0:
        raise ValueError(f"match: truth of shape {list(truth.shape)} has to be [k, d_in={d_in}]")
    short = (~(truth.norm(dim=-1) > 0)).nonzero().ravel().tolist()
    if short:
        raise ValueError(
            f"match: true directions {short[:5]} have no length; leave out features that the "
            "model does not represent"
        )
    if active is None:
        return
    if activations is None:
        raise ValueError("match: active needs the activations of the same samples")
    if active.shape != (len(activations), len(truth)):
        raise ValueError(
            f"match: active of shape {list(active.shape)} has to be [samples={len(activations)}, "
            f"k={len(truth)}]"
        )


def _assign(cosine: Float[np.ndarray, "k d_sae"]) -> Int[np.ndarray, " k"]:
    latent = np.full(len(cosine), -1)
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    latent[rows] = columns
    return latent


def _assigned(
    cosine: Float[np.ndarray, "runs k d_sae"], assignment: Int[np.ndarray, "runs k"]
) -> Float[np.ndarray, "runs k"]:
    """Cosine of each true direction with its latent, 0 where it has none."""
    picked = np.take_along_axis(cosine, assignment.clip(0)[..., None], -1)[..., 0]
    return np.where(assignment < 0, 0.0, picked)


def _geometry(
    cosine: Float[np.ndarray, "runs k d_sae"],
    assignment: Int[np.ndarray, "runs k"],
    alive: Bool[np.ndarray, "runs d_sae"],
    d_in: int,
) -> dict[str, Float[np.ndarray, " runs"]]:
    close = cosine > THRESHOLD
    living = alive.sum(-1)
    recall = close.any(-1).mean(-1)
    precision = _share(((close.sum(-2) == 1) & alive).sum(-1), living)
    cosines = _assigned(cosine, assignment)
    paired = (cosines > THRESHOLD) & np.take_along_axis(alive, assignment.clip(0), -1)
    return {
        "mmcs": cosine.max(-1).mean(-1),
        "mmcs_reverse": cosine.max(-2).mean(-1),
        "mmcs_random": np.full(len(cosine), random_mmcs(d_in, cosine.shape[-1])),
        "mcc": cosines.mean(-1),
        "recall": recall,
        "precision": precision,
        "uniqueness": _share(paired.sum(-1), living),
        "f1": _harmonic(recall, precision),
    }


class _Watch:
    """Sums over samples, chunk by chunk: errors, firing, and hits of the assigned latents."""

    def __init__(
        self,
        runs: int,
        d_sae: int,
        assignment: Int[np.ndarray, "runs k"],
        covered: Bool[np.ndarray, "runs k"],
    ) -> None:
        self.assignment, self.covered = assignment, covered
        self.fired = np.zeros((runs, d_sae), bool)
        self.active, self.error = np.zeros(runs), np.zeros(runs)
        self.samples, self.spread = 0, 0.0
        k = assignment.shape[1]
        self.hits, self.calls, self.positives = np.zeros((runs, k)), np.zeros((runs, k)), None

    @torch.no_grad()
    def read(self, sae: Dictionary, x: Tensor, active: Tensor | None) -> None:
        centre = x.double().mean(0)
        self.samples = len(x)
        self.spread = sum(float(((part.double() - centre) ** 2).sum()) for part in x.split(_CHUNK))
        if active is not None:
            self.positives = active.sum(0).cpu().numpy()
        for start in range(0, len(x), _CHUNK):
            part = x[start : start + _CHUNK]
            code = sae.encode(part)
            left = part - sae.decode(code)
            left = left.reshape(-1, *left.shape[-2:]).double()
            self.error += (left**2).sum((-1, -2)).cpu().numpy()
            on = (code > 0).reshape(-1, *code.shape[-2:]).cpu()
            self.fired |= on.any(-2).numpy()
            self.active += on.sum((-1, -2)).numpy()
            if active is not None:
                truth = active[start : start + _CHUNK].cpu().numpy()
                self._count_hits(on.numpy(), truth)

    def _count_hits(
        self, on: Bool[np.ndarray, "runs batch d_sae"], truth: Bool[np.ndarray, "batch k"]
    ) -> None:
        calls = np.take_along_axis(on, self.assignment.clip(0)[:, None, :], -1)
        self.calls += calls.sum(-2)
        self.hits += (calls & truth).sum(-2)

    def scores(self) -> dict[str, Float[np.ndarray, " runs"]]:
        spread = self.spread or np.nan
        scores = {
            "l0": self.active / self.samples,
            "explained_variance": 1.0 - self.error / spread,
            "dead": 1.0 - self.fired.mean(-1),
        }
        if self.positives is not None:
            precision = np.where(self.covered, _share(self.hits, self.calls), 0.0)
            recall = np.where(self.covered, _share(self.hits, self.positives), 0.0)
            seen = self.positives > 0
            for name, each in (
                ("firing_precision", precision),
                ("firing_recall", recall),
                ("firing_f1", _harmonic(precision, recall)),
            ):
                scores[name] = each[:, seen].mean(-1) if seen.any() else np.full(len(each), np.nan)
        return scores


def _share(part: NDArray, whole: NDArray) -> NDArray:
    """part / whole, 0 where there is nothing."""
    return part / np.maximum(whole, 1)


def _harmonic(a: NDArray, b: NDArray) -> NDArray:
    return 2 * a * b / np.where(a + b > 0, a + b, 1.0)
