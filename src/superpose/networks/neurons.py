"""Which neurons mix several labels, and which latents take them apart."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from superpose.activations import Activations
from superpose.networks.naming import DEAD, Name, Names, latents, name, strong_above
from superpose.unmix import SAE, neurons


@dataclass(frozen=True, slots=True, kw_only=True)
class Neuron:
    """One neuron, or one sign of it: what its strong activations mix and what un-mixes them.

    `sign` is −1 for the negative side of a neuron that has one. `evidence` is the neuron's own
    `Name`, found as a latent's is. `latents` are the latents that carry most of the neuron's
    strong activations, `shares` how much of what all latents add to the neuron there.
    """

    neuron: int
    sign: int
    evidence: Name
    latents: tuple[int, ...] = ()
    latent_names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def mixes(self) -> tuple[str, ...]:
        """The labels it is active on more often than elsewhere, the strongest first."""
        return self.evidence.enriched

    @property
    def polysemantic(self) -> bool:
        """Whether two labels or more are enriched in its strong activations."""
        return len(self.mixes) > 1


@dataclass(frozen=True, slots=True, eq=False)
class Neurons:
    """A `Neuron` for each unit of the layer, and for each negative side that is ever active."""

    each: tuple[Neuron, ...]

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, place: int) -> Neuron:
        return self.each[place]

    @property
    def polysemantic(self) -> tuple[Neuron, ...]:
        """The neurons that mix two labels or more, the most mixed first."""
        mixed = [neuron for neuron in self.each if neuron.polysemantic]
        return tuple(sorted(mixed, key=lambda neuron: -neuron.evidence.mixture))

    def table(self) -> pa.Table:
        """One row a neuron and sign.

        Columns: neuron, sign, name, polysemantic, mixes, mixture, score, score_low, score_high,
        precision, firing_rate, examples, latents, latent_names, shares.
        """
        rows = [
            {
                "neuron": n.neuron,
                "sign": n.sign,
                "name": n.evidence.name,
                "polysemantic": n.polysemantic,
                "mixes": list(n.mixes),
                "mixture": n.evidence.mixture,
                "score": n.evidence.score.estimate,
                "score_low": n.evidence.score.low,
                "score_high": n.evidence.score.high,
                "precision": n.evidence.detection.precision.estimate,
                "firing_rate": n.evidence.firing_rate,
                "examples": list(n.evidence.examples),
                "latents": list(n.latents),
                "latent_names": list(n.latent_names),
                "shares": list(n.shares),
            }
            for n in self.each
        ]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)


_NUMBERS = ("mixture", "score", "score_low", "score_high", "precision", "firing_rate")
_SCHEMA = pa.schema(
    [
        ("neuron", pa.int64()),
        ("sign", pa.int64()),
        ("name", pa.string()),
        ("polysemantic", pa.bool_()),
        ("mixes", pa.list_(pa.string())),
        *((column, pa.float64()) for column in _NUMBERS),
        ("examples", pa.list_(pa.int64())),
        ("latents", pa.list_(pa.int64())),
        ("latent_names", pa.list_(pa.string())),
        ("shares", pa.list_(pa.float64())),
    ]
)


def untangle(
    sae: SAE,
    acts: Activations,
    names: Names | None = None,
    *,
    member: int = 0,
    top: int = 3,
    seed: int = 0,
) -> Neurons:
    r"""What each neuron mixes, and the `top` latents that un-mix it.

    Neurons are named as latents are, by `name(unmix.neurons(d), acts)`. On the samples where a
    neuron is strongest (where it is above 0 and in its top quarter), latent k adds
    $z_k W_{dec,kj}$ to neuron j; the latents with the largest means are those that un-mix it.
    `names` are the names of the latents of `member`, found here if they are not given.

    >>> import torch
    >>> x = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).repeat(20, 1)
    >>> found = untangle(neurons(2), Activations(x, labels=["cat", "dog"] * 20))
    >>> found[1].latents, found[1].latent_names
    ((1,), ('dog',))
    """
    names = name(sae, acts, member=member, seed=seed) if names is None else names
    d = acts.x.shape[1]
    basis = neurons(d)
    evidence = name(basis, acts, level=names.level, seed=seed)
    sides = latents(basis, acts)
    z = latents(sae, acts, member)
    W_dec = (sae if sae.W_dec.ndim == 2 else sae[member]).W_dec.detach().cpu().numpy()
    found = []
    for place in range(2 * d):
        sign, neuron = (1, place) if place < d else (-1, place - d)
        if sign < 0 and evidence[place].name == DEAD:
            continue
        added = sign * _strong_mean(z, sides[:, place]) * W_dec[:, neuron]
        shares = np.maximum(added, 0.0) / max(float(np.maximum(added, 0.0).sum()), 1e-12)
        chosen = [int(k) for k in np.argsort(-shares, kind="stable")[:top] if shares[k] > 0]
        found.append(
            Neuron(
                neuron=neuron,
                sign=sign,
                evidence=evidence[place],
                latents=tuple(chosen),
                latent_names=tuple(names[k].name for k in chosen),
                shares=tuple(float(shares[k]) for k in chosen),
            )
        )
    return Neurons(tuple(found))


def _strong_mean(
    z: Float[np.ndarray, "samples latents"], side: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, " latents"]:
    """Mean latents where one side of a neuron is strong, 0 where it never is."""
    strong = side > strong_above(side[:, None])
    return z[strong].mean(0) if strong.any() else np.zeros(z.shape[1], z.dtype)
