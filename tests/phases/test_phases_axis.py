"""Planted phases are found again, within the grid step and at the promised level."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import ArrayLike

from superpose.phases import SUPERPOSED, find, state

GRID = np.geomspace(1, 100, 15)
NORM = {"ignored": 0.1, "dedicated": 1.0, "superposed": 1.0}
OVERLAP = {"ignored": 0.4, "dedicated": 0.01, "superposed": 0.9}


def table(states, sparsity: ArrayLike = GRID):
    """One row for each of states[world][run][feature]."""
    states = np.array(states)
    world, run, feature = (axis.ravel() for axis in np.indices(states.shape))
    return pa.table(
        {
            "p": 1 / np.asarray(sparsity, np.float64)[world],
            "run": run,
            "feature": feature,
            "norm": [NORM[name] for name in states.ravel()],
            "interference": [OVERLAP[name] for name in states.ravel()],
            "note": ["ignored column"] * states.size,
        }
    )


def one_switch(onsets, before="dedicated", after="superposed", sparsity: ArrayLike = GRID):
    """States of one feature that switches at `onsets[run]`."""
    late = np.asarray(sparsity)[:, None] >= np.asarray(onsets)[None, :]
    return np.where(late, after, before)[..., None]


def around(onset, sparsity=GRID):
    """The grid points on both sides."""
    at = np.searchsorted(sparsity, onset)
    return pytest.approx((sparsity[at - 1], sparsity[at]))


def test_states_follow_norm_and_interference():
    found = state([0.5, 0.51, 0.51, 2.0], [9.0, SUPERPOSED, 0.11, 0.0])
    assert found.tolist() == ["ignored", "dedicated", "superposed", "dedicated"]
    assert state(np.ones((2, 3)), 0.5, threshold=0.6).tolist() == [["dedicated"] * 3] * 2
    with pytest.raises(ValueError, match="diverged"):
        state([np.nan], [0.0])


@pytest.mark.parametrize("onset", [1.2, 4.0, 17.0, 80.0])
def test_a_planted_onset_is_found_within_the_grid_step(onset):
    found = find(table(one_switch([onset] * 8)))
    low, high = around(onset).expected
    assert (found.onset.low, found.onset.high) == around(onset)
    assert found.onset.estimate == pytest.approx(np.sqrt(low * high))
    assert found.onsets["misfit"].to_pylist() == [0] * 8
    assert found.notes == ()


def test_intervals_cover_the_median_onset_at_their_level():
    rng = np.random.default_rng(0)
    truth, hits, trials = 10.0, 0, 200
    grid = np.geomspace(1, 100, 60)  # fine, so that the grid step does not hide a narrow interval
    for _ in range(trials):
        onsets = truth * np.exp(rng.normal(0, 0.4, 8))
        found = find(table(one_switch(onsets, sparsity=grid), grid)).onset
        hits += found.low <= truth <= found.high
    assert hits / trials > 0.95 - 4 * np.sqrt(0.95 * 0.05 / trials)


def test_scattered_mistakes_move_the_onset_little_and_are_reported():
    rng = np.random.default_rng(1)
    states = one_switch([11.0] * 12)
    states = np.where(rng.random(states.shape) < 0.05, one_switch([np.inf] * 12), states)
    found = find(table(states))
    assert found.onset.low < 11.0 < found.onset.high
    assert found.onset.high / found.onset.low < 4
    assert max(found.onsets["misfit"].to_pylist()) > 0
    assert any("comes and goes" in note for note in found.notes)


def test_equally_good_onsets_are_all_inside_the_bracket():
    grid = [1.0, 2.0, 4.0, 8.0, 16.0]
    on = np.array([False, True, False, True, True])
    states = np.where(on, "superposed", "dedicated")[:, None, None]
    (run,) = find(table(states, grid)).onsets.to_pylist()
    assert (run["low"], run["high"], run["misfit"]) == (1.0, 8.0, 0.2)


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    states = rng.choice(["ignored", "dedicated", "superposed"], (6, 5, 4))
    straight = table(states, GRID[:6])
    shuffled = straight.take(rng.permutation(straight.num_rows))
    one, other = find(shuffled), find(straight)
    assert repr(one.onset) == repr(other.onset)
    for name in ("states", "onsets", "changes", "ranges", "sensitivity"):
        found, expected = getattr(one, name).to_pydict(), getattr(other, name).to_pydict()
        np.testing.assert_equal(found, expected)


def test_each_feature_has_its_own_changes():
    runs = 8
    columns = [
        one_switch([5.0] * runs),
        one_switch([20.0] * runs, "ignored", "dedicated"),
        one_switch([50.0] * runs, "ignored", "superposed"),
        one_switch([np.inf] * runs),
    ]
    changes = find(table(np.concatenate(columns, -1))).changes.to_pylist()
    found = [(row["feature"], row["change"]) for row in changes]
    assert found == [
        (0, "dedicated → superposed"),
        (1, "ignored → represented"),
        (2, "ignored → represented"),
    ]
    for row, onset in zip(changes, [5.0, 20.0, 50.0], strict=True):
        assert (row["low"], row["high"]) == around(onset)
        assert (row["runs"], row["shown"], row["before"], row["never"]) == (8, 8, 0, 0)


def test_runs_without_the_change_are_counted_not_dropped():
    onsets = [5.0] * 5 + [np.inf] * 2 + [0.5]
    (change,) = find(table(one_switch(onsets))).changes.to_pylist()
    assert (change["shown"], change["never"], change["before"]) == (5, 2, 1)
    assert change["high"] == np.inf
    (rare,) = find(table(one_switch([5.0] + [np.inf] * 7))).changes.to_pylist()
    assert (rare["shown"], rare["never"]) == (1, 7)
    assert np.isnan(rare["estimate"])


def test_a_change_that_half_the_runs_never_show_has_no_estimate():
    (change,) = find(table(one_switch([5.0] * 4 + [np.inf] * 4))).changes.to_pylist()
    assert np.isnan(change["estimate"])
    assert change["low"] == pytest.approx(around(5.0).expected[0])
    assert change["high"] == np.inf


def test_no_superposition_anywhere_is_said():
    found = find(table(one_switch([np.inf] * 4)))
    assert np.isnan(found.onset.estimate)
    assert (found.onset.low, found.onset.high) == (pytest.approx(100), np.inf)
    assert found.changes.num_rows == 0
    assert found.changes.column_names[:2] == ["feature", "change"]
    assert any("no superposition" in note and "4 of 4" in note for note in found.notes)


def test_superposition_everywhere_is_said():
    found = find(table(one_switch([0.5] * 6), GRID))
    assert np.isnan(found.onset.estimate)
    assert (found.onset.low, found.onset.high) == (1.0, 1.0)
    assert any("densest" in note for note in found.notes)


def test_one_run_has_no_finite_interval():
    found = find(table(one_switch([5.0])))
    low, high = around(5.0).expected
    assert found.onset.estimate == pytest.approx(np.sqrt(low * high))
    assert (found.onset.low, found.onset.high) == (1.0, np.inf)
    assert any("one run" in note for note in found.notes)


def test_one_density_has_no_onset():
    found = find(table(one_switch([0.5, 0.5, 0.5, 9.0], sparsity=[3.0]), [3.0]))
    assert np.isnan(found.onset.estimate)
    assert any("one density" in note for note in found.notes)
    assert found.states.num_rows == 1
    assert found.ranges.num_rows == 1


def test_states_are_shares_of_runs():
    found = find(table([[["ignored"], ["ignored"], ["superposed"]]], [2.0])).states.to_pylist()
    assert found == [
        {
            "p": 0.5,
            "sparsity": 2.0,
            "feature": 0,
            "ignored": pytest.approx(2 / 3),
            "dedicated": 0.0,
            "superposed": pytest.approx(1 / 3),
            "state": "ignored",
            "agreement": pytest.approx(2 / 3),
        }
    ]


def test_ranges_are_the_stretches_of_equal_modal_counts_and_coexistence_is_said():
    kept, pair = ["dedicated", "ignored"], ["superposed", "superposed"]
    worlds = [[kept] * 4, [kept] * 3 + [pair], [kept] * 2 + [pair] * 2, [pair] * 4]
    found = find(table(worlds, [1.0, 2.0, 4.0, 8.0]))
    assert found.ranges.to_pylist() == [
        {
            "p_from": 1.0,
            "p_to": 0.25,
            "sparsity_from": 1.0,
            "sparsity_to": 4.0,
            "worlds": 3,
            "dedicated": 1,
            "superposed": 0,
            "ignored": 1,
            "agreement": 0.75,
            "variants": 2,
        },
        {
            "p_from": 0.125,
            "p_to": 0.125,
            "sparsity_from": 8.0,
            "sparsity_to": 8.0,
            "worlds": 1,
            "dedicated": 0,
            "superposed": 2,
            "ignored": 0,
            "agreement": 1.0,
            "variants": 1,
        },
    ]
    assert any("coexist" in note for note in found.notes)


def test_sensitivity_gives_the_onset_by_other_thresholds():
    smooth = np.geomspace(1e-3, 1, 15)
    data = pa.table(
        {
            "p": np.tile(1 / GRID, 6),
            "run": np.repeat(np.arange(6), 15),
            "feature": np.zeros(90, int),
            "norm": np.ones(90),
            "interference": np.tile(smooth, 6),
        }
    )
    onsets = find(data).sensitivity["onset"].to_pylist()
    assert onsets == sorted(onsets)
    assert onsets[0] < onsets[-1]
    assert onsets[1] == find(data).onset.estimate


@pytest.mark.parametrize("name", ["p", "run", "feature", "norm", "interference"])
def test_a_missing_column_is_named(name):
    with pytest.raises(ValueError, match=f"no column {name};"):
        find(table(one_switch([5.0])).drop_columns([name]))


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="empty"):
        find(table(one_switch([5.0])).slice(0, 0))


def test_double_and_missing_rows_are_refused():
    whole = table(one_switch([5.0, 6.0]))
    with pytest.raises(ValueError, match="more than one row"):
        find(pa.concat_tables([whole, whole.slice(3, 2)]))
    with pytest.raises(ValueError, match="1 cells of 15 densities × 2 runs × 1 features have no"):
        find(whole.slice(1))


@pytest.mark.parametrize(
    ("column", "value", "words"), [("norm", np.nan, "diverged"), ("p", 1.5, "probability")]
)
def test_values_that_cannot_be_are_refused(column, value, words):
    whole = table(one_switch([5.0]))
    values = whole[column].to_numpy().copy()
    values[0] = value
    at = whole.column_names.index(column)
    with pytest.raises(ValueError, match=words):
        find(whole.set_column(at, column, pa.array(values)))
