"""Absorption: a child's latent that says its parent as well, so that the parent's stays silent."""

from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import betaincinv

from superpose.unmix.comparison import Comparison
from superpose.unmix.firing import Rows, picked, size, switched_on, together, turned

Row = dict[str, Any]


def nested(features: Rows, least: int = 10) -> Int[np.ndarray, "pairs 2"]:
    """Pairs (parent, child) of features: the child is on only where its parent is.

    The child is on in at least `least` samples, in all of them with its parent, which is on more
    often; and this would not happen by chance: were they independent, it would have a probability
    below 0.05 over all pairs. Ancestors count as parents.
    """
    on = switched_on(features)
    samples, k = size(features)
    count = np.bincount(features.indices, minlength=k).astype(np.float64)
    found = []
    for where, both in together(on, on):
        child = np.arange(where.start, where.stop)
        own = count[child]
        chance = own[:, None] * np.log(np.maximum(count, 1) / samples)
        inside = (both == own[:, None]) & (count > own[:, None]) & (own >= least)[:, None]
        at, parent = np.nonzero(inside & (chance < np.log(0.05) - 2 * np.log(k)))
        found.append(np.stack([parent, child[at]], 1))
    return np.concatenate(found)


def absorbed(run: Comparison, pairs: Int[np.ndarray, "pairs 2"]) -> list[Row]:
    r"""How often the parent's latent is silent while a latent of its child speaks for both.

    For each pair P, C: of the samples with both on, the share in which the assigned latent of P
    is off and another is on that has the child in it (cosine above `found`) and the parent beyond
    what the child brings (component above `part`), with its exact binomial interval over samples.
    NaN where P has no latent, or where both are on in too few samples. `weakening` is the same in
    part: 1 − mean latent of P with the child over that without.
    Source: Chanin et al. 2024 (arXiv 2409.14507), with the true directions in place of probes.
    """
    if not len(pairs):
        return []
    parent, child = pairs.T
    choose = _absorbers(run, parent, child)
    on = run.on.tocsc()
    both = Rows(on[:, parent].multiply(on[:, child]).tocsr())
    own = picked(run.latents, run.assignment).tocsc()[:, parent]
    loud = switched_on(Rows(own.tocsr()))
    taken = Rows(both.multiply(switched_on(Rows(run.called @ choose))))
    silent = Rows((taken - taken.multiply(loud)).tocsr())
    silent.eliminate_zeros()
    number = np.asarray(both.sum(0), np.float64)
    known = run.has_latent[parent] & (number >= run.rules.least)
    hits = np.asarray(silent.sum(0), np.float64)
    rate = np.where(known, hits / np.maximum(number, 1), np.nan)
    # Clopper and Pearson, all pairs at once.
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), number - hits + 1, 0.025), 0.0)
    high = np.where(hits < number, betaincinv(hits + 1, np.maximum(number - hits, 1), 0.975), 1.0)
    alone = run.positives[parent] - number
    with_child = np.asarray(own.multiply(both).sum(0)) / np.maximum(number, 1)
    parents = np.asarray(own.multiply(on[:, parent]).sum(0))
    without = (parents - with_child * number) / np.where(alone > 0, alone, np.nan)
    weak = known & (without > 0)
    weakening = np.where(weak, 1 - with_child / np.where(weak, without, 1.0), np.nan)
    latents = Rows(Rows(turned(silent) @ run.called).multiply(turned(choose)))
    return [
        {
            "parent": int(parent[at]),
            "child": int(child[at]),
            "samples": int(number[at]),
            "rate": float(rate[at]),
            "rate_low": float(low[at]),
            "rate_high": float(high[at]),
            "weakening": float(weakening[at]),
            "latents": _most_first(latents, at),
        }
        for at in range(len(pairs))
    ]


def _absorbers(run: Comparison, parent: NDArray, child: NDArray, at_once: int = 256) -> Rows:
    """1 where a latent can absorb the parent of a pair, [d_sae, pairs]."""
    places = []
    for start in range(0, len(parent), at_once):
        mine, yours = parent[start : start + at_once], child[start : start + at_once]
        at, latent = np.nonzero(run.cosine[yours] > run.rules.found)
        beyond = run.beyond(latent, mine[at], yours[at])
        kept = (beyond > run.rules.part) & (latent != run.assignment[mine[at]])
        places.append(np.stack([latent[kept], at[kept] + start]))
    latent, pair = np.concatenate(places, 1)
    shape = (run.cosine.shape[1], len(parent))
    return Rows(sparse.coo_array((np.ones(len(latent), np.float32), (latent, pair)), shape=shape))


def _most_first(counts: Rows, row: int) -> list[int]:
    part = slice(counts.indptr[row], counts.indptr[row + 1])
    often, latent = np.asarray(counts.data)[part], np.asarray(counts.indices)[part]
    return latent[np.lexsort((latent, -often.astype(np.int64)))].tolist()
