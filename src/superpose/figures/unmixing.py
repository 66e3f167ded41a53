"""Figures of how well features are recovered, and how much of a network they explain."""

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from superpose.figures.axes import column, distinct, line_with_band
from superpose.figures.packing import DOUBLE
from superpose.figures.style import Style

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def recovery_bars(figure: Figure, style: Style, scores: pa.Table) -> None:
    """Scores of dictionaries with their intervals, one panel for each model.

    Columns: `model`, `dictionary`, `score` (its name), `estimate`, `low`, `high`. Panels, groups
    and bars come in the order in which the table first names them.
    """
    panels, names, kinds = (
        distinct(column(scores, each)) for each in ("model", "dictionary", "score")
    )
    model, dictionary, kind = (
        column(scores, each).astype(str) for each in ("model", "dictionary", "score")
    )
    estimate, low, high = (column(scores, each) for each in ("estimate", "low", "high"))
    thickness = 0.78 / len(kinds)
    figure.set_size_inches(DOUBLE, 0.85 + 0.17 * len(names) * (len(kinds) + 0.8))
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, panel in zip(grid, panels, strict=True):
        for index, each in enumerate(kinds):
            (rows,) = np.nonzero((model == panel) & (kind == each))
            y = [
                names.index(dictionary[row]) + (index - (len(kinds) - 1) / 2) * thickness
                for row in rows
            ]
            axes.barh(y, estimate[rows], thickness * 0.9, color=style.hues[index], label=each)
            error = np.clip([estimate[rows] - low[rows], high[rows] - estimate[rows]], 0, None)
            axes.errorbar(
                estimate[rows], y, xerr=error, fmt="none", ecolor=style.ink, elinewidth=0.9
            )
        axes.set_title(panel)
        axes.set(xlim=(0, 1), xlabel="score", xticks=np.linspace(0, 1, 5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(names)), names)
    grid[0].invert_yaxis()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(kinds), handleheight=0.9)


def faithfulness_curves(figure: Figure, style: Style, curves: pa.Table) -> None:
    """Share of a model's output explained by its k strongest units, for each dictionary.

    Columns: `model`, `dictionary`, `k`, `estimate`, `low`, `high`; one panel for each model.
    """
    panels, names = (distinct(column(curves, each)) for each in ("model", "dictionary"))
    model, dictionary = (column(curves, each).astype(str) for each in ("model", "dictionary"))
    k = column(curves, "k").astype(np.float64)
    bounds = [column(curves, each) for each in ("estimate", "low", "high")]
    figure.set_size_inches(DOUBLE, 3.0)
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, panel in zip(grid, panels, strict=True):
        for index, name in enumerate(names):
            rows = np.nonzero((model == panel) & (dictionary == name))[0]
            rows = rows[np.argsort(k[rows])]
            line_with_band(
                axes,
                k[rows],
                (bounds[0][rows], bounds[1][rows], bounds[2][rows]),
                color=style.hues[index % len(style.hues)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=3.5,
                label=name,
            )
        axes.set_title(panel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("units kept, k")
        axes.grid(axis="y")
    lowest = np.nanmin(np.concatenate(bounds[:2]))
    grid[0].set_ylim(min(0.0, float(lowest)), 1.02)
    grid[0].set_ylabel("share of the output explained")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(names), 5))
