"""The exact loss over a finite world: the mean over its points."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.features import Points

# So many outputs are held at a time.
_ENTRIES = 2**20


def point_losses(
    model: tuple[Tensor, Tensor, Tensor], points: Points, output: str, target: str
) -> Float[Tensor, "*run n"]:
    """The mean squared error of each feature over the points, float64; NaN where not finite.

    `model` is W_in and W_out `[*run, n, m]` and b `[*run, n]` with a linear hidden layer.
    """
    W_in, W_out, b = (each.numpy() for each in model)
    n, m = W_in.shape[-2:]
    parts = W_in.reshape(-1, n, m), W_out.reshape(-1, n, m), b.reshape(-1, n)
    losses = np.zeros((len(parts[2]), n))
    rows = max(1, _ENTRIES // n)
    # A model that has diverged is NaN, without a warning.
    with np.errstate(invalid="ignore", over="ignore"):
        for first in range(0, points.count, rows):
            x = points.matrix[first : first + rows].astype(np.float64)
            goal = (abs(x) if target == "abs" else x).toarray()
            for k, (inward, outward, bias) in enumerate(zip(*parts, strict=True)):
                out = (x @ inward) @ outward.T + bias
                out = np.maximum(out, 0.0) if output == "relu" else out
                losses[k] += ((goal - out) ** 2).sum(0)
    # Weights that no point reaches are part of a model all the same.
    for k, model_parts in enumerate(zip(*parts, losses, strict=True)):
        if not all(np.isfinite(each).all() for each in model_parts):
            losses[k] = np.nan
    return torch.from_numpy(losses / points.count).view(b.shape)
