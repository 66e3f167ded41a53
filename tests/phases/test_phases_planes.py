"""Planted boundaries are found again, with bands that say what other seeds would show."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike

from superpose import phases
from superpose.phases.boundaries import polylines, segments

R, P = np.geomspace(0.1, 10, 12), np.geomspace(0.01, 1, 10)


def table(code, loss, x=R, y=P):
    """A row for each of code[y][x][run], an index of "a", "b", "c"."""
    row, column, run = (axis.ravel() for axis in np.indices(code.shape))
    return pa.table(
        {
            "r": x[column],
            "p": y[row],
            "run": run,
            "loss": loss.ravel(),
            "kind": np.array(list("abc"))[code.ravel()],
        }
    )


def planted(runs=20, tilt=1.0, reach: ArrayLike = 0.5, seed=0):
    """Two states whose losses cross on the line p = 0.1 r ** tilt; seeds choose a basin."""
    rng = np.random.default_rng(seed)
    ahead = np.log(P / 0.1)[:, None] - tilt * np.log(R)
    code = (rng.random((P.size, R.size, runs)) < reach).astype(int)
    loss = 1 + np.where(code == 1, -0.05, 0.05) * ahead[..., None]
    return table(code, loss), phases.exact_plane(np.where(ahead > 0, "b", "a"), R, P, ("r", "p"))


def test_the_best_seed_gives_the_state_and_shares_add_up():
    data, exact = planted()
    found = phases.plane(data, "r", label="kind")
    np.testing.assert_array_equal(found.states, exact.states)
    np.testing.assert_allclose(found.shares.sum(0), 1)
    np.testing.assert_allclose(found.support.sum(0), 1)
    assert (found.x_name, found.y_name, found.runs) == ("r", "p", 20)
    np.testing.assert_allclose(found.x, R)
    np.testing.assert_allclose(found.y, P)


def test_states_of_a_feature_come_from_its_norm_and_interference():
    rows = pa.table(
        {
            "importance": [1.0] * 3 + [2.0] * 3,
            "p": [0.5] * 6,
            "run": [0] * 6,
            "feature": [0, 1, 2] * 2,
            "loss": [0.1] * 6,
            "norm": [0.1, 1.0, 1.0, 0.1, 0.1, 1.0],
            "interference": [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        }
    )
    by = {k: phases.plane(rows, "importance", feature=k).states.tolist() for k in range(3)}
    assert by == {
        0: [["ignored", "ignored"]],
        1: [["dedicated", "ignored"]],
        2: [["superposed", "dedicated"]],
    }
    with pytest.raises(ValueError, match="more than one row"):
        phases.plane(rows, "importance")
    with pytest.raises(ValueError, match="no rows of feature 7"):
        phases.plane(rows, "importance", feature=7)


def test_support_is_the_share_of_resamples_won():
    rng = np.random.default_rng(3)
    code, loss = rng.integers(0, 3, (P.size, R.size, 7)), rng.random((P.size, R.size, 7))
    found = phases.plane(table(code, loss), "r", label="kind")
    draws = rng.integers(0, 7, (4_000, 7))
    best = np.take_along_axis(code[0, 0][draws], loss[0, 0][draws].argmin(1)[:, None], 1)
    shares = np.bincount(best[:, 0], minlength=3) / len(draws)
    support = found.support[:, 0, 0]
    error = np.sqrt(support * (1 - support) / len(draws))
    assert (np.abs(shares - support) <= 4 * error + 1e-12).all()


@pytest.mark.parametrize(("seeds", "uncertain"), [(1, True), (3, True), (4, False), (10, False)])
def test_a_state_that_few_seeds_reached_is_in_the_band(seeds, uncertain):
    code = np.broadcast_to(np.arange(10) < seeds, (2, 2, 10)).astype(int)
    data = table(code, np.where(code == 1, 0.1, 0.2), R[:2], P[:2])
    found = phases.plane(data, "r", label="kind")
    assert (found.states == "b").all()
    assert (found.band == uncertain).all()


def test_outside_the_band_other_seeds_show_the_same_where_the_best_state_was_reached():
    # How many seeds reach a state differs from cell to cell, as it does in training.
    wrong, cells = 0, 0
    for draw in range(40):
        reach = np.random.default_rng(draw).random((P.size, R.size, 1))
        data, exact = planted(10, reach=reach, seed=1_000 + draw)
        one = phases.plane(data, "r", label="kind")
        other = phases.plane(planted(10, reach=reach, seed=2_000 + draw)[0], "r", label="kind")
        certain = ~one.band & (one.states == exact.states)
        wrong += int((one.states != other.states)[certain].sum())
        cells += int(certain.sum())
    assert wrong / cells < 0.025 + 4 * np.sqrt(0.025 * 0.975 / cells)


def test_a_state_that_no_seed_reached_leaves_no_trace():
    code = np.zeros((2, 2, 10), int)
    found = phases.plane(table(code, np.ones(code.shape), R[:2], P[:2]), "r", label="kind")
    assert found.labels == ("a",)
    assert not found.band.any()


def test_coexistence_has_exact_intervals():
    code = np.broadcast_to(np.arange(8) < 8, (1, 2, 8)).astype(int)
    found = phases.plane(table(code, np.ones(code.shape), R[:2], P[:1]), "r", label="kind")
    rows = found.coexistence().to_pylist()
    assert [(row["r"], row["state"], row["share"], row["best"]) for row in rows] == [
        (R[0], "b", 1.0, True),
        (R[1], "b", 1.0, True),
    ]
    assert rows[0]["low"] == pytest.approx(0.025 ** (1 / 8))
    assert rows[0]["high"] == 1.0


def test_diverged_runs_are_a_state_and_never_best():
    data, _ = planted()
    loss = data["loss"].to_numpy().copy()
    loss[data["run"].to_numpy() == 0] = np.nan
    found = phases.plane(data.set_column(3, "loss", pa.array(loss)), "r", label="kind")
    assert found.labels == ("a", "b", "diverged")
    np.testing.assert_allclose(found.shares[2], 0.05)
    others = data.filter(pa.array(data["run"].to_numpy() > 0))
    np.testing.assert_array_equal(found.states, phases.plane(others, "r", label="kind").states)


def test_wrong_tables_are_refused():
    data, _ = planted(runs=2)
    with pytest.raises(ValueError, match=r"no column loss;.*needs p, r, run, loss, kind"):
        phases.plane(data.drop_columns(["loss"]), "r", label="kind")
    with pytest.raises(
        ValueError, match="1 places of 10 values of p × 12 values of r × 2 runs have no"
    ):
        phases.plane(data.slice(1), "r", label="kind")
    with pytest.raises(ValueError, match="more than one row"):
        phases.plane(pa.concat_tables([data, data.slice(3, 1)]), "r", label="kind")
    with pytest.raises(ValueError, match="states of shape"):
        phases.exact_plane(np.array([["a"]]), R, P)


def test_the_order_of_rows_does_not_matter():
    data, _ = planted()
    shuffled = data.take(np.random.default_rng(0).permutation(data.num_rows))
    one, other = (phases.plane(each, "r", label="kind") for each in (data, shuffled))
    np.testing.assert_array_equal(one.support, other.support)
    np.testing.assert_array_equal(one.losses, other.losses)


labelled = arrays(
    np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 2)
)


@settings(max_examples=60, deadline=None)
@given(labelled)
def test_boundaries_of_a_grid_obey_its_symmetries(labels):
    found, turned = segments(labels), segments(labels.T)
    assert found.length.sum() == pytest.approx(turned.length.sum())
    assert (found.pair[:, 0] < found.pair[:, 1]).all()
    bounds = np.array(labels.shape)[::-1] - 0.5
    assert ((found.ends >= -0.5) & (found.ends <= bounds)).all()
    # One label against the rest keeps at most all of it, and nothing where labels are equal.
    assert (len(found.pair) == 0) == (np.unique(labels).size == 1)
    lines = polylines(found)
    pieces = sum(len(line) - 1 for _, line in lines)
    assert pieces == len(found.pair)
    steps = [np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for _, line in lines]
    assert sum(steps) == pytest.approx(found.length.sum())


def test_a_straight_and_a_closed_boundary():
    straight = np.zeros((4, 5), int)
    straight[:, 3:] = 1
    (((low, high), line),) = polylines(segments(straight))
    assert (low, high) == (0, 1)
    assert line[0].tolist() == [2.5, -0.5]
    assert line[-1].tolist() == [2.5, 3.5]
    island = np.zeros((3, 3), int)
    island[1, 1] = 1
    ((_, ring),) = polylines(segments(island))
    assert ring[0].tolist() == ring[-1].tolist()
    assert segments(island).length.sum() == pytest.approx(4 * np.sqrt(0.5))


def test_three_states_meet_in_one_point():
    found = segments(np.array([[0, 0], [1, 2]]))
    lines = polylines(found)
    assert sorted(pair for pair, _ in lines) == [(0, 1), (0, 2), (1, 2)]
    assert all([0.5, 0.5] in line.tolist() for _, line in lines)


def test_boundaries_are_given_in_the_units_of_the_axes():
    exact = phases.exact_plane(
        np.array([["a", "b"]] * 2), np.array([1.0, 4.0]), np.array([0.1, 0.2])
    )
    rows = exact.boundaries().to_pylist()
    assert {row["boundary"] for row in rows} == {"a | b"}
    assert [row["x"] for row in rows] == pytest.approx([2.0] * len(rows))
    assert [row["point"] for row in rows] == list(range(len(rows)))


def test_agreement_with_itself_is_complete():
    data, exact = planted()
    found = phases.agreement(phases.plane(data, "r", label="kind"), exact, cells=0.0)
    assert (found.share, found.covered, found.cells) == pytest.approx((1.0, 1.0, 1.0))
    assert found.outside.num_rows == found.unequal.num_rows == 0


def test_agreement_counts_what_is_off_by_more_than_a_cell():
    states = np.where(np.ones((P.size, 1)) * np.arange(R.size) < 5, "a", "b")
    exact = phases.exact_plane(states, R, P)
    for shift, share in ((1, 1.0), (2, 0.0)):
        moved = np.where(np.ones((P.size, 1)) * np.arange(R.size) < 5 + shift, "a", "b")
        found = phases.agreement(phases.exact_plane(moved, R, P), exact)
        assert (found.share, found.covered) == pytest.approx((share, share))
        assert found.cells == pytest.approx(1 - shift / R.size)
        (row,) = found.boundaries.to_pylist()
        assert row["median_distance"] == pytest.approx(shift)
        assert found.unequal.num_rows == shift * P.size


def test_half_of_a_boundary_is_half_its_length():
    states = np.where(np.ones((P.size, 1)) * np.arange(R.size) < 5, "a", "b")
    moved = states.copy()
    moved[: P.size // 2, 5:9] = "a"
    found = phases.agreement(phases.exact_plane(moved, R, P), phases.exact_plane(states, R, P))
    # The step from one half to the other is itself a piece of boundary, 4 cells long.
    assert found.share == pytest.approx((P.size / 2 + 1) / (P.size + 4), abs=0.06)
    # Half of the exact one, and what lies within a cell of that step, to one piece of half a cell.
    assert found.covered == pytest.approx((P.size / 2 + 1) / P.size, abs=0.5 / P.size + 1e-9)
    off = found.outside["distance"].to_numpy()
    assert off.size > 0
    assert (off > 1).all()


def test_a_band_between_the_boundaries_excuses_the_distance():
    truth = np.where(np.ones((P.size, 1)) * np.arange(R.size) < 5, "a", "b")
    code = np.zeros((P.size, R.size, 10), int)
    code[:, 5:] = 1
    code[:, 5:8, 1:] = 0  # three columns beyond it only one seed of ten came to the better state
    loss = np.where(code == 1, 0.1, 0.2)
    loss[:, 5:8, 0] = 0.3  # and it stopped too early
    exact = phases.exact_plane(truth, R, P, ("r", "p"))
    strict = phases.agreement(phases.plane(table(code, loss), "r", label="kind"), exact)
    assert strict.share == 0.0
    assert set(strict.unequal["seeds"].to_pylist()) == {0.1}
    assert strict.unequal["excess"].to_numpy() == pytest.approx(0.5)
    loss[:, 5:8, 0] = 0.1
    code[:, 5:8, :1] = 0
    code[:, 5:8, 1] = 1
    loss[:, 5:8, 1] = 0.11
    excused = phases.agreement(phases.plane(table(code, loss), "r", label="kind"), exact)
    assert excused.unequal["band"].to_pylist() == [True] * (3 * P.size)
    assert excused.share == 1.0


def test_the_exact_plane_may_be_finer():
    data, _ = planted()
    fine = np.geomspace(0.1, 10, 100), np.geomspace(0.01, 1, 90)
    exact = phases.exact_plane(
        np.where(np.log(fine[1] / 0.1)[:, None] - np.log(fine[0]) > 0, "b", "a"), *fine
    )
    found = phases.agreement(phases.plane(data, "r", label="kind"), exact)
    assert (found.share, found.covered) == pytest.approx((1.0, 1.0))
    with pytest.raises(ValueError, match="same units"):
        phases.agreement(phases.plane(data, "r", label="kind"), _far(exact))


def _far(plane):
    return phases.exact_plane(plane.states, plane.x * 1e6, plane.y)


def test_a_boundary_that_is_not_there_is_missed():
    exact = phases.exact_plane(np.array([["a", "b"]] * 3), R[:2], P[:3])
    none = phases.exact_plane(np.full((3, 2), "a"), R[:2], P[:3])
    found = phases.agreement(none, exact)
    assert np.isnan(found.share)
    assert found.covered == 0.0
    assert phases.agreement(exact, none).share == 0.0
    with pytest.raises(ValueError, match="cells"):
        phases.agreement(exact, none, cells=-1.0)


def test_what_diverged_models_are_labelled_does_not_count():
    data = {"r": [1.0, 1.0, 2.0, 2.0], "p": [0.5] * 4, "run": [0, 1, 0, 1]}
    data |= {"loss": [0.1, np.nan, 0.2, 0.3]}
    for label in ("diverged", None, "c"):
        table = pa.table(data | {"kind": ["a", label, "b", "b"]})
        found = phases.plane(table, "r", label="kind")
        assert found.labels == ("a", "b", "diverged")
        np.testing.assert_allclose(found.shares[:, 0], [[0.5, 0.0], [0.0, 1.0], [0.5, 0.0]])


@pytest.mark.parametrize(("off", "share"), [(0.99, 1.0), (1.01, 0.0), (1.1, 0.0), (1.5, 0.0)])
def test_the_tolerance_is_what_it_says(off, share):
    fine, coarse = np.arange(0, 10, 0.01) - 20, np.arange(0.0, 10) - 20
    found = np.where(coarse < -15.4, "a", "b")
    exact = np.where(fine < -15.5 + off - 0.005, "a", "b")
    one, other = (
        phases.exact_plane(np.tile(each, (2, 1)), x, np.array([-2.0, -1.0]))
        for each, x in ((found, coarse), (exact, fine))
    )
    assert phases.agreement(one, other).share == share


def test_an_exact_plane_may_begin_at_zero():
    y = np.array([1.0, 2.0])
    rows = [["a"], ["b"]]
    found = phases.exact_plane(np.tile(rows, 3), np.array([0.1, 0.2, 0.4]), y)
    exact = phases.exact_plane(np.tile(rows, 9), np.linspace(0, 0.8, 9), y)
    assert phases.agreement(found, exact).share == 1.0
