"""What the report says is true of the numbers, for results other than the default's too."""

import numpy as np
import pytest

from superpose.report.packing import _line_sentence, _line_summary, onset_sentence
from superpose.report.unmixing import _kind, _verdict
from superpose.report.words import measured, percent
from superpose.statistics import Interval

LINES = ("1", "3/4", "2/3", "1/2", "2/5", "3/8", "below 0.38")


def _rows(**shares):
    named = {name.replace("_", "/"): share for name, share in shares.items()}
    return {
        name: {
            "p": 0.25,
            "line": name,
            "features": 40,
            "estimate": named.get(name, 0.0),
            "low": np.nan,
            "high": np.nan,
        }
        for name in LINES
    }


@pytest.mark.parametrize(
    ("onset", "runs", "says"),
    [
        (Interval(2.0, 1.6, 2.6), {"inside": 10, "before": 0, "never": 0}, "1.60 to 2.60"),
        (Interval(2.0, 1.6, np.inf), {"inside": 8, "before": 0, "never": 2}, "beyond the range"),
        (Interval(2.0, 1.0, np.inf), {"inside": 1, "before": 0, "never": 0}, "no interval"),
        (Interval(np.nan, 1.0, np.inf), {"inside": 0, "before": 1, "never": 0}, "already in the"),
        (Interval(np.nan, 1.0, np.inf), {"inside": 0, "before": 0, "never": 4}, "No superposition"),
        (Interval(np.nan, 1.0, np.inf), {"inside": 1, "before": 2, "never": 2}, "disagree"),
    ],
)
def test_the_onset_is_told_by_what_the_runs_did(onset, runs, says):
    sentence = onset_sentence(onset, runs)
    assert says in sentence
    assert "inf" not in sentence
    assert "nan" not in sentence


def test_shapes_are_told_as_values_and_coexistence_is_said():
    both = _rows(**{"2_5": 0.4, "3_8": 0.5})
    assert "several shapes coexist: 50 % have 3/8" in _line_sentence(both)
    assert "3/8 (50 %) and 2/5 (40 %), side by side" in _line_summary(both)
    assert "agree: 100 % have 1/2" in _line_sentence(_rows(**{"1_2": 1.0}))
    assert "no regular value" in _line_sentence(_rows(**{"below 0.38": 1.0}))


def _recalls(neurons, ica, random, sae):
    return {"neurons": neurons, "ICA": ica, "random": random, "SAE (TopK)": sae, "SAE (L1)": 0.0}


@pytest.mark.parametrize(
    ("recalls", "superposed", "says"),
    [
        (_recalls(0, 0.5, 0.3, 1.0), True, "only the autoencoder"),
        (_recalls(0, 1.0, 0.3, 0.4), False, "a rotation suffices, and an autoencoder does worse"),
        (_recalls(1.0, 1.0, 0.3, 1.0), True, "two opposite features"),
        (_recalls(1.0, 1.0, 0.3, 1.0), False, "the neurons are the features"),
        (_recalls(0, 1.0, 0.3, 1.0), True, "the autoencoder finds them too"),
        (_recalls(0, 0.2, 0.95, 1.0), True, "says nothing"),
        (_recalls(0, 0.2, 0.3, 0.7), True, "but not all"),
        (_recalls(0, 0.6, 0.3, 0.2), True, "none"),
    ],
)
def test_the_verdict_follows_from_all_baselines(recalls, superposed, says):
    assert says in _verdict(recalls, recalls["SAE (TopK)"], superposed)


def test_a_subject_is_called_what_it_is():
    assert _kind({"superposed": 0, "represented": 5}) == "no superposition"
    assert _kind({"superposed": 5, "represented": 5}) == "all in superposition"
    assert _kind({"superposed": 2, "represented": 5}) == "2 of 5 in superposition"


def test_numbers_keep_to_what_can_be():
    assert percent({"estimate": 0.83, "low": 0.4, "high": 1.27}) == "83 % [40, 100]"
    assert percent({"estimate": 0.83, "low": np.nan, "high": np.nan}) == "83 %"
    assert measured({"estimate": np.nan, "low": 0.0, "high": 1.0}) == "–"
    assert measured({"x": 1.0, "x_low": None, "x_high": 2.0}, 1, "x") == "1.0"
