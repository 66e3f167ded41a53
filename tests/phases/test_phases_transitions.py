"""Planted jumps and planted continuous changes: which is called what, and how often wrongly."""

import numpy as np
import pyarrow as pa
import pytest

from superpose import phases

NOISE = {"loss": 1e-3, "order": 0.02}


def table(x, loss, order, state):
    points, runs = loss.shape
    return pa.table(
        {
            "x": np.repeat(x, runs),
            "run": np.tile(np.arange(runs), points),
            "loss": loss.ravel(),
            "norm": order.ravel(),
            "kind": state.ravel(),
        }
    )


def noisy(rng, loss, order, runs):
    shape = (len(loss), runs)
    higher = np.abs(rng.normal(0, NOISE["loss"], shape))  # training stops above a minimum
    return loss + higher, order + rng.normal(0, NOISE["order"], shape)


def jump(seed, points=20, runs=10, height=0.8, bend=0.3, reach=0.5):
    """Two minima whose losses cross at a seed's own place; each run falls into one of them."""
    rng = np.random.default_rng(seed)
    x, at = np.linspace(1, 2, points), rng.uniform(1.35, 1.65)
    second = rng.random((points, runs)) < reach
    u = (x - at)[:, None]
    loss = 0.5 + 0.4 * u - 0.3 * u**2 - second * bend * u
    order = 0.1 + 0.05 * u + second * height
    return table(x, *noisy(rng, loss, order, runs), np.where(second, "b", "a"))


def smooth(seed, points=20, runs=10, width=0.2, threshold=0.5):
    """One minimum whose order parameter rises over `width`; "a" and "b" are only names."""
    rng = np.random.default_rng(seed)
    x, at = np.linspace(1, 2, points), rng.uniform(1.35, 1.65)
    u = ((x - at) / width)[:, None]
    order = 0.5 * (1 + np.tanh(u))
    loss = 0.5 - 0.2 * (x - 1)[:, None] - 0.1 * width * np.logaddexp(0, 2 * u)
    loss, order = noisy(rng, loss, order, runs)
    return table(x, loss, order, np.where(order > threshold, "b", "a"))


def root(seed, points=40, runs=10, threshold=0.5):
    """One minimum, and an order parameter that starts as a square root."""
    rng = np.random.default_rng(seed)
    x, at = np.linspace(1, 2, points), rng.uniform(1.35, 1.65)
    above = np.maximum(x - at, 0)[:, None]
    loss, order = noisy(rng, 0.5 - 0.2 * (x - 1)[:, None] - above**2 / 2, np.sqrt(2 * above), runs)
    return table(x, loss, order, np.where(order > threshold, "b", "a"))


def verdicts(plant, seeds=6, **planted):
    found = [
        phases.transition(plant(seed, **planted), "x", label="kind", resamples=40)
        for seed in range(seeds)
    ]
    return [each.verdict for each in found]


@pytest.mark.parametrize("planted", [{}, {"height": -0.5}, {"reach": 0.8}])
def test_planted_jumps_are_called_jumps(planted):
    found = verdicts(jump, **planted)
    assert "continuous" not in found
    assert found.count("jump") >= 5


@pytest.mark.parametrize("planted", [{}, {"width": 0.1}])
def test_planted_smooth_changes_are_called_continuous(planted):
    found = verdicts(smooth, **planted)
    assert "jump" not in found
    assert found.count("continuous") >= 5


def test_a_square_root_is_no_jump():
    assert set(verdicts(root)) == {"continuous"}
    assert "jump" not in verdicts(root, threshold=0.05)


def test_a_change_within_one_grid_step_is_undecided():
    found = verdicts(smooth, width=0.01)
    assert "jump" not in found
    assert "undecided" in found


@pytest.mark.slow
def test_false_verdicts_are_rare():
    wrong = sum(v == "continuous" for v in verdicts(jump, seeds=100))
    wrong += sum(v == "jump" for v in verdicts(smooth, seeds=100))
    wrong += sum(v == "jump" for v in verdicts(root, seeds=100, threshold=0.05))
    wrong += sum(v == "jump" for v in verdicts(smooth, seeds=100, width=0.02))
    assert wrong <= 4


def exact(x, at=1.5, height=0.8):
    u = (x - at)[:, None]
    second = np.array([[False, True]])
    loss = 1 + 0.4 * u - 0.3 * second * u
    order = 0.1 + second * height + 0 * u
    return table(x, loss, order, np.where(second + 0 * u > 0, "b", "a"))


@pytest.mark.parametrize("grid", [np.linspace(1, 2, 12), np.geomspace(1, 2, 31)])
def test_an_exact_crossing_is_measured_exactly(grid):
    found = phases.transition(exact(grid), "x", label="kind", resamples=0)
    assert (found.verdict, found.states) == ("jump", ("a", "b"))
    assert found.position.estimate == pytest.approx(1.5, abs=1e-3)
    assert found.jump.estimate == pytest.approx(0.8, abs=1e-9)
    assert found.slope.estimate == pytest.approx(-0.3, abs=2e-3)
    assert found.shrink.estimate == pytest.approx(1.0)
    assert found.coexisting == grid.size
    assert found.branches.column_names == [
        "x",
        "loss of a",
        "order of a",
        "loss of b",
        "order of b",
    ]


def test_the_jump_is_measured_to_the_noise_of_its_points():
    for seed in range(12):
        found = phases.transition(jump(seed), "x", label="kind", resamples=0)
        # Five points a branch with noise 0.02 give the middle of a parabola to 0.014 each.
        assert found.jump.estimate == pytest.approx(0.8, abs=4 * 0.014 * np.sqrt(2))


def test_a_branch_of_a_single_run_is_undecided():
    one = exact(np.linspace(1, 2, 12))
    rows = one.to_pylist()
    rows = [row | {"run": 0} for row in rows if row["kind"] == "b"] + [
        row | {"run": run} for row in rows if row["kind"] == "a" for run in range(1, 10)
    ]
    found = phases.transition(pa.Table.from_pylist(rows), "x", label="kind", resamples=200)
    assert found.verdict == "undecided"
    assert any("missing" in words for words in found.evidence)


def test_one_run_bounds_nothing():
    single = smooth(0, runs=1)
    found = phases.transition(single, "x", label="kind")
    assert found.verdict == "undecided"
    assert (found.jump.low, found.jump.high) == (-np.inf, np.inf)
    assert any("one run" in words for words in found.evidence)


def test_a_feature_is_followed_through_its_states():
    data = jump(0).drop_columns(["kind"])
    norm = data["norm"].to_numpy()
    columns = {"feature": np.full(norm.size, 3), "interference": np.where(norm > 0.5, 1.0, 0.0)}
    for name, values in columns.items():
        data = data.append_column(name, pa.array(values))
    found = phases.transition(data, "x", feature=3, resamples=40)
    assert (found.verdict, found.states) == ("jump", ("ignored", "superposed"))


def test_there_must_be_one_transition():
    x = np.linspace(1, 2, 12)
    none = exact(x, at=5.0)
    with pytest.raises(ValueError, match="in the states a; a transition is between two"):
        phases.transition(none, "x", label="kind")
    with pytest.raises(ValueError, match="no column norm"):
        phases.transition(none.drop_columns(["norm"]), "x", label="kind")
