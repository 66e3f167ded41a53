import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest

from superpose import figures
from superpose.statistics import Interval

DENSITIES = np.geomspace(1.0, 0.01, 15)
NAMES = ["SAE TopK", "SAE L1", "neurons", "ICA", "random"]
PANELS = ["without superposition", "with superposition"]


def polygon(n):
    angle = 2 * np.pi * np.arange(n) / n + 0.3
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def packed(density, n=20, m=5):
    """Weights that hold more features, in digons, the sparser the world."""
    W = np.zeros((n, m))
    for feature in range(min(n, int(m + m * max(0.0, -np.log10(density))))):
        W[feature, feature % m] = 1.0 if feature < m else -1.0
    return W + 0.03 * np.random.default_rng(0).normal(size=W.shape)


def gram_data():
    W = np.stack([packed(density) for density in DENSITIES])
    return W, np.where(np.linalg.norm(W, axis=2) > 0.5, -0.1, 0.2), DENSITIES


def models():
    rng = np.random.default_rng(1)
    p = np.repeat(DENSITIES, 8)
    value = 0.5 + 0.5 / (1 + (1 / p / 6) ** 2) + 0.02 * rng.normal(size=p.size)
    return pa.table({"p": p, "seed": np.tile(np.arange(8), 15), "dims_per_feature": value})


def features(seeds=8):
    rng = np.random.default_rng(2)
    p = np.repeat(DENSITIES, 20 * seeds)
    levels = np.where(
        rng.random(p.size) < p, 1.0, rng.choice([1 / 2, 2 / 5, 2 / 3, 3 / 8, 3 / 4], p.size)
    )
    return pa.table(
        {
            "p": p,
            "feature": np.tile(np.arange(20), 15 * seeds),
            "norm": rng.uniform(0.3, 1.2, p.size),
            "dimensionality": np.clip(levels + 0.02 * rng.normal(size=p.size), 0, 1),
        }
    )


def states(n=20):
    p, feature = (grid.ravel() for grid in np.meshgrid(DENSITIES, np.arange(n), indexing="ij"))
    room = 5 + 6 * -np.log10(p)
    dedicated = feature < 5 - 3 * np.clip(-np.log10(p) - 0.4, 0, 2)
    majority = np.where(dedicated, "dedicated", np.where(feature < room, "superposed", "ignored"))
    agreement = np.clip(0.4 + 0.25 * np.abs(feature - room), 0, 1)
    return pa.table({"p": p, "feature": feature, "state": majority, "agreement": agreement})


def scores():
    rows = []
    for panel, loss in zip(PANELS, (0.0, 0.35), strict=True):
        for place, name in enumerate(NAMES):
            for kind in ("MMCS", "recall", "F1"):
                value = max(0.05, 0.95 - 0.2 * place - loss * (place > 1))
                row = {"model": panel, "dictionary": name, "score": kind}
                rows.append(row | {"estimate": value, "low": value - 0.04, "high": value + 0.03})
    return pa.Table.from_pylist(rows)


def curves():
    rows = []
    for panel in PANELS:
        for place, name in enumerate(NAMES):
            for k in (1, 2, 4, 8, 16, 32):
                value = 1 - np.exp(-k / (2 + 3 * place))
                row = {"model": panel, "dictionary": name, "k": k, "estimate": value}
                rows.append(row | {"low": value - 0.03, "high": min(1.0, value + 0.03)})
    return pa.Table.from_pylist(rows)


FIGURES = {
    "gram_across_densities": gram_data,
    "dims_per_feature": lambda: (models(),),
    "dimensionality_scatter": lambda: (features(),),
    "phase_map": lambda: (states(), [Interval(3.3, 2.8, 4.5)]),
    "recovery_bars": lambda: (scores(),),
    "faithfulness_curves": lambda: (curves(),),
    "direction_plot": lambda: (polygon(5),),
}


def rendered(name):
    return figures.render(getattr(figures, name), *FIGURES[name]())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_each_time_and_small(name):
    settings = {"font.size": 30, "axes.grid": True, "svg.fonttype": "none"}
    with mpl.rc_context(settings):  # pyright: ignore
        before = dict(mpl.rcParams)
        first = rendered(name)
        assert dict(mpl.rcParams) == before
    assert rendered(name) == first
    for data in (first.light, first.dark):
        assert len(data) < 300_000
        root = ElementTree.fromstring(data)
        assert root.tag.endswith("svg")
        assert float(root.get("width").removesuffix("pt")) <= 480
        assert b"<text" not in data
        assert b"http://www.w3.org/2000/svg" in data
        assert b'href="http' not in data
    assert first.light != first.dark
    assert first.png.startswith(b"\x89PNG")
    assert len(first.png) < 300_000


def test_size_does_not_follow_the_data():
    many = figures.render(figures.dimensionality_scatter, features(seeds=60))
    assert len(many.light) < 300_000
    grid = states(n=200)
    assert len(figures.render(figures.phase_map, grid).light) < 300_000


def test_small_and_extreme_data_are_drawn():
    W, b, p = gram_data()
    figures.render(figures.gram_across_densities, W[:1], b[:1], p[:1])
    figures.render(figures.gram_across_densities, W[:3].astype(np.float32), b[:3], p[:3])
    figures.render(figures.dims_per_feature, models().slice(0, 1))
    figures.render(figures.phase_map, states(n=1).slice(0, 1))
    open_ended = [Interval(np.nan, 50.0, np.inf), Interval(np.nan, np.nan, np.nan)]
    figures.render(figures.phase_map, states(), open_ended)
    figures.render(figures.direction_plot, np.zeros((3, 2)))


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"needs a column 'dims_per_feature'.*p, seed"):
        figures.render(figures.dims_per_feature, models().drop_columns(["dims_per_feature"]))


def test_files_are_written_under_their_names(tmp_path):
    files = rendered("direction_plot")
    paths = files.write(tmp_path / "figures", "pentagon")
    assert [path.name for path in paths] == ["pentagon.svg", "pentagon-dark.svg", "pentagon.png"]
    assert paths[1].read_bytes() == files.dark


def test_drawing_loads_no_window_system():
    script = (
        "import sys, numpy as np; from superpose import figures;"
        "figures.render(figures.direction_plot, np.eye(2));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def contrast(one, two):
    def light(colour):
        channel = np.array(mpl.colors.to_rgb(colour))
        linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([light(one), light(two)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("style", [figures.LIGHT, figures.DARK], ids=lambda style: style.name)
def test_colours_stand_out_from_the_page(style):
    assert contrast(style.ink, style.paper) > 7
    assert contrast(style.soft, style.paper) > 4.5
    for hue in (*style.hues, style.positive, style.negative):
        assert contrast(hue, style.paper) > 3
