"""Reconstruction: how well dictionaries give samples back, where the truth is not known."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from superpose.statistics import Interval, mean_interval
from superpose.unmix.sae import Dictionary
from superpose.unmix.weights import Samples

_CHUNK = 2**24


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Scores of each member of a stack on the same samples.

    `explained_variance` is $1 - \\sum\\|y - \\hat y\\|^2 / \\sum\\|y - \\bar y\\|^2$ over all of
    them: 1 is perfect, 0 no better than their mean. `l0` is the mean number of latents active in
    a sample, `dead` the share of latents that none of the `samples` activates.
    """

    explained_variance: Float[np.ndarray, " runs"]
    l0: Float[np.ndarray, " runs"]
    dead: Float[np.ndarray, " runs"]
    samples: int

    def interval(self, name: str) -> Interval:
        """Mean of one score over the members with its 95 % interval."""
        if name not in ("explained_variance", "l0", "dead"):
            raise ValueError(f"interval({name!r}): it is explained_variance, l0 or dead")
        return mean_interval(getattr(self, name))

    def table(self) -> pa.Table:
        """One row a member: run, explained_variance, l0, dead."""
        scores = {name: getattr(self, name) for name in ("explained_variance", "l0", "dead")}
        return pa.table({"run": np.arange(len(self.l0))} | scores)


@torch.no_grad()
def reconstruction(
    sae: Dictionary,
    x: Samples,
    target: Samples | None = None,
) -> Reconstruction:
    """Score a dictionary, or each of a stack, on samples that it was not trained on.

    `target` is what a transcoder should give; else it is `x` itself. Sums are float64. Raises
    ValueError where all targets are equal, since then no variance is to be explained.

    >>> from superpose.unmix import SAE, TopK
    >>> sae = SAE(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), TopK(d_sae=2, k=1))
    >>> reconstruction(sae, torch.tensor([[2.0, 0.0], [0.0, 2.0]])).interval("l0").estimate
    1.0
    """
    x = torch.as_tensor(x).float()
    y = x if target is None else torch.as_tensor(target).float()
    if len(x) == 0 or len(y) != len(x):
        raise ValueError(
            f"reconstruction: {len(x)} samples and {len(y)} targets; give as many of "
            "each, at least one"
        )
    spread = float(((y.double() - y.double().mean(0)) ** 2).sum())
    if not spread > 0:
        raise ValueError(
            "reconstruction: all samples are equal, so that there is no variance to explain; pass "
            "others, or more"
        )
    directions = sae.directions
    *run, d_sae, _ = directions.shape
    runs = int(np.prod(run))
    error, active = torch.zeros(runs, dtype=torch.float64), torch.zeros(runs, dtype=torch.float64)
    fired = torch.zeros((runs, d_sae), dtype=torch.bool)
    for part in torch.arange(len(x)).split(max(1, _CHUNK // (runs * d_sae))):
        z = sae.encode(x[part])
        left = (sae.decode(z) - y[part]).double().reshape(runs, len(part), -1)
        z = z.reshape(runs, len(part), d_sae)
        error += (left**2).sum((1, 2))
        active += (z > 0).sum((1, 2))
        fired |= (z > 0).any(1)
    return Reconstruction(
        (1 - error / spread).numpy(),
        (active / len(x)).numpy(),
        (~fired).double().mean(1).numpy(),
        len(x),
    )
