r"""Mixing: with fewer active latents than active features, wrong directions explain more.

Must show: where a batch may have fewer active latents than the world has active features, the
true dictionary has a larger squared error than what training finds, even when training starts at
the truth, and what it finds mixes features; the mean size of the cosines between its decoder's
rows, $c_{dec}$, is least where the number allowed is the true one.
Source: Chanin & Garriga-Alonso 2025, "Sparse but wrong".
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from superpose.experiments.saebench.pathologies import worlds
from superpose.truth import Firing, Folded, LowRank, Mixture
from superpose.unmix import SAE, BatchTopK, SAETraining

FEATURES, DIMS = 20, 40
_SCORED = 20_000


def world(seed: int, correlated: bool = True) -> Mixture:
    """20 orthogonal features in 40 dimensions, five on in the mean, correlated or not."""
    copula = LowRank.random(FEATURES, 5, 0.35, seed) if correlated else None
    law = Firing(
        p=np.linspace(0.35, 0.15, FEATURES), amplitude=Folded(1.0, 0.15), correlation=copula
    )
    return worlds.orthogonal(law, DIMS, seed)


def mixing(
    active: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10),
    *,
    correlated: bool = True,
    seeds: int = 3,
    seed: int = 0,
    training: SAETraining | None = None,
) -> pa.Table:
    """BatchTopK from random and from true first weights; a row a start, number active and seed.

    `start` ("random" or "truth"), `k`, `seed`; `error`, the squared error a sample with the k
    largest latents a sample in the mean, as in training, and `error_true` that of the true
    dictionary with as many; `mmcs`, the mean largest cosine of the features; `c_dec`.
    """
    rows = []
    for run in range(seed, seed + seeds):
        truth = world(run, correlated)
        x = truth.sample(_SCORED, run).x
        codes = [BatchTopK(d_sae=FEATURES, k=k) for k in active]
        found = {
            "random": worlds.trained(truth, codes, training, run),
            "truth": [worlds.from_truth(truth, code, training, run) for code in codes],
        }
        for start, saes in found.items():
            rows += [
                {
                    "start": start,
                    "k": code.k,
                    "seed": run,
                    "error": _error(sae, x, code.k),
                    "error_true": _error(_true(truth, code), x, code.k),
                    "mmcs": float(worlds.cosines(sae, truth).max(1).mean()),
                    "c_dec": mean_overlap(sae),
                }
                for code, sae in zip(codes, saes, strict=True)
            ]
    return pa.Table.from_pylist(rows)


def mean_overlap(sae: SAE) -> float:
    """The mean size of the cosine of two of a dictionary's directions, c_dec.

    >>> eye, zeros = torch.eye(2), torch.zeros(2)
    >>> mean_overlap(SAE(eye, zeros, eye, zeros, BatchTopK(d_sae=2, k=1)))
    0.0
    """
    unit = sae.directions.double()
    sizes = (unit @ unit.mT).abs()
    number = len(unit)
    return float((sizes.sum() - sizes.diagonal().sum()) / (number * (number - 1)))


def _true(truth: Mixture, code: BatchTopK) -> SAE:
    W, none = truth.directions, torch.zeros(code.d_sae)
    return SAE(W.mT, none, W, truth.bias, code, extra={"threshold": none})


@torch.no_grad()
def _error(sae: SAE, x: torch.Tensor, k: int) -> float:
    """With the k · samples largest latents, whatever threshold training ended with."""
    nobody = torch.zeros(len(sae.b_enc), dtype=torch.bool)
    found = BatchTopK(d_sae=len(nobody), k=k).objective(sae, x, x, nobody)
    return float((found.error.double() ** 2).sum(-1).mean())
