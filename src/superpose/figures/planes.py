"""Phases in a plane: maps of states side by side, their boundaries, and the shares of seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from superpose.figures.axes import distinct
from superpose.figures.packing import DOUBLE
from superpose.figures.style import Style
from superpose.phases import STATES, Plane
from superpose.phases.planes import axis_at

_TITLES = {
    "p": "density  p = 1 − S",
    "importance": "relative importance  r",
}
_BAND = 0.45  # how strongly cells in the band are coloured
_FULL = {"ignored": 0.55}  # what is ignored stays in the background


def phase_planes(
    figure: Figure,
    style: Style,
    panels: Mapping[str, Plane],
    shares: Plane | None = None,
    exact: Plane | None = None,
) -> None:
    """Maps of the best state over a plane, one panel a title, with their boundaries.

    Cells in a panel's band, whose state hangs on which seeds were drawn, are faded. `shares` adds
    a row with the share of its seeds in each state; the boundaries of `exact` are drawn into
    every panel that shows another plane. All planes lie over the same axes.
    Raises ValueError without panels.
    """
    if not panels:
        raise ValueError("phase_planes: pass at least one panel, a title and its plane")
    planes = [*panels.values(), *([shares] if shares else [])]
    hues = _hues(style, planes)
    below = list(shares.labels) if shares else []
    columns, rows = max(len(panels), len(below)), 2 if below else 1
    figure.set_size_inches(DOUBLE if columns > 1 else DOUBLE / 2, 0.55 + 2.15 * rows)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.04, wspace=0.03, hspace=0.03)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (title, plane) in zip(grid[0], panels.items(), strict=False):
        _states(axes, style, plane, hues)
        _frame(axes, plane, title)
        if exact is not None and plane is not exact:
            _exact(axes, style, exact)
    for axes, label in zip(grid[-1], below, strict=False):
        _share(figure, axes, style, shares, label, hues)
        if exact is not None:
            _exact(axes, style, exact)
    _trim(grid, len(panels), len(below))
    faded = any(plane.band.any() for plane in panels.values())
    _legend(figure, style, hues, faded, exact is not None)


def _legend(figure: Figure, style: Style, hues: dict[str, str], faded: bool, exact: bool) -> None:
    handles: list[Artist] = [
        Patch(facecolor=_tint(style, hue, _FULL.get(label, 1.0)), label=label)
        for label, hue in hues.items()
    ]
    if faded:
        hue = list(hues.values())[-1]
        handles.append(Patch(facecolor=_tint(style, hue, _BAND), label="faded: other seeds differ"))
    if exact:
        handles.append(Line2D([], [], color=style.ink, lw=1.2, ls="--", label="exact boundary"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handleheight=0.9)


def _hues(style: Style, planes: list[Plane]) -> dict[str, str]:
    """A colour for each state that is there: the project's for features', hues for others."""
    fixed = dict(zip(STATES, (style.soft, style.hues[0], style.positive), strict=True))
    names = distinct(np.array([label for plane in planes for label in plane.labels]))
    names.sort(key=lambda name: STATES.index(name) if name in STATES else len(STATES))
    others = [name for name in names if name not in fixed]
    fixed |= {name: style.hues[k % len(style.hues)] for k, name in enumerate(others)}
    return {name: fixed[name] for name in names}


def _tint(style: Style, hue: str, strength: float) -> tuple[float, float, float]:
    mixed = strength * np.array(to_rgb(hue)) + (1 - strength) * np.array(to_rgb(style.paper))
    red, green, blue = mixed.tolist()
    return red, green, blue


def _edges(values: np.ndarray) -> np.ndarray:
    return axis_at(values, np.arange(values.size + 1) - 0.5)


def _states(axes: Axes, style: Style, plane: Plane, hues: dict[str, str]) -> None:
    colours = np.empty((*plane.best.shape, 3))
    for code, label in enumerate(plane.labels):
        full = _FULL.get(label, 1.0)
        here = plane.best == code
        colours[here] = _tint(style, hues[label], full)
        colours[here & plane.band] = _tint(style, hues[label], full * _BAND)
    # As pixels: between cells drawn as shapes, viewers let the page show through.
    axes.pcolormesh(_edges(plane.x), _edges(plane.y), colours, rasterized=True)
    _lines(axes, plane, color=style.ink, lw=1.1)


def _share(
    figure: Figure,
    axes: Axes,
    style: Style,
    plane: Plane | None,
    label: str,
    hues: dict[str, str],
) -> None:
    assert plane is not None
    shades = LinearSegmentedColormap.from_list(label, [style.paper, hues[label]])
    axes.pcolormesh(
        _edges(plane.x),
        _edges(plane.y),
        plane.shares[plane.labels.index(label)],
        cmap=shades,
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    _frame(axes, plane, f"share of seeds {label}")
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), shades), ax=axes, ticks=[0, 0.5, 1], aspect=25, pad=0.02
    )
    bar.outline.set_edgecolor(style.line)  # pyright: ignore
    bar.ax.tick_params(length=0)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _exact(axes: Axes, style: Style, exact: Plane) -> None:
    halo = [withStroke(linewidth=2.6, foreground=style.paper)]
    _lines(axes, exact, color=style.ink, lw=1.2, ls="--", path_effects=halo)


def _lines(axes: Axes, plane: Plane, **look: Any) -> None:
    table = plane.boundaries()
    line = table["line"].to_numpy()
    x, y = table[plane.x_name].to_numpy(), table[plane.y_name].to_numpy()
    for each in np.unique(line):
        axes.plot(x[line == each], y[line == each], **look)


def _frame(axes: Axes, plane: Plane, title: str) -> None:
    axes.set_visible(True)
    axes.set_title(title)
    for values, axis, name in ((plane.x, "x", plane.x_name), (plane.y, "y", plane.y_name)):
        edges = _edges(values)
        axes.set(**{f"{axis}label": _TITLES.get(name, name)})
        if (values > 0).all():
            axes.set(**{f"{axis}scale": "log"})
            ruler = axes.xaxis if axis == "x" else axes.yaxis
            wide = edges[-1] / edges[0] > 300
            ruler.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
            ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ruler.set_minor_locator(NullLocator())
        axes.set(**{f"{axis}lim": (edges[0], edges[-1])})
    axes.spines[:].set_visible(True)


def _trim(grid: np.ndarray, above: int, below: int) -> None:
    """Labels of axes only where no neighbour has them already."""
    for row, count in zip(grid, (above, below), strict=False):
        for axes in row[1:count]:
            axes.set_ylabel("")
            axes.set_yticklabels([])
    if below:
        for axes in grid[0, : min(above, below)]:
            axes.set_xlabel("")
