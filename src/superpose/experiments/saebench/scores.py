"""What the bench measures of a dictionary: scores by name, and the map behind them."""

from typing import Any

import pyarrow as pa

from superpose.truth import Drawn, Mixture
from superpose.unmix import Dictionary, attainable, confusion, match, saelens_scores

SCORES = (
    "l0",
    "explained_variance",
    "mmcs",
    "mcc",
    "mcc_activation",
    "recall",
    "precision",
    "uniqueness",
    "f1",
    "firing_precision",
    "firing_recall",
    "firing_f1",
    "shrinkage",
    "dead",
)
MAPPED = ("absorption", "splitting", "merging", "hedging")
PEERS = ("mcc_saelens", "f1_saelens", "uniqueness_saelens")
# The oracle solves for each sample, so it sees fewer of them.
_SOLVED = 1_000


def scored(
    dictionary: Dictionary, world: Mixture, held: Drawn, solved: bool = True
) -> tuple[dict[str, float], pa.Table]:
    """The scores of one dictionary on samples it has not seen, and its map of confusions.

    Those of `match` and of `confusion`; three as SAELens defines them; and `oracle_share`, the
    explained variance as a share of that of sparse coding with the true directions at the same
    L0, where `solved`: of a dictionary with many active latents that takes long.
    """
    active: Any = held
    found = match(dictionary, world.directions, held.x, active)
    mapped = confusion(dictionary, world.directions, held.x, active)
    theirs = saelens_scores(dictionary, world.directions, held.x, active)
    row = {name: float(found.scores[name][0]) for name in SCORES}
    row |= {name: float(mapped.scores[name][0]) for name in MAPPED}
    row |= {name: float(theirs[name][0]) for name in PEERS}
    if solved:
        few: Any = head(held, min(_SOLVED, len(held)))
        reached = attainable(dictionary, world.directions, few.x, few, world.bias)
        row["oracle_share"] = float(reached.share[0])
    return row, mapped.map


def head(drawn: Drawn, samples: int) -> Drawn:
    """The first samples of a batch."""
    indptr = drawn.indptr[: samples + 1]
    end = int(indptr[-1])
    return Drawn(drawn.x[:samples], indptr, drawn.index[:end], drawn.value[:end], drawn.n)
