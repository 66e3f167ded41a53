r"""Composition: features that always come in pairs are learned as pairs.

Must show: where each of three features x comes with one of three features y, an L1 dictionary
with room for all learns the nine sums x + y, each of which costs √2 where its two parts cost 2;
where the same features fire on their own, as often, it learns the six.
Source: Anders et al. 2024, "Sparse autoencoders find composed features in small toy models".
"""

import pyarrow as pa
from jaxtyping import Float
from torch import Tensor

from superpose.experiments.saebench.pathologies import worlds
from superpose.truth import Firing, Forest, Mixture, equiangular
from superpose.unmix import L1, SAETraining

GROUP, P = 3, 1 / 7
_CLOSE = 0.95
_SCORED = 10_000


def world(paired: bool, seed: int, d: int = 20) -> tuple[Mixture, Float[Tensor, "features d"]]:
    """Three features x and three y, orthogonal, one of the nine pairs at a time or each alone.

    Each feature is on in a seventh of the samples in both worlds. Returns the world and the
    directions of the x, then of the y.
    """
    unit = equiangular(2 * GROUP, d, 0.0, seed)
    if not paired:
        return Mixture(Firing(p=P, n=2 * GROUP), unit), unit
    # One group whose members exclude each other: at most one pair at a time.
    number = GROUP**2
    forest = Forest([-1] + [0] * number, exclusive=True, feature=[-1, *range(number)])
    own = forest.compensated([P / GROUP] * number)
    pairs = (unit[:GROUP, None] + unit[None, GROUP:]).flatten(0, 1)
    return Mixture(Firing(p=own, forest=forest), pairs), unit


def composition(
    coefficient: float = 0.1,
    *,
    seeds: int = 5,
    seed: int = 0,
    training: SAETraining | None = None,
) -> pa.Table:
    """L1 with nine latents on both worlds; a row a world and seed.

    `paired`, `seed`; the share of the nine sums of two features to which a latent has a cosine
    above 0.95, `composed`, and that of the six features, `single`; `l0`.
    """
    rows = []
    for paired in (True, False):
        for run in range(seed, seed + seeds):
            truth, unit = world(paired, run)
            code = L1(d_sae=GROUP**2, coefficient=coefficient)
            sae = worlds.trained(truth, [code], training, run)[0]
            z = sae.encode(truth.sample(_SCORED, run).x)
            along = unit @ sae.directions.mT
            sums = (along[:GROUP, None] + along[None, GROUP:]) / 2**0.5
            rows.append(
                {
                    "paired": paired,
                    "seed": run,
                    "composed": float((sums.amax(-1) > _CLOSE).double().mean()),
                    "single": float((along.amax(-1) > _CLOSE).double().mean()),
                    "l0": float((z > 0).double().sum(-1).mean()),
                }
            )
    return pa.Table.from_pylist(rows)
