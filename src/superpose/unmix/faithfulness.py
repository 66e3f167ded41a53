"""Faithfulness: how much of a model's own output a few units of a dictionary carry."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.models import ToyModel
from superpose.statistics import Interval, mean_interval
from superpose.unmix.sae import Dictionary


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """The explained share of the model's output for each budget of units, and without a limit."""

    budgets: tuple[int, ...]
    explained: Float[np.ndarray, "runs budgets"]
    full: Float[np.ndarray, " runs"]

    def interval(self, budget: int) -> Interval:
        """Mean over the runs with its 95 % interval."""
        if budget not in self.budgets:
            raise ValueError(f"interval({budget!r}): the budgets measured are {self.budgets}")
        return mean_interval(self.explained[:, self.budgets.index(budget)])

    def table(self) -> pa.Table:
        """One row a run and budget: run, budget, explained."""
        runs = len(self.explained)
        return pa.table(
            {
                "run": np.repeat(np.arange(runs), len(self.budgets)),
                "budget": np.tile(self.budgets, runs),
                "explained": self.explained.ravel(),
            }
        )


@torch.no_grad()
def faithfulness(
    model: ToyModel,
    W: Float[Tensor, "n m"],
    b: Float[Tensor, " n"],
    x: Float[Tensor, "batch n"],
    dictionary: Dictionary,
    budgets: Sequence[int] = (1, 2, 3, 4, 5),
) -> Faithfulness:
    r"""Keep a few units of the hidden layer's code, run on, and compare with the model itself.

    For each input the `budget` units of largest contribution $|z_k| \|d_k\|$ are kept and the
    others set to zero; the decoder and its bias give h', the model gives x̂'. The score is
    $1 - \sum\|\hat x' - \hat x\|^2 / \sum\|\hat x - \bar{\hat x}\|^2$: 1 is the model's own
    output, 0 no better than its mean, below 0 worse. `full` has no limit of units.

    A unit is set to zero, not to its mean: a sparse code says that what it leaves out is off,
    and a mean would put a little of every absent feature into each input. What all inputs have
    in common lies in the decoder's bias, which stays.

    Raises ValueError for budgets below 1 and a dictionary of other dimensions.
    """
    budgets = tuple(int(budget) for budget in budgets)
    if not budgets or min(budgets) < 1:
        raise ValueError(f"faithfulness(budgets={budgets}): a budget is at least 1 unit")
    if dictionary.directions.shape[-1] != model.m:
        raise ValueError(
            f"faithfulness: the dictionary has {dictionary.directions.shape[-1]} dimensions, "
            f"the model's hidden layer {model.m}"
        )
    own = model.forward(x, W, b)
    spread = float(((own - own.mean(0)).double() ** 2).sum()) or np.nan
    z = dictionary.encode(model.encode(x, W))
    z = z.reshape(-1, *z.shape[-2:]) if z.ndim > 2 else z

    def explained(kept: Tensor) -> np.ndarray:
        out = model.decode(dictionary.decode(kept), W, b)
        error = ((out - own).double() ** 2).sum((-1, -2))
        return np.atleast_1d((1.0 - error / spread).numpy())

    # The rows of every decoder have norm 1, so the contribution is the size of the latent.
    order = z.abs().argsort(dim=-1, descending=True, stable=True)
    columns = []
    for budget in budgets:
        kept = torch.zeros_like(z)
        first = order[..., :budget]
        columns.append(explained(kept.scatter(-1, first, z.gather(-1, first))))
    return Faithfulness(budgets, np.stack(columns, -1), explained(z))
