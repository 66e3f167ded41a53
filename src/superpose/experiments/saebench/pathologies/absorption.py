r"""Absorption: a feature that fires only with another takes the other's place where it does.

Must show: with feature 1 on only where feature 0 is, an L1 dictionary of the right width learns a
latent for feature 0 that is silent where feature 1 is on, and another for both together; where
the two fire independently it does not. The reason is the price: both features cost 2 apart and
√2 as one unit direction, a gain of p (2 - √2) a sample at no loss of reconstruction.
Source: Chanin et al. 2024, "A is for absorption", section 3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from superpose.experiments.saebench.pathologies import worlds
from superpose.measures import explained_variance
from superpose.truth import Firing, Forest, Mixture
from superpose.unmix import L1, SAE, BatchTopK, Code, Matryoshka, SAETraining, confusion

GAIN = 2.0 - 2.0**0.5
"""What one direction for two unit features saves of their L1, a sample in which both are on."""

PARENT, CHILD, OTHERS = 0.25, 0.2, 2
FOUND = 0.9
_SCORED = 20_000
QUANTITIES = ("absorbed", "encoder", "decoder", "gain", "gain_theory")


def world(hierarchical: bool, seed: int, d: int = 50) -> Mixture:
    """Four orthogonal features in `d` dimensions; the second is as frequent in both worlds.

    Hierarchical: on in a fifth of the samples in which the first is. Else: in as many, whenever.
    """
    others = [PARENT] * OTHERS
    if hierarchical:
        firing = Firing(p=[PARENT, CHILD, *others], forest=Forest([-1, 0] + [-1] * OTHERS))
    else:
        firing = Firing(p=[PARENT, PARENT * CHILD, *others])
    return worlds.orthogonal(firing, d, seed)


def absorption(
    code: Code | None = None,
    *,
    seeds: int = 5,
    seed: int = 0,
    training: SAETraining | None = None,
) -> pa.Table:
    r"""Train on both worlds; one row a world and seed.

    `hierarchical`; `absence`, whether a latent points away from a feature and so says that it is
    off, a local minimum in which the rest is NaN; `absorbed`, the share of samples with both on
    in which the parent's latent is off; `encoder`, how the parent's latent answers the child
    relative to the parent (0 for independent, -1 for absorbed features); `decoder`, the part of
    the parent in the child's latent (0, or √½); and for L1 `gain`, how much lower the objective
    is than that of the true dictionary at its best, in units of λ p, beside `gain_theory`.
    """
    code = L1(d_sae=2 + OTHERS, coefficient=0.1) if code is None else code
    rows = []
    for hierarchical in (True, False):
        for run in range(seed, seed + seeds):
            truth = world(hierarchical, run)
            sae = worlds.trained(truth, [code], training, run)[0]
            about = {"hierarchical": hierarchical, "seed": run}
            rows.append(about | _measured(sae, truth, code, run))
    return pa.Table.from_pylist(rows)


def _measured(sae: SAE, truth: Mixture, code: Code, seed: int) -> dict[str, float]:
    cosine = worlds.cosines(sae, truth)
    absence = bool((cosine < -FOUND).any())
    row = {"absence": float(absence)} | dict.fromkeys(QUANTITIES, np.nan)
    if absence:
        return row
    drawn = truth.sample(_SCORED, seed)
    parent, child = worlds.own_latents(cosine)[:2]
    z, on = sae.encode(drawn.x), drawn.active()
    both = on[:, 0] & on[:, 1]
    along = worlds.encoder_along(sae, truth)
    row["absorbed"] = float((z[both, parent] == 0).double().mean())
    row["encoder"] = float(along[1, parent] / along[0, parent])
    row["decoder"] = float(cosine[0, child])
    if isinstance(code, L1) and code.penalty == "abs":
        price = code.coefficient * worlds.scale_of(drawn.x)
        error = ((drawn.x - sae.decode(z)) ** 2).sum(-1).double().mean()
        objective = float(error + price * z.sum(-1).double().mean())
        rate = on.double().mean(0).numpy()
        saved = best_objective(rate, price) - objective
        row["gain"] = saved / (price * float(both.double().mean()))
        hierarchical = not bool((on[:, 1] & ~on[:, 0]).any())
        row["gain_theory"] = expected_gain(price) if hierarchical else 0.0
    return row


def best_objective(p: np.ndarray, price: float) -> float:
    r"""The least $E\|x - \hat x\|^2 + λ E\|z\|_1$ of the true orthonormal dictionary.

    Features of amplitude 1 and probability p cost $λ p - λ^2 p / 4 (1 - p)$ each: the latent is
    shrunk by λ/2, and the decoder's bias moves by $λ p / 2 (1 - p)$ towards what is always there.

    >>> round(best_objective(np.array([0.5]), 0.1), 6)
    0.0475
    """
    return float((price * p - price**2 / 4 * p / (1 - p)).sum())


def expected_gain(price: float, parent: float = PARENT, child: float = PARENT * CHILD) -> float:
    r"""By how much absorption lowers the L1 objective, in units of λ p, p that of the child.

    $2 - \sqrt 2$ where λ is small. The next order is that of what the decoder's bias and the
    shrinkage by λ/2 save with either dictionary, one latent less in the absorbed one:
    with the shares a of samples with the parent alone and c of those with both,
    $-\frac{λ}{4c}\left[\frac{p_0}{1-p_0} + \frac{c}{1-c} - p_0 -
    \frac{(a + c/\sqrt 2)^2 + c^2/2}{1 - p_0}\right]$.

    >>> round(expected_gain(0.0), 4)
    0.5858
    """
    alone, c = parent - child, child
    bias = ((alone + c / 2**0.5) ** 2 + c**2 / 2) / (1 - parent)
    return GAIN - price / (4 * c) * (parent / (1 - parent) + c / (1 - c) - parent - bias)


PARENTS, CHILDREN = 8, 2


def families(seed: int) -> Mixture:
    """Eight orthogonal features with two children each that exclude each other."""
    number = PARENTS * (1 + CHILDREN)
    forest = Forest.regular(number, roots=PARENTS, branching=CHILDREN, depth=1, exclusive=True)
    law = Firing(p=[0.25] * PARENTS + [0.3] * (number - PARENTS), forest=forest)
    return worlds.orthogonal(law, 2 * number, seed)


def relief(
    active: Sequence[int] = (2, 3),
    *,
    seeds: int = 5,
    seed: int = 0,
    training: SAETraining | None = None,
) -> pa.Table:
    """Do nested dictionaries absorb less? BatchTopK against Matryoshka at the same L0.

    A row a code, `k` and `seed`: the mean rate of `absorption` over parents and children (see
    `unmix.confusion`); the shares of `parents` and `children` with a latent at a cosine above
    0.9; and the `explained` variance. The first prefix of Matryoshka is as wide as there are
    parents, which favours it. Three features are on in the mean.
    """
    rows = []
    for run in range(seed, seed + seeds):
        truth = families(run)
        nested = (PARENTS, truth.n)
        codes: list[Code] = []
        for k in active:
            codes += [BatchTopK(d_sae=truth.n, k=k), Matryoshka(d_sae=truth.n, k=k, widths=nested)]
        drawn: Any = truth.sample(_SCORED, run)
        pairs = np.stack([np.repeat(np.arange(PARENTS), CHILDREN), np.arange(PARENTS, truth.n)], 1)
        for code, sae in zip(codes, worlds.trained(truth, codes, training, run), strict=True):
            mapped = confusion(sae, truth.directions, drawn.x, drawn, pairs)
            found = worlds.cosines(sae, truth).max(1) > FOUND
            rows.append(
                {
                    "code": type(code).__name__,
                    "k": getattr(code, "k"),  # noqa: B009
                    "seed": run,
                    "absorption": float(mapped.scores["absorption"][0]),
                    "parents": float(found[:PARENTS].mean()),
                    "children": float(found[PARENTS:].mean()),
                    "explained": explained_variance(drawn.x, sae.decode(sae.encode(drawn.x))),
                }
            )
    return pa.Table.from_pylist(rows)
