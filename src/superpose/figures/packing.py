"""Figures of how features are packed: Gram matrices, dimensions, phases, directions."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from superpose.figures.axes import column, density_axis, line_with_band, points, reference
from superpose.figures.style import Style
from superpose.measures import interference
from superpose.statistics import Interval, mean_interval

SINGLE, DOUBLE = 4.3, 6.6  # widths in inches: a phone's, a page's

SHAPES = {
    1: "1  alone",
    3 / 4: "3/4  tetrahedron",
    2 / 3: "2/3  triangle",
    1 / 2: "1/2  digon",
    2 / 5: "2/5  pentagon",
    3 / 8: "3/8  antiprism",
}


def gram_across_densities(
    figure: Figure,
    style: Style,
    W: Float[np.ndarray, "world n m"],
    b: Float[np.ndarray, "world n"],
    p: Float[np.ndarray, " world"],
    columns: int = 7,
) -> None:
    """Gram matrices W Wᵀ of some worlds from dense to sparse, over norms and biases.

    A bar's colour is the interference of its feature: from 1 on, the others together can
    activate it as strongly as it does itself.
    """
    order = np.argsort(-p)
    chosen = order[np.unique(np.linspace(0, len(p) - 1, columns).round().astype(int))]
    overlap = interference(torch.from_numpy(W[chosen])).numpy()
    shade = ScalarMappable(Normalize(0, 1), style.sequential)
    figure.set_size_inches(DOUBLE, 2.7)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.03, wspace=0.02)
    grid = figure.subplots(
        3, len(chosen), squeeze=False, sharex="col", sharey="row", height_ratios=(1, 0.55, 0.45)
    )
    features = np.arange(W.shape[1])
    bar = {"width": 1.0, "edgecolor": style.paper, "lw": 0.4}
    for place, world in enumerate(chosen):
        gram, norm, bias = grid[:, place]
        matrix = gram.imshow(W[world] @ W[world].T, vmin=-1, vmax=1, cmap=style.diverging)
        gram.set_title(f"1/p = {1 / p[world]:.3g}" if place == 0 else f"{1 / p[world]:.3g}")
        gram.spines[:].set(visible=True, color=style.line)
        size = np.linalg.norm(W[world], axis=1)
        norm.bar(features, size, color=shade.to_rgba(overlap[place]), **bar)
        bias.bar(features, b[world], color=style.soft, **bar)
        bias.axhline(0, color=style.soft, lw=0.6)
        bias.spines["bottom"].set_visible(False)
        bias.set(xticks=[], xlim=(-0.5, len(features) - 0.5))
    for row, label in zip(grid[:, 0], ("feature", "norm", "bias"), strict=True):
        row.set_ylabel(label)
    grid[0, 0].set(yticks=[0, len(features) - 1], yticklabels=["1", str(len(features))])
    for axes in grid.flat:
        axes.tick_params(length=0)
    figure.align_ylabels(grid[:, 0])
    figure.supxlabel("feature, most important first", fontsize=9, color=style.ink)
    _scale(figure, style, matrix, grid[0], "overlap  Wᵢ · Wⱼ", [-1, 0, 1])
    _scale(figure, style, shade, grid[1:], "interference", [0, 0.5, 1])


def dims_per_feature(figure: Figure, style: Style, models: pa.Table) -> None:
    """Dimensions per feature D* = m / ‖W‖² against 1/p: a dot each seed, their mean and interval.

    Columns: `p`, `dims_per_feature`.
    """
    p, value = column(models, "p"), column(models, "dims_per_feature")
    figure.set_size_inches(SINGLE, 3.0)
    axes = figure.subplots()
    for level, label in ((1.0, "one each"), (0.5, "two share one")):
        reference(axes, style, level, label)
    points(axes, 1 / p, value, style.hues[0])
    density = np.unique(p)
    found = [mean_interval(value[p == each]) for each in density]
    bounds = np.array([(each.estimate, each.low, each.high) for each in found]).T
    line_with_band(axes, 1 / density, tuple(bounds), color=style.hues[0])
    density_axis(axes, p)
    axes.set_ylim(min(0.4, np.nanmin(value) * 0.9), max(1.05, np.nanmax(value) * 1.03))
    axes.set_ylabel(r"dimensions per feature   $m\,/\,\Vert W\Vert_F^2$")


def dimensionality_scatter(figure: Figure, style: Style, features: pa.Table) -> None:
    """Share of a dimension D_i of every represented feature (norm above 1/2) against 1/p.

    Columns: `p`, `norm`, `dimensionality`. The levels are those of regular arrangements.
    """
    represented = column(features, "norm") > 0.5
    p = column(features, "p")
    figure.set_size_inches(SINGLE, 3.3)
    axes = figure.subplots()
    for level, label in SHAPES.items():
        near = {2 / 5: "bottom", 3 / 8: "top", 2 / 3: "center"}
        reference(axes, style, level, label, near.get(level, "center"))
    value = column(features, "dimensionality")
    spread = np.random.default_rng(0).uniform(-1, 1, p.size)  # equal densities side by side
    x = np.exp(-np.log(p) + spread * 0.25 * _step(p))
    points(axes, x[represented], value[represented], style.hues[0], size=7.0)
    density_axis(axes, p)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("dimensionality Dᵢ of a feature")


# States with how strongly their colour is laid on: what is ignored stays in the background.
_STRENGTH = {"ignored": 0.55, "dedicated": 1.0, "superposed": 1.0}


def phase_map(
    figure: Figure, style: Style, states: pa.Table, boundaries: Sequence[Interval] = ()
) -> None:
    """The state of each feature at each density, paler where the seeds disagree.

    Columns: `p`, `feature` (0 = most important), `state` (ignored, dedicated, superposed),
    `agreement` (the share of seeds in that state). `boundaries` are intervals of 1/p;
    one without an estimate is drawn as its band alone.
    """
    p, feature = column(states, "p"), column(states, "feature").astype(int)
    density = np.unique(p)[::-1]
    place = np.searchsorted(-density, -p)
    hues: dict[str, str] = dict(
        zip(_STRENGTH, (style.soft, style.hues[0], style.positive), strict=True)
    )
    paper = np.array(to_rgb(style.paper))
    colour = np.tile(paper, (feature.max() + 1, density.size, 1))
    agreement = column(states, "agreement")
    for index, state in enumerate(column(states, "state")):
        strength = _STRENGTH[str(state)] * (0.12 + 0.88 * agreement[index] ** 1.5)
        tint = strength * np.array(to_rgb(hues[str(state)])) + (1 - strength) * paper
        colour[feature[index], place[index]] = tint
    figure.set_size_inches(SINGLE, 3.4)
    axes = figure.subplots()
    edges = _edges(1 / density)
    rows = np.arange(colour.shape[0] + 1) + 0.5
    # As pixels: between cells drawn as shapes, viewers let the page show through.
    axes.pcolormesh(edges, rows, colour, rasterized=True)
    density_axis(axes, p)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(colour.shape[0] + 0.5, 0.5)
    axes.set_yticks(_feature_ticks(colour.shape[0]))
    axes.set_ylabel("feature, most important on top")
    for boundary in boundaries:
        low, high = np.clip([boundary.low, boundary.high], edges[0], edges[-1])
        if low < high:
            axes.axvspan(low, high, color=style.ink, alpha=0.18, lw=0)
        if edges[0] <= boundary.estimate <= edges[-1]:
            axes.axvline(boundary.estimate, color=style.ink, lw=1.2)
    handles: list[Artist] = [
        Patch(facecolor=hues[s], alpha=_STRENGTH[s], label=s) for s in _STRENGTH
    ]
    if boundaries:
        handles.append(Line2D([], [], color=style.ink, lw=1.2, label="boundary"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handleheight=0.9)


def direction_plot(
    figure: Figure, style: Style, W: Float[np.ndarray, "n 2"], labels: Sequence[str] | None = None
) -> None:
    """The directions of features in a hidden plane, as arrows from the origin."""
    figure.set_size_inches(3.2, 3.2)
    axes = figure.subplots()
    norms = np.linalg.norm(W, axis=1)
    reach = max(1.0, float(norms.max()))
    angle = np.linspace(0, 2 * np.pi, 181)
    axes.plot(np.cos(angle), np.sin(angle), color=style.line, lw=0.8, zorder=0)
    for end, norm, label in zip(W, norms, labels or range(1, len(W) + 1), strict=True):
        strong = norm > 0.5
        if norm > 0.02:
            look = {
                "arrowstyle": "-|>",
                "shrinkA": 0,
                "shrinkB": 0,
                "lw": 1.7,
                "mutation_scale": 11,
            }
            look["color"] = style.hues[0] if strong else style.soft
            axes.annotate("", end, (0, 0), arrowprops=look)
        if strong:
            x, y = end * (1 + 0.13 * reach / norm)
            axes.text(x, y, str(label), ha="center", va="center")
    axes.plot(0, 0, "o", ms=3, color=style.ink)
    axes.set(xlim=(-1.3 * reach, 1.3 * reach), ylim=(-1.3 * reach, 1.3 * reach), aspect="equal")
    axes.set(
        xlabel="hidden dimension 1",
        ylabel="hidden dimension 2",
        xticks=(-1, 0, 1),
        yticks=(-1, 0, 1),
    )


def _scale(
    figure: Figure,
    style: Style,
    values: ScalarMappable,
    axes: np.ndarray,
    label: str,
    ticks: list[float],
) -> None:
    bar = figure.colorbar(
        values, ax=axes.ravel().tolist(), ticks=ticks, aspect=12, pad=0.01, shrink=0.95
    )
    bar.set_label(label)
    bar.outline.set_edgecolor(style.line)  # pyright: ignore
    bar.ax.tick_params(length=0)


def _step(p: np.ndarray) -> float:
    """The gap between neighbouring densities, in logarithms."""
    density = np.unique(p)
    return float(np.median(np.diff(np.log(density)))) if density.size > 1 else 0.0


def _edges(x: np.ndarray) -> np.ndarray:
    """Borders of cells around increasing positive x, half way in logarithms."""
    middle = np.log(x)
    if middle.size == 1:
        return np.exp([middle[0] - 0.5, middle[0] + 0.5])
    inner = (middle[1:] + middle[:-1]) / 2
    outer = 2 * middle[[0, -1]] - inner[[0, -1]]
    return np.exp([outer[0], *inner, outer[1]])


def _feature_ticks(count: int) -> list[int]:
    step = max(1, 5 * round(count / 20))
    return [1, *range(step, count + 1, step)] if step > 1 else list(range(1, count + 1))
