"""The page on scores: its code runs, and its numbers are those of the library."""

import re
from pathlib import Path

import numpy as np
import pytest

from superpose.statistics import least_detectable_difference
from superpose.unmix import Rules

PAGE = (Path(__file__).parents[2] / "docs" / "scores.md").read_text("utf-8")


def test_dictionaries_are_scored_as_the_page_says(capsys):
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    assert "mmcs" in names["scores"].scores
    assert names["scores"].interval("mcc").estimate > names["scores"].mmcs_random[0]
    assert names["scores"].deciles().num_rows == 10
    assert set(names["confusion"].scores) >= {"absorption", "splitting", "merging", "hedging"}
    assert (names["gap"].explained < names["gap"].ceiling).all()
    assert names["stability"].interval().estimate > names["stability"].null
    assert capsys.readouterr().out


def test_every_score_is_on_the_page():
    from superpose.unmix.matching import _NEEDS

    geometry = ("mmcs", "mmcs_reverse", "mmcs_random", "mcc", "recall", "precision", "f1")
    for name in (*geometry, "uniqueness", *_NEEDS):
        assert f"`{name}`" in PAGE, name


def test_the_numbers_of_the_page_are_those_of_the_library():
    found = re.search(
        r"With 3 seeds it is ([\d.]+).*?5 seeds ([\d.]+), with 10 seeds ([\d.]+)", PAGE, re.DOTALL
    )
    for seeds, number in zip((3, 5, 10), found.groups(), strict=True):
        assert least_detectable_difference(1.0, seeds) == pytest.approx(float(number), abs=0.005)
    rules = Rules()
    assert (rules.found, rules.same, rules.part, rules.trace) == (0.5, 0.8, 0.3, 0.2)
    assert rules.disjoint == rules.correlated == 0.1
    assert np.isclose(rules.least, 10)
