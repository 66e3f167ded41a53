"""Figures of the bench: scores against measured L0, and maps of what latents confuse."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from superpose.figures.axes import column, distinct
from superpose.figures.packing import DOUBLE
from superpose.figures.style import Style
from superpose.figures.unmixing import MARKERS

LABELS = {
    "firing_f1": "F1 of detection",
    "mcc": "MCC",
    "recall": "features recovered",
    "explained_variance": "explained variance",
    "absorption": "absorption",
}
ORACLE = "oracle"
SHOWN = 40


def bench_curves(figure: Figure, style: Style, summary: pa.Table, scores: Sequence[str]) -> None:
    """Scores of codes against their measured L0, a column of panels for each world.

    `summary` has the columns `world`, `dictionary`, `wanted`, `quantity`, `estimate`, `low`,
    `high`, where one of the quantities is "l0". Lines join the wanted L0 of a code; bars are
    95 % intervals over seeds. The oracle is the dashed line; a dictionary without a choice of L0
    is a grey letter at its own.
    """
    world, name, quantity = (
        column(summary, each).astype(str) for each in ("world", "dictionary", "quantity")
    )
    wanted = column(summary, "wanted").astype(np.float64)
    values = {each: column(summary, each) for each in ("estimate", "low", "high")}
    worlds = distinct(column(summary, "world"))
    codes = [each for each in distinct(column(summary, "dictionary")) if each != ORACLE]
    trained = [each for each in codes if np.isfinite(wanted[name == each]).all()]
    figure.set_size_inches(DOUBLE, 0.75 + 1.65 * len(scores))
    grid = figure.subplots(len(scores), len(worlds), squeeze=False, sharex="col", sharey="row")
    for (row, side), axes in np.ndenumerate(grid):
        here = world == worlds[side]
        for each in (*trained, ORACLE, *(c for c in codes if c not in trained)):
            mine = here & (name == each)
            x = values["estimate"][mine & (quantity == "l0")]
            at = mine & (quantity == scores[row])
            bounds = [values[bound][at] for bound in ("estimate", "low", "high")]
            if len(x):
                order = np.argsort(wanted[at])
                _line(axes, style, each, trained, x[order], [b[order] for b in bounds])
        _frame(axes, row == len(scores) - 1)
        if row == 0:
            axes.set_title(worlds[side])
    for row, score in enumerate(scores):
        grid[row, 0].set_ylabel(LABELS.get(score, score))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5, handlelength=2.0)


def _line(
    axes: Axes,
    style: Style,
    name: str,
    trained: Sequence[str],
    x: np.ndarray,
    bounds: Sequence[np.ndarray],
) -> None:
    estimate, low, high = bounds
    if name == ORACLE:
        axes.plot(x, estimate, color=style.ink, lw=1.0, ls="--", zorder=2, label=name)
        return
    if name not in trained:
        axes.plot(
            x, estimate, ls="none", marker=f"${name[0]}$", ms=4.5, color=style.soft, label=name
        )
        return
    index = trained.index(name)
    hue, marker = style.hues[index % len(style.hues)], MARKERS[index % len(MARKERS)]
    axes.plot(x, estimate, color=hue, marker=marker, ms=3.2, lw=1.0, zorder=4, label=name)
    # Intervals of few seeds reach beyond what a score can be.
    error = np.nan_to_num(np.clip([estimate - low, high - estimate], 0, None))
    axes.errorbar(x, estimate, yerr=error, fmt="none", ecolor=hue, elinewidth=0.7, zorder=3)


def _frame(axes: Axes, last: bool) -> None:
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if last:
        axes.set_xlabel("measured L0")


def confusion_maps(figure: Figure, style: Style, maps: Mapping[str, pa.Table], world: str) -> None:
    """Which latent is on where a feature is, a panel a code: one dictionary of one seed each.

    A map has the columns `wanted`, `feature`, `latent`, `cosine` and `latent_given_feature`; shown
    are the first 40 features at the middle of the wanted L0. Features run down, parents before
    their children; latents are in the order of the feature they are closest to, so that a perfect
    dictionary is a diagonal. Colour is the share of a feature's samples in which the latent is on.
    A line of pale marks above the diagonal are latents of children that have their parent in
    them: where they are on, the parent's own need not be.
    """
    names = list(maps)
    rows = -(-len(names) // 4)
    figure.set_size_inches(DOUBLE, 0.4 + 1.95 * rows)
    grid = figure.subplots(rows, min(4, len(names)), squeeze=False, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for name, axes in zip(names, grid.flat, strict=False):
        axes.imshow(
            _share_on(maps[name]),
            cmap=style.sequential,
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_title(name)
        axes.set_xlabel("latent")
    for side in grid[:, 0]:
        side.set_ylabel(f"feature ({world})")


def _share_on(table: pa.Table) -> np.ndarray:
    table = table.filter(pa.array(column(table, "feature") < SHOWN))
    wanted = column(table, "wanted")
    levels = np.unique(wanted)
    if len(levels) == 0:
        return np.full((1, 1), np.nan)
    shown = wanted == levels[len(levels) // 2]
    feature, latent = (column(table, each)[shown] for each in ("feature", "latent"))
    cosine, share = (column(table, each)[shown] for each in ("cosine", "latent_given_feature"))
    order = np.lexsort((-cosine, latent))
    first = np.unique(latent[order], return_index=True)
    closest = feature[order][first[1]]
    ranked = first[0][np.argsort(closest, kind="stable")]
    place = np.empty(int(latent.max(initial=0)) + 1, np.int64)
    place[ranked] = np.arange(len(ranked))
    image = np.full((int(feature.max(initial=0)) + 1, max(1, len(ranked))), np.nan)
    image[feature, place[latent]] = share
    return image
