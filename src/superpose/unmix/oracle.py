"""What is attainable: how well someone who knows the dictionary can explain the samples."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.statistics import Interval, mean_interval
from superpose.unmix.detection import Scores, resampled
from superpose.unmix.evidence import Errors, Evidence
from superpose.unmix.firing import Active, has_amplitudes
from superpose.unmix.matching import checked_samples, checked_truth
from superpose.unmix.sae import Dictionary
from superpose.unmix.weights import Samples

# Sweeps over the chosen atoms after each choice, and at the end of the last.
_SWEEPS, _LAST = 5, 50


@dataclass(frozen=True, slots=True, eq=False)
class OrthogonalPursuit:
    r"""A known dictionary that encodes greedily and refits what it chose: at most `k` atoms.

    Each round takes the atom of largest product with the residual and then minimises
    $\|x - b - z D\|^2$ over the non-negative amplitudes of the atoms taken so far, by coordinate
    descent. What no amplitude above zero can improve is left. It is a `Dictionary`: directions
    are the atoms at norm 1, `bias` is what all samples have in common.
    Source: Pati et al. 1993; non-negative as in Bruckstein et al. 2008.

    >>> pursuit = OrthogonalPursuit(torch.eye(2), torch.zeros(2), k=1)
    >>> pursuit.encode(torch.tensor([[3.0, 1.0]]))
    tensor([[3., 0.]])
    """

    directions: Float[Tensor, "k_atoms d_in"]
    bias: Float[Tensor, " d_in"]
    k: int

    def encode(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch k_atoms"]:
        """Non-negative amplitudes of at most k atoms."""
        return self.path(x)[0]

    def decode(self, z: Float[Tensor, "batch k_atoms"]) -> Float[Tensor, "batch d_in"]:
        """The sum of the atoms by their amplitudes, and the bias."""
        return z @ self.directions + self.bias

    def path(
        self, x: Float[Tensor, "batch d_in"]
    ) -> tuple[Float[Tensor, "batch k_atoms"], Float[Tensor, "batch rounds"]]:
        """The amplitudes, and the squared error after 0, 1, ... k atoms."""
        D, left = self.directions, x - self.bias
        errors = [(left**2).sum(-1)]
        chosen = torch.zeros((len(x), 0), dtype=torch.long)
        z = x.new_zeros((len(x), 0))
        for _ in range(min(self.k, len(D))):
            # An atom taken before has no product with the residual left, but for rounding.
            products = (left @ D.T).scatter(1, chosen, -torch.inf)
            chosen = torch.cat([chosen, products.argmax(1, keepdim=True)], 1)
            z = torch.cat([z, x.new_zeros((len(x), 1))], 1)
            atoms = D[chosen]
            last = chosen.shape[1] == min(self.k, len(D))
            z = _refit(atoms, x - self.bias, z, _LAST if last else _SWEEPS)
            left = x - self.bias - torch.einsum("bk,bkd->bd", z, atoms)
            errors.append((left**2).sum(-1))
        table = x.new_zeros((len(x), len(D))).scatter(1, chosen, z)
        return table, torch.stack(errors, 1)


def _refit(
    atoms: Float[Tensor, "batch taken d_in"],
    x: Float[Tensor, "batch d_in"],
    z: Float[Tensor, "batch taken"],
    sweeps: int,
) -> Float[Tensor, "batch taken"]:
    """Non-negative least squares on the atoms taken, by coordinate descent from z."""
    gram = atoms @ atoms.mT
    slope = torch.einsum("bkd,bd->bk", atoms, x) - torch.einsum("bkl,bl->bk", gram, z)
    z = z.clone()
    for _ in range(sweeps):
        for at in range(z.shape[1]):
            new = (z[:, at] + slope[:, at]).clamp(min=0)
            slope -= (new - z[:, at])[:, None] * gram[:, at]
            z[:, at] = new
    return z


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Squared errors in blocks of samples: of a dictionary, of sparse coding, of the truth."""

    seen: Errors
    coded: Float[np.ndarray, "blocks runs"]
    noise: Float[np.ndarray, " blocks"]

    def scores(self, weights: Float[np.ndarray, "*draws blocks"]) -> Scores:
        """`explained`, `coded` and `ceiling` as shares of the variance; `share`, `l0`."""
        seen, spread = self.seen.scores(weights), self.seen.spread(weights)[..., None]
        explained, coded = seen["explained_variance"], 1.0 - weights @ self.coded / spread
        ceiling = 1.0 - np.asarray(weights @ self.noise)[..., None] / spread
        return {
            "l0": seen["l0"],
            "explained": explained,
            "coded": coded,
            "ceiling": np.broadcast_to(ceiling, explained.shape),
            "share": explained / coded,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Attainable:
    """Explained variance of a dictionary beside that of who knows the truth, one number a run.

    `ceiling` is that of the true features themselves: what is left is noise. `coded` is that of
    sparse coding with the true directions at the L0 of each run, which spends its atoms on the
    samples where they explain most, `explained` that of the run, and `share` explained / coded.
    Above the L0 of the truth atoms that are off explain noise, so that coding can exceed the
    ceiling; and a dictionary fitted to data in superposition can exceed coding, as a direction
    between two features serves both.
    """

    scores: Scores
    true_l0: float
    sums: Shares

    @property
    def share(self) -> Float[np.ndarray, " runs"]:
        """Explained variance as a share of what sparse coding with the truth explains."""
        return self.scores["share"]

    @property
    def coded(self) -> Float[np.ndarray, " runs"]:
        """What sparse coding with the truth explains."""
        return self.scores["coded"]

    @property
    def explained(self) -> Float[np.ndarray, " runs"]:
        """What the dictionary explains."""
        return self.scores["explained"]

    @property
    def ceiling(self) -> float:
        """What the true features explain."""
        return float(self.scores["ceiling"][0])

    def interval(self, name: str = "share") -> Interval:
        """Mean of a score over the runs with its 95 % interval."""
        return mean_interval(self._named(name))

    def sample_interval(self, name: str = "share") -> Interval:
        """The same under resampling of the samples in blocks, for these runs."""
        value = float(self._named(name).mean())
        replicas = resampled([self.sums], name, len(self.sums.noise))
        low, high = np.quantile(replicas, [0.025, 0.975])
        return Interval(value, float(low), float(high))

    def table(self) -> pa.Table:
        """One row a run: run, l0, true_l0, explained, coded, ceiling, share."""
        runs = len(self.share)
        columns = {"run": np.arange(runs), "true_l0": np.full(runs, self.true_l0)}
        return pa.table(columns | self.scores)

    def _named(self, name: str) -> Float[np.ndarray, " runs"]:
        if name not in self.scores:
            raise ValueError(f"interval({name!r}): the scores are {', '.join(self.scores)}")
        return self.scores[name]


@torch.no_grad()
def attainable(
    sae: Dictionary,
    truth: Samples,
    activations: Samples,
    active: Active,
    bias: Float[Tensor, " d_in"] | None = None,
) -> Attainable:
    r"""How much of what is attainable a dictionary explains, on the same samples.

    `truth` are the directions as long as they are and `active` the amplitudes f, so that
    $x = f W + b$ + noise; `bias` is b, by default the mean of x − f W. All three explained
    variances are $1 - \sum\|x - \hat x\|^2 / \sum\|x - \bar x\|^2$. Sparse coding is
    `OrthogonalPursuit` of at most 2 L0 + 2 atoms a sample, of which L0 on average are kept, those
    of largest gain. It takes as many products with all directions: some thousand samples do.
    Raises ValueError as `match` does.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    >>> from superpose.unmix.baselines import neurons
    >>> attainable(neurons(2), torch.eye(2), x, x).share.round(6)
    array([1.])
    """
    truth = checked_truth(sae, truth, "attainable")
    x = checked_samples(sae, activations, "attainable")
    if not has_amplitudes(active):
        raise ValueError(
            "attainable: active says which features are on, not how much; give amplitudes f, so "
            "that x = f W + b"
        )
    found = Evidence.of(sae, x, active, len(truth))
    x = x.cpu()
    once = np.ones(len(found.errors.samples))
    l0 = found.errors.scores(once)["l0"]
    left = x.double() - torch.from_numpy(found.known.astype(np.float64) @ truth.double().numpy())
    base = left.mean(0) if bias is None else bias.detach().cpu().double()
    unit = torch.nn.functional.normalize(truth, dim=-1)
    rounds = min(2 * int(np.ceil(l0.max())) + 2, len(truth))
    pursuit = OrthogonalPursuit(unit, base.float(), rounds)
    # The products with all directions and the atoms of each sample are the largest tables.
    step = max(1, 2**24 // (len(unit) + rounds * x.shape[1]))
    errors = torch.cat([pursuit.path(part)[1] for part in x.split(step)]).double().numpy()
    noise = ((left - base) ** 2).sum(-1).numpy()
    coded = _spent(errors, l0 * len(x))
    sums = Shares(found.errors, found.summing @ coded, found.summing @ noise)
    return Attainable(sums.scores(once), len(found.known.data) / len(x), sums)


def _spent(
    errors: Float[np.ndarray, "samples rounds"], atoms: Float[np.ndarray, " runs"]
) -> Float[np.ndarray, "samples runs"]:
    """The squared errors left by so many atoms in all, taken where they gain most.

    An atom can only be taken after those before it, so it waits for the least of their gains.
    """
    gains = -np.diff(errors, axis=1)
    order = np.argsort(-np.minimum.accumulate(gains, axis=1), axis=None, kind="stable")
    rank = np.empty(gains.size)
    rank[order] = np.arange(gains.size)
    # The last of them is taken in part.
    left = [
        errors[:, 0] - (gains * (number - rank).clip(0, 1).reshape(gains.shape)).sum(1)
        for number in atoms
    ]
    return np.stack(left, 1)
