"""What several figures share: columns, the axis of densities, grouping, points and bands."""

from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from superpose.figures.style import Style

CROWD = 600  # more points than this are drawn as pixels: a file's size should not follow its data


def column(table: pa.Table, name: str) -> np.ndarray:
    """One column as an array; raises ValueError naming the columns there are."""
    if name not in table.column_names:
        raise ValueError(
            f"this figure needs a column {name!r}; the table has {', '.join(table.column_names)}"
        )
    return table[name].to_numpy(zero_copy_only=False)


def distinct(values: np.ndarray) -> list[str]:
    """The different texts of a column in order of first appearance."""
    return list(dict.fromkeys(map(str, values)))


def density_axis(axes: Axes, p: ArrayLike) -> None:
    """A logarithmic axis of 1/p, as the literature plots density: sparser to the right."""
    sparseness = 1 / np.asarray(p, np.float64)
    axes.set_xscale("log")
    low, high = float(sparseness.min()), float(sparseness.max())
    margin = max(high / low, 1.5) ** 0.025
    axes.set_xlim(low / margin, high * margin)
    wide = high / low > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sparsity  1/(1 − S) = 1/p")


def points(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, size: float = 9.0) -> None:
    """Faint dots, one a measurement: where they pile up they darken."""
    alpha = 0.45 if x.size < CROWD else 0.25
    axes.scatter(x, y, s=size, color=colour, alpha=alpha, lw=0, zorder=2, rasterized=x.size > CROWD)


def line_with_band(
    axes: Axes, x: np.ndarray, bounds: tuple[np.ndarray, np.ndarray, np.ndarray], **look: Any
) -> None:
    """A line through the estimates with the band of their intervals: (estimate, low, high)."""
    estimate, low, high = bounds
    axes.fill_between(x, low, high, color=look["color"], alpha=0.22, lw=0, zorder=3)
    axes.plot(x, estimate, zorder=4, **look)


def reference(axes: Axes, style: Style, y: float, label: str, align: str = "center") -> None:
    """A thin level across the axes with its label beyond the right end."""
    axes.axhline(y, color=style.line, lw=0.8, zorder=0)
    place = axes.get_yaxis_transform()
    axes.text(1.02, y, label, transform=place, va=align, ha="left", fontsize=8.5, color=style.soft)
