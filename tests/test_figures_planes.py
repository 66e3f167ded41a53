"""Maps of states over a plane: drawn the same each time, small, for any number of panels."""

from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from superpose import phases
from superpose.figures.planes import phase_planes
from superpose.figures.plot import plot
from superpose.figures.style import DARK, LIGHT, drawn, render

R, P = np.geomspace(0.1, 10, 40), np.geomspace(0.01, 1, 40)


def theory(r=R, p=P):
    column, row = np.meshgrid(r, p)
    critical = np.where(column <= 1, 4 * column / (2 + 5 * column), 4 / (2 * column + 5))
    dense = np.where(column < 1, "ignored", "dedicated")
    return phases.exact_plane(np.where(row < critical, "superposed", dense), r, p, ("r", "p"))


def trained(runs=10, r=R, p=P):
    """The theory's states, from which some seeds stray near the boundaries."""
    rng = np.random.default_rng(0)
    states = theory(r, p).states
    row, column, run = (axis.ravel() for axis in np.indices((*states.shape, runs)))
    astray = rng.random(row.size) < np.where(p[row] > 0.1, 0.8, 0.1)
    kind = np.where(astray, "ignored", states[row, column])
    loss = 1 + 0.1 * astray + 0.01 * rng.random(row.size)
    columns = {"r": r[column], "p": p[row], "run": run, "loss": loss, "state": kind}
    return phases.plane(pa.table(columns), "r", label="state")


def test_the_map_is_the_same_each_time_and_small():
    data = {"best of ten": trained()}, trained(), theory()
    first = render(phase_planes, *data)
    assert render(phase_planes, *data) == first
    for page in (first.light, first.dark):
        root = ElementTree.fromstring(page)
        assert float(root.get("width").removesuffix("pt")) <= 480
        assert len(page) < 300_000
        assert b"<text" not in page
    assert first.light != first.dark
    assert len(first.png) < 300_000


@pytest.mark.parametrize("style", [LIGHT, DARK], ids=lambda style: style.name)
def test_panels_have_titles_axes_and_a_legend(style):
    figure = drawn(phase_planes, style, {"theory": theory(), "trained": trained()}, trained())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "theory",
        "trained",
        "share of seeds dedicated",
        "share of seeds ignored",
        "share of seeds superposed",
    ]
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["ignored", "dedicated", "superposed", "faded: other seeds differ"]
    first = figure.axes[0]
    assert first.get_ylabel() == "density  p = 1 − S"
    assert (first.get_xscale(), first.get_yscale()) == ("log", "log")
    low, high = first.get_xlim()
    assert low < R[0] < R[-1] < high


def test_one_panel_one_cell_and_other_states_are_drawn():
    one = phases.exact_plane(np.array([["triangle"]]), np.array([1.0]), np.array([0.5]))
    render(phase_planes, {"one": one})
    render(phase_planes, {"one": trained(runs=1, r=R[:3], p=P[:2])}, trained(runs=1))
    linear = phases.exact_plane(
        np.array([["digon", "pentagon"], ["cube", "digon"]]),
        np.array([-1.0, 1.0]),
        np.array([0.0, 1.0]),
        ("tilt", "offset"),
    )
    figure = drawn(phase_planes, LIGHT, {"shapes": linear}, None, linear)
    assert figure.axes[0].get_xscale() == "linear"
    with pytest.raises(ValueError, match="at least one panel"):
        render(phase_planes, {})


@pytest.mark.parametrize(("plane", "title"), [(theory(), "exact"), (trained(), "best of 10")])
def test_plot_draws_a_plane(plane, title):
    assert [axes.get_title() for axes in plot(plane).axes if axes.get_title()] == [title]
