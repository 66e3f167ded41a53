import numpy as np
import pytest

from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.pathologies import mixing
from superpose.statistics import mean_interval
from superpose.unmix import SAETraining

pytestmark = pytest.mark.slow


def _interval(rows, start, k, value):
    return mean_interval([value(r) for r in rows if r["start"] == start and r["k"] == k])


@pytest.fixture(scope="module")
def rows():
    shorter = SAETraining(samples=128_000, batch=256, lr=1e-2)
    return mixing.mixing((2, 5, 8), seeds=3, training=shorter).to_pylist()


@pytest.mark.parametrize("start", ["random", "truth"])
def test_with_too_few_active_the_truth_explains_less_than_what_is_found(rows, start):
    worse = _interval(rows, start, 2, lambda row: row["error_true"] - row["error"])
    assert worse.low > 0
    assert _interval(rows, start, 2, lambda row: row["mmcs"]).high < 0.95


def test_with_as_many_as_there_are_the_truth_stays(rows):
    lost = _interval(rows, "truth", 5, lambda row: row["error"] - row["error_true"])
    assert abs(lost.estimate) < 0.01
    assert _interval(rows, "truth", 5, lambda row: row["mmcs"]).low > 0.99


@pytest.mark.parametrize("start", ["random", "truth"])
def test_decoder_rows_overlap_least_at_the_true_number(rows, start):
    overlap = {k: _interval(rows, start, k, lambda row: row["c_dec"]).estimate for k in (2, 5)}
    assert overlap[5] < overlap[2] / 2
    if start == "random":
        assert overlap[5] < _interval(rows, start, 8, lambda row: row["c_dec"]).estimate / 2


@pytest.mark.parametrize("correlated", [True, False])
def test_the_elbow_of_decoder_overlap_is_at_the_true_number(correlated):
    table = over_seeds(mixing.mixing(correlated=correlated, seeds=5), ["start", "k"]).to_pylist()
    overlap = {
        row["k"]: row["estimate"]
        for row in table
        if row["start"] == "random" and row["quantity"] == "c_dec"
    }
    least = min(overlap, key=lambda k: overlap[k])
    assert least in (5, 6)
    assert np.diff([overlap[k] for k in (1, 2, 3, 4, 5)]).max() < 0
