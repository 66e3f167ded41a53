"""One verb for looking: a figure for any result."""

import numpy as np
import torch
from matplotlib.figure import Figure

from superpose.engine import Run
from superpose.figures.packing import (
    dims_per_feature,
    direction_plot,
    gram_across_densities,
    phase_map,
)
from superpose.figures.planes import phase_planes
from superpose.figures.style import LIGHT, Style, drawn
from superpose.phases import Phases, Plane


def plot(x: Run | Phases | Plane | torch.Tensor, style: Style = LIGHT) -> Figure:
    """The figure that shows `x` best: notebooks display it, `.savefig(path)` keeps it.

    The phases of a sweep: the map of feature states. A plane: the map of its best states. A run
    over several worlds: dimensions per feature against sparsity. A run of one world: its best
    model, as directions in the plane where m = 2 and else as its Gram matrix. A tensor
    `[n, 2]`: its rows as directions.
    Raises TypeError for anything else.

    >>> figure = plot(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['hidden dimension 1']
    """
    if isinstance(x, Phases):
        return drawn(phase_map, style, x.states, boundaries=[x.onset])
    if isinstance(x, Plane):
        return drawn(phase_planes, style, {"exact" if x.runs == 1 else f"best of {x.runs}": x})
    if isinstance(x, Run) and len(x.worlds) > 1:
        return drawn(dims_per_feature, style, x.table())
    if isinstance(x, Run):
        best = x.best()
        W, b = best.W_in.flatten(0, -3), best.b.flatten(0, -2)
        if W.shape[-1] == 2:
            return drawn(direction_plot, style, W.numpy()[0])
        p = np.array([x.worlds[0].probability.mean()])  # pyright: ignore
        return drawn(gram_across_densities, style, W.numpy(), b.numpy(), p)
    if isinstance(x, torch.Tensor) and x.ndim == 2 and x.shape[-1] == 2:
        return drawn(direction_plot, style, x.detach().cpu().numpy())
    raise TypeError(
        f"plot({type(x).__name__}): there is a figure for a Run, Phases, a Plane and directions "
        "[n, 2]"
    )
