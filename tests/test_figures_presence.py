"""The figure of the test's power: every varied quantity has its panel, in order and in range."""

import numpy as np
import pyarrow as pa
import pytest

from superpose.figures.presence import clouds, power_curves
from superpose.figures.style import DARK, LIGHT, drawn, render
from superpose.statistics import proportion_interval

BASE = {"n": 12, "m": 6, "p": 0.1, "noise": 0.05, "samples": 1_000}


def power():
    varied = {"n": (18, 7, 12), "p": (0.01, 0.1), "noise": (0.0, 0.4), "samples": (250, 1_000)}
    rows = []
    for axis, values in {**varied, "toy model": (1,)}.items():
        for found, value in enumerate(values):
            share = proportion_interval(found, 3)
            point = {**BASE, axis: value} if axis in BASE else BASE
            rows.append(
                {"axis": axis, **point, "found": found, "draws": 3}
                | {"low": share.low, "high": share.high}
            )
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize("style", [LIGHT, DARK])
def test_a_panel_for_each_quantity_varied(style):
    figure = drawn(power_curves, style, power())
    visible = [axes for axes in figure.axes if axes.axison]
    assert len(visible) == 4
    x, y = visible[0].lines[0].get_data()
    assert list(x) == pytest.approx([7 / 6, 2, 3])
    assert list(y) == pytest.approx([1 / 3, 2 / 3, 0])


def test_equal_data_makes_equal_bytes():
    assert render(power_curves, power()) == render(power_curves, power())


def test_a_table_that_varies_nothing_is_refused():
    table = power()
    toys = table.slice(table.num_rows - 1)
    with pytest.raises(ValueError, match="the axes are toy model"):
        drawn(power_curves, LIGHT, toys)


def test_clouds_have_a_panel_each_to_one_scale():
    x = np.random.default_rng(0).standard_normal((50, 3))
    figure = drawn(clouds, LIGHT, {"a": x, "b": 10 * x, "c": x, "d": x})
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c", "d"]
    first, second = (np.array(axes.collections[0].get_offsets()) for axes in shown[:2])
    assert first == pytest.approx(second)
    with pytest.raises(ValueError, match="at least one"):
        drawn(clouds, LIGHT, {})
