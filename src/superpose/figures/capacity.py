"""The figure of capacity: exponential at a fixed number of active features, else linear."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from superpose.figures.axes import column, points
from superpose.figures.packing import DOUBLE
from superpose.figures.style import Style

LOOKS: dict[str, dict[str, Any]] = {
    "exactly k": {"ls": "-", "marker": "o", "ms": 3.0},
    "expected k": {"ls": "--", "marker": "D", "ms": 3.0, "mfc": "none", "mew": 0.9},
    "fixed p": {"ls": "-", "marker": "o", "ms": 3.0},
}
THEORY: dict[str, dict[str, Any]] = {
    "normal": {"ls": "-", "lw": 0.7},
    "any support": {"ls": ":", "lw": 1.4},
    "random directions": {"ls": "-.", "lw": 1.2},
    "kissing": {"ls": "none", "marker": "x", "ms": 5.0},
}


def capacity_regimes(figure: Figure, style: Style, measured: pa.Table, predicted: pa.Table) -> None:
    """Features recovered against dimensions: random codes left, trained models right.

    Above at a fixed number of active features, n on a logarithmic axis, where a straight line is
    an exponential; below at a fixed density, both axes linear. `measured` has the columns
    `source` ("codes", "trained"), `law` ("exactly k", "expected k", "fixed p"), `value`, `m`,
    `n`, a row for each seed; `predicted` has `name`, `law`, `value`, `m`, `n`. Faint dots are
    seeds, markers their geometric means.
    """
    figure.set_size_inches(DOUBLE, 6.4)
    grid = figure.subplots(2, 2)
    titles = (("k active: exponential", "one active"), ("fixed p: linear", "fixed p: linear"))
    for (row, side), axes in np.ndenumerate(grid):
        source = ("codes", "trained")[side]
        for law in ("exactly k", "expected k") if row == 0 else ("fixed p",):
            _measured(axes, style, _rows(measured, "source", source, law), law)
        axes.set_title(f"{('random codes', 'trained models')[side]}, {titles[row][side]}")
        axes.set_xlabel("hidden dimensions m")
        axes.set_ylabel("features recovered n")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    grid[1, 1].set_ylabel(r"features learned $\Vert W\Vert_F^2$")
    for _, m, n in _rows(predicted, "name", "kissing", "exactly k"):
        grid[0, 1].plot(m, n, color=style.soft, **THEORY["kissing"])
    # What was measured and what can be reached set the ranges, not the bounds.
    for (row, _), axes in np.ndenumerate(grid):
        _frame(axes, style, logarithmic=row == 0)
    _theory(grid, style, measured, predicted)
    for (row, _), axes in np.ndenumerate(grid):
        if axes is not grid[0, 1] and axes.get_legend_handles_labels()[0]:
            place: Any = {"loc": "upper left"}
            if row == 0:
                place = {"loc": "upper right", "bbox_to_anchor": (1.0, 0.5)}
            axes.legend(handlelength=1.0, labelspacing=0.3, **place)
    _legend(figure, style)


def _theory(grid: np.ndarray, style: Style, measured: pa.Table, predicted: pa.Table) -> None:
    """The curves of theory, those of codes in the hue of what they predict."""
    for name, side in (("normal", 0), ("any support", 0), ("random directions", 1)):
        for law, row in zip(LOOKS, (0, 0, 1), strict=True):
            for value, m, n in _rows(predicted, "name", name, law):
                hue = style.soft if name != "normal" else _hue(style, value, measured, law)
                grid[row, side].plot(m, n, color=hue, zorder=1, **THEORY[name])


def _measured(axes: Axes, style: Style, series: Iterator, law: str) -> None:
    """Seeds and their geometric mean, a hue for each value."""
    for index, (value, m, n) in enumerate(series):
        hue = style.hues[index]
        points(axes, m, n, hue, size=4.0)
        dims = np.unique(m)
        mean = np.array([np.exp(np.log(n[m == each]).mean()) for each in dims])
        axes.plot(dims, mean, color=hue, lw=1.2, zorder=3, **LOOKS[law])
        if law != "expected k":
            symbol = "p" if law == "fixed p" else "k"
            axes.plot([], [], color=hue, lw=2.5, label=f"{symbol} = {value:g}")


def _frame(axes: Axes, style: Style, *, logarithmic: bool) -> None:
    """The limits of a panel, and the line n = m: what there is without superposition."""
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = axes.get_xlim()
    low = low if logarithmic else 0.0
    m = np.linspace(max(low, 0.1), high, 200)
    axes.set(xlim=(max(low, 0.0), high), ylim=(3.0 if logarithmic else 0.0, axes.get_ylim()[1]))
    axes.plot(m, m, color=style.soft, lw=0.8, zorder=0)


def _rows(
    table: pa.Table, key: str, name: str, law: str
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(value, m, n) for each value of a law, in increasing order, where every seed has an n."""
    value, m, n = column(table, "value"), column(table, "m"), column(table, "n")
    rows = (column(table, key) == name) & (column(table, "law") == law)
    for each in np.unique(value[rows]):
        at = rows & (value == each)
        at &= ~np.isin(m, m[at & ~np.isfinite(n)])
        yield float(each), m[at].astype(np.float64), n[at]


def _hue(style: Style, value: float, measured: pa.Table, law: str) -> str:
    """The hue of a value in what was measured on codes."""
    known = [each for each, _, _ in _rows(measured, "source", "codes", law)]
    return style.hues[known.index(value)] if value in known else style.soft


def _legend(figure: Figure, style: Style) -> None:
    lines = [
        ("exactly k active", LOOKS["exactly k"]),
        ("k expected, p = k/n", LOOKS["expected k"]),
        ("theory: normal interference", THEORY["normal"]),
        ("theory: every support right", THEORY["any support"]),
        ("theory: random directions", THEORY["random directions"]),
        ("kissing number", THEORY["kissing"]),
    ]
    handles = [Line2D([], [], color=style.soft, label=label, **look) for label, look in lines]
    handles.append(Line2D([], [], color=style.soft, lw=0.8, label="n = m"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=2.2)
