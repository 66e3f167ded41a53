"""Figures of the test of superposition: how often it finds what is there."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from superpose.figures.axes import column, distinct, line_with_band, points
from superpose.figures.packing import DOUBLE
from superpose.figures.style import Style

# How an axis is named, and whether its values differ by factors.
_VARIED = {
    "n": ("features a dimension, n/m", True),
    "p": ("probability of a feature, p", True),
    "noise": ("noise over rms", False),
    "samples": ("samples", True),
    "m": ("dimensions m, n = 2m", True),
}


def power_curves(figure: Figure, style: Style, power: pa.Table, level: float = 0.05) -> None:
    """Share of planted models in which superposition is found, one panel for each quantity varied.

    Columns: `axis` (which of `n`, `p`, `noise`, `samples`, `m` is varied; rows of other axes are
    left out), these five, `found`, `draws`, and the limits `low` and `high` of the share. The
    dashed line is the level: what a test that sees nothing would reach.
    """
    varied = column(power, "axis").astype(str)
    panels = [axis for axis in distinct(varied) if axis in _VARIED]
    if not panels:
        raise ValueError(
            f"power_curves: no row varies one of {', '.join(_VARIED)}; the axes are "
            f"{', '.join(distinct(varied)) or 'none'}"
        )
    share = column(power, "found") / np.maximum(column(power, "draws"), 1)
    low, high = column(power, "low"), column(power, "high")
    figure.set_size_inches(DOUBLE, 2.1 * -(-len(panels) // 3))
    grid = figure.subplots(-(-len(panels) // 3), 3, squeeze=False, sharey=True)
    for axes, axis in zip(grid.flat, panels, strict=False):
        label, factors = _VARIED[axis]
        (rows,) = np.nonzero(varied == axis)
        x = column(power, axis).astype(np.float64)
        x = x / column(power, "m") if axis == "n" else x
        rows = rows[np.argsort(x[rows])]
        line_with_band(
            axes,
            x[rows],
            (share[rows], low[rows], high[rows]),
            color=style.hues[0],
            marker="o",
            markersize=3.5,
        )
        axes.axhline(level, color=style.soft, lw=0.8, ls="--", zorder=0)
        if factors:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            names = [f"{round(float(value), 2):,.10g}" for value in x[rows]]
            axes.set_xticks(x[rows], names, fontsize=7.5)
        axes.set(xlabel=label, ylim=(-0.03, 1.03))
        axes.grid(axis="y")
    for axes in grid[:, 0]:
        axes.set_ylabel("share found")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()


def clouds(
    figure: Figure, style: Style, data: Mapping[str, Float[np.ndarray, "samples units"]]
) -> None:
    """The first two units of several sets of activations, a dot each sample, all to one scale.

    Raises ValueError without data.
    """
    if not data:
        raise ValueError("clouds: pass at least one set of activations and its title")
    columns = min(3, len(data))
    rows = -(-len(data) // columns)
    figure.set_size_inches(DOUBLE, 0.3 + DOUBLE / columns * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (title, x) in zip(grid.flat, data.items(), strict=False):
        scale = np.sqrt((x[:, :2] ** 2).mean())
        points(axes, x[:, 0] / scale, x[:, 1] / scale, style.hues[0], size=4.0)
        axes.set_title(title)
        axes.set_aspect("equal")
    for axes in grid.flat[len(data) :]:
        axes.set_axis_off()
    grid[0, 0].set(xlim=(-6.5, 6.5), ylim=(-6.5, 6.5), xticks=[-5, 0, 5], yticks=[-5, 0, 5])
    figure.supxlabel("unit 1, in units of the rms", fontsize=9, color=style.ink)
    figure.supylabel("unit 2, in units of the rms", fontsize=9, color=style.ink)
