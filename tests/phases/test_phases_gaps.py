"""The gap to the optimum, and who lies below it."""

import numpy as np
import pytest
from scipy import stats

from superpose import phases


def test_gaps_are_relative_to_the_optimum():
    losses = [[0.2, 0.22, 0.4], [3.0, 3.3, 6.0]]
    found = phases.gap(losses, [0.2, 3.0]).to_pydict()
    assert found["best"] == pytest.approx([0.0, 0.0])
    assert found["median"] == pytest.approx([0.1, 0.1])
    assert found["near"] == pytest.approx([1 / 3] * 2)
    assert found["below"] == [False, False]
    assert found["runs"] == [3, 3]


def test_the_order_of_runs_does_not_matter():
    rng = np.random.default_rng(0)
    losses = 1 + rng.random((5, 9))
    assert phases.gap(losses, np.ones(5)).equals(phases.gap(losses[:, ::-1], np.ones(5)))


def test_a_loss_below_the_optimum_is_flagged():
    losses = [[1.0, 2.0], [0.999, 2.0], [1 - 1e-8, 2.0]]
    assert phases.gap(losses, np.ones(3))["below"].to_pylist() == [False, True, False]
    assert not any(phases.gap(losses, np.ones(3), slack=0.01)["below"].to_pylist())


def test_diverged_runs_are_infinitely_far():
    (row,) = phases.gap([[np.nan, 1.0, np.nan]], [1.0]).to_pylist()
    assert (row["best"], row["median"]) == (0.0, np.inf)
    assert row["near"] == pytest.approx(1 / 3)


def test_an_optimum_of_zero_is_reached_or_infinitely_far():
    found = phases.gap([[0.0, 0.0], [0.1, 0.2]], [0.0, 0.0])
    assert found["best"].to_pylist() == [0.0, np.inf]
    assert found["below"].to_pylist() == [False, False]


def test_few_runs_bound_nothing():
    (one,) = phases.gap([[1.1]], [1.0]).to_pylist()
    assert (one["best_high"], one["median_low"], one["median_high"]) == (np.inf, 0.0, np.inf)
    (five,) = phases.gap([[1.1, 1.2, 1.3, 1.4, 1.5]], [1.0]).to_pylist()
    assert (five["median_low"], five["median_high"]) == (0.0, np.inf)
    (six,) = phases.gap([[1.1, 1.2, 1.3, 1.4, 1.5, 1.6]], [1.0]).to_pylist()
    assert (six["median_low"], six["median_high"]) == pytest.approx((0.1, 0.6))


@pytest.mark.parametrize("runs", [6, 10, 21])
def test_median_intervals_cover_at_their_level(runs):
    losses = 1 + stats.expon.rvs(size=(4_000, runs), random_state=0)
    found = phases.gap(losses, np.ones(4_000))
    low, high = (found[name].to_numpy() for name in ("median_low", "median_high"))
    cover = ((low <= np.log(2)) & (np.log(2) <= high)).mean()
    assert cover > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 4_000)


def test_the_best_of_resampled_runs_stays_below_its_bound():
    rng = np.random.default_rng(1)
    losses = 1 + rng.random((1, 10))
    (row,) = phases.gap(losses, [1.0]).to_pylist()
    best = losses[0][rng.integers(0, 10, (4_000, 10))].min(1) - 1
    assert (best <= row["best_high"] + 1e-12).mean() >= 0.975
    assert (best < row["best_high"] - 1e-12).mean() < 0.975


@pytest.mark.parametrize(
    ("losses", "optimal", "words"),
    [
        ([1.0, 2.0], [1.0], "worlds, runs"),
        ([[1.0]], [1.0, 2.0], "worlds, runs"),
        (np.zeros((2, 0)), [1.0, 2.0], "worlds, runs"),
        ([[1.0]], [-1.0], "at least 0"),
        ([[1.0]], [np.nan], "finite"),
    ],
)
def test_what_cannot_be_is_refused(losses, optimal, words):
    with pytest.raises(ValueError, match=words):
        phases.gap(losses, optimal)


def test_a_loss_below_an_optimum_of_zero_is_flagged():
    found = phases.gap([[-1.0, 0.5]], [0.0])
    assert found["below"].to_pylist() == [True]
