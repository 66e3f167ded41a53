import numpy as np
import pytest
from scipy import stats

from superpose.statistics import (
    bootstrap_interval,
    false_discovery_q,
    least_detectable_difference,
    mean_interval,
    proportion_interval,
)


def _coverage(interval, truth, draw, trials=400):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(trials):
        found = interval(draw(rng))
        hits += found.low <= truth <= found.high
    return hits / trials


def test_t_interval_covers_at_its_level():
    share = _coverage(mean_interval, 0.0, lambda rng: rng.normal(size=8))
    assert abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_bootstrap_of_the_mean_covers_nearly_at_its_level():
    def interval(x):
        return bootstrap_interval(x, np.mean, resamples=500)

    assert _coverage(interval, 0.0, lambda rng: rng.normal(size=30)) > 0.90


def test_exact_binomial_interval_covers_at_least_at_its_level():
    share = _coverage(lambda k: proportion_interval(k, 20), 0.3, lambda rng: rng.binomial(20, 0.3))
    assert share >= 0.94


def test_false_discovery_keeps_its_promise_on_nulls():
    rng = np.random.default_rng(0)
    any_false = np.mean([(false_discovery_q(rng.random(50)) <= 0.05).any() for _ in range(500)])
    assert any_false < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize("interval", [mean_interval, bootstrap_interval])
def test_missing_values_are_left_out_and_nothing_gives_nan(interval):
    assert interval([1.0, np.nan, 3.0]).estimate == 2.0
    assert np.isnan(interval([np.nan]).estimate)


def test_one_seed_has_no_finite_interval():
    assert mean_interval([3.0]).high == np.inf


@pytest.mark.parametrize(("each", "power"), [(3, 0.8), (5, 0.8), (20, 0.5)])
def test_the_least_detectable_difference_is_detected_that_often(each, power):
    rng = np.random.default_rng(0)
    shift = least_detectable_difference(2.0, each, power)
    a, b = rng.normal(scale=2.0, size=(2, 20_000, each))
    test = stats.ttest_ind(a + shift, b, axis=1)
    found = ((test.pvalue < 0.05) & (test.statistic > 0)).mean()
    assert abs(found - power) < 4 * np.sqrt(power * (1 - power) / 20_000)


def test_the_least_detectable_difference_tends_to_that_of_known_deviations():
    known = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * np.sqrt(2 / 10_000)
    assert least_detectable_difference(1.0, 10_000) == pytest.approx(known, rel=1e-3)
    fewer = [least_detectable_difference(1.0, each) for each in (2, 3, 5, 10, 100)]
    assert (np.diff(fewer) < 0).all()
    assert least_detectable_difference(1.0, 1) == np.inf
    assert least_detectable_difference(0.0, 5) == 0.0
    assert least_detectable_difference(1.0, 2, power=0.99, level=0.999) > fewer[0]
