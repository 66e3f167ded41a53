r"""Shrinkage: a price on the size of latents makes them too small, by just half of the price.

Must show: trained from an orthonormal dictionary, an L1 reconstruction falls short by λ/2
wherever a feature is on, and its latents by λ/2 (1 - p): the decoder's bias takes the rest, as it
moves by λ p / 2 (1 - p) towards each feature. Codes without a price on size do not fall short.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from superpose.experiments.saebench.pathologies import worlds
from superpose.truth import Firing, Folded, Mixture
from superpose.unmix import (
    L1,
    BatchTopK,
    Code,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    SAETraining,
    TopK,
)

FEATURES, P = 10, 0.1
_SCORED = 20_000


def world(seed: int, d: int = 20) -> Mixture:
    """Ten orthogonal features of amplitude 1 ± 0.15, one on in the mean."""
    law = Firing(p=P, n=FEATURES, amplitude=Folded(1.0, 0.15))
    return worlds.orthogonal(law, d, seed)


def codes(coefficient: float = 0.1) -> dict[str, Code]:
    """L1, and every code that is said not to shrink.

    Those that share active latents out over a batch have as many as there are active features;
    those with so many a sample have as many as are ever active but in two samples of a hundred.
    """
    width, k = FEATURES, round(FEATURES * P)
    return {
        "L1": L1(d_sae=width, coefficient=coefficient),
        "Gated": Gated(d_sae=width, coefficient=coefficient),
        "TopK": TopK(d_sae=width, k=4 * k),
        "BatchTopK": BatchTopK(d_sae=width, k=k),
        "JumpReLU": JumpReLU(d_sae=width, l0=k),
        "Matryoshka": Matryoshka(d_sae=width, k=k, widths=(width // 2, width)),
        "MatchingPursuit": MatchingPursuit(d_sae=width, k=4 * k),
    }


def shrinkage(
    chosen: Mapping[str, Code] | None = None,
    *,
    seeds: int = 5,
    seed: int = 0,
    training: SAETraining | None = None,
) -> pa.Table:
    """Train each code from the truth; a row a code and seed.

    From the truth, as only found features can be shrunk. `code`, `seed`; `found`, the share of
    features whose latent has a cosine above 0.9 in the end, and of these, where they are on, by
    how much the latent (`latent`) and the reconstruction along the feature (`output`) fall short
    of the amplitude in the mean; and for L1 what theory says, `latent_theory` and
    `output_theory`; 0 for the others.
    """
    rows = []
    for name, code in (codes() if chosen is None else chosen).items():
        for run in range(seed, seed + seeds):
            truth = world(run)
            sae = worlds.from_truth(truth, code, training, run)
            drawn = truth.sample(_SCORED, run)
            cosine = worlds.cosines(sae, truth)
            own = worlds.own_latents(cosine)
            found = cosine[np.arange(FEATURES), own] > 0.9
            f = drawn.f().double().numpy()
            z = sae.encode(drawn.x)
            along = (sae.decode(z) @ truth.directions.mT).double().numpy()
            on = (f > 0) & found
            price = code.coefficient * worlds.scale_of(drawn.x) if isinstance(code, L1) else 0.0
            latent = z.double().numpy()[:, own]
            rows.append(
                {
                    "code": name,
                    "seed": run,
                    "found": float(found.mean()),
                    "latent": float((f - latent)[on].mean()) if on.any() else np.nan,
                    "output": float((f - along)[on].mean()) if on.any() else np.nan,
                    "latent_theory": price / 2 / (1 - P),
                    "output_theory": price / 2,
                }
            )
    return pa.Table.from_pylist(rows)
