"""Refinement finds planted boundaries to the width asked for, with few models."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from superpose import statistics, theory
from superpose.sweep import refinement
from superpose.sweep.configuration import parse
from superpose.sweep.here import Here
from superpose.sweep.plan import Plan
from superpose.sweep.run import run
from superpose.sweep.store import Sweep


class Planted:
    """A sweep whose models are in states known beforehand: `truth(cells) -> [cells, seeds]`."""

    def __init__(self, plan, truth, diverged=None):
        self.plan, self.truth = plan, truth
        self.diverged = diverged or (lambda cells: np.zeros((cells.size, self.seeds), bool))
        self.lost = ()

    @property
    def seeds(self):
        return self.plan.configuration.seeds

    def missing(self):
        return iter(self.lost)

    def table(self, columns=None):
        cells = np.sort(np.concatenate([np.array(each, int) for each in self.plan.rounds]))
        table = {
            "cell": np.repeat(cells, self.seeds),
            "run": np.tile(np.arange(self.seeds), cells.size),
            self.plan.configuration.refine.measure: self.truth(cells).ravel(),
            "diverged": self.diverged(cells).ravel(),
        }
        return pa.table({name: table[name] for name in columns or table})

    def at(self, cells, axis=0):
        """The values of cells along an axis."""
        return np.array(self.plan.values(axis))[np.unravel_index(cells, self.plan.shape)[axis]]

    def trained(self):
        return {cell for each in self.plan.rounds for cell in each}

    def grow(self):
        while cells := refinement.next_round(self):
            self.plan = self.plan.with_rounds([*self.plan.rounds, cells])
        return self


P = {"world.p": {"grid": [0.1, 0.9], "count": 9}}
R = {"world.importance": {"grid": [0.1, 0.9], "count": 9}}


def planned(axes=P, refined=("world.p",), width=0.1 / 32, seeds=8, **refine):
    refine = {"measure": "represented", "axes": list(refined), "width": width} | refine
    plain = {"model": {"n": 2, "m": 1}, "axes": axes, "seeds": seeds, "refine": refine}
    plain |= {"world": {"amplitude": "exponential"}}
    configuration = parse(plain)
    return Plan(configuration, (10**6,) * (3 if "model.m" in axes else 1))


def planted(truth, **options):
    """`truth(*values of each axis) -> state`, the same for all seeds."""
    sweep = Planted(planned(**options), None)

    def states(cells):
        values = [sweep.at(cells, axis) for axis in range(len(sweep.plan.shape))]
        return np.repeat(np.asarray(truth(*values), int)[:, None], sweep.seeds, 1)

    sweep.truth = states
    return sweep


def scattered(places, **options):
    """Each seed changes from 1 to 2 at a place of its own."""
    sweep = Planted(planned(seeds=len(places), **options), None)
    sweep.truth = lambda cells: 1 + (sweep.at(cells)[:, None] > np.asarray(places))
    return sweep


@pytest.mark.parametrize("place", [0.1001, 0.25, 0.3377, 0.8999])
def test_one_boundary_is_bracketed_by_one_fine_step(place):
    sweep = planted(lambda p: 1 + (p > place)).grow()
    (row,) = refinement.boundaries(sweep).to_pylist()
    assert row["low"] <= place <= row["high"]
    assert row["width"] == pytest.approx(0.1 / 32)
    assert (row["below"], row["above"], row["seeds"], row["shown"]) == (1, 2, 8, 8)
    assert (row["median_low"], row["median_high"]) == (row["low"], row["high"])
    assert row["p"] == row["median"] == pytest.approx((row["low"] + row["high"]) / 2)
    assert len(sweep.trained()) == 9 + 5  # a midpoint for each halving


def test_nothing_is_refined_where_nothing_changes():
    sweep = planted(lambda p: np.ones(p.size)).grow()
    assert len(sweep.trained()) == 9
    assert refinement.boundaries(sweep).num_rows == 0


def test_an_axis_may_fall_and_be_logarithmic():
    axes = {"world.p": {"log": [1.0, 0.01], "count": 5}}
    sweep = planted(lambda p: np.where(p < 0.3, 2, 0), axes=axes, width=0.01).grow()
    (row,) = refinement.boundaries(sweep).to_pylist()
    assert row["low"] <= 0.3 <= row["high"]
    assert row["width"] == pytest.approx(0.5 / 64)  # decades
    assert (row["below"], row["above"]) == (2, 0)
    assert row["p"] == pytest.approx(np.sqrt(row["low"] * row["high"]))


def test_every_boundary_along_a_line_is_found():
    sweep = planted(lambda p: 1 + np.searchsorted([0.22, 0.47, 0.81], p) % 3).grow()
    rows = refinement.boundaries(sweep).to_pylist()
    assert [(row["below"], row["above"]) for row in rows] == [(1, 2), (2, 3), (3, 1)]
    for row, place in zip(rows, [0.22, 0.47, 0.81], strict=True):
        assert row["median_low"] == row["low"] <= place <= row["high"] == row["median_high"]


def test_other_axes_stay_full_and_are_refined_apart():
    axes = P | {"model.m": [1, 2, 3]}
    places = {1: 0.2, 2: 0.7}
    sweep = planted(lambda m, p: 1 + (p > np.array([0, *places.values(), 2])[m]), axes=axes).grow()
    assert len(sweep.trained()) == 3 * 9 + 2 * 5
    rows = refinement.boundaries(sweep).to_pylist()
    assert [row["m"] for row in rows] == [1, 2]
    assert all(row["low"] <= places[row["m"]] <= row["high"] for row in rows)


def circle(p, r):
    return 1 + ((p - 0.5) ** 2 + (r - 0.45) ** 2 < 0.3**2)


@pytest.mark.parametrize("halvings", [2, 4, 5])
def test_a_closed_boundary_in_a_plane(halvings):
    width = 0.1 / 2**halvings
    sweep = planted(
        circle, axes=P | R, refined=("world.p", "world.importance"), width=width, seeds=2
    ).grow()
    table = refinement.boundaries(sweep)
    assert np.allclose(table["width"].to_numpy(), width)
    points = np.stack([table["p"].to_numpy(), table["importance"].to_numpy()], 1)
    off = abs(np.linalg.norm(points - [0.5, 0.45], axis=1) - 0.3)
    assert off.max() <= width
    # The boundary crosses the 4 · 0.6 / width lines of its bounding box, twice each.
    assert table.num_rows == pytest.approx(4 * 0.6 / width, rel=0.03)
    saved = refinement.savings(sweep)
    assert saved.full == 2 * (8 * 2**halvings + 1) ** 2
    assert saved.trained == 2 * len(sweep.trained()) < 2 * (81 + 4.2 * table.num_rows)


def test_axes_of_unequal_width_end_together():
    sweep = planted(
        lambda p, r: 1 + (p + r > 0.9321),
        axes=P | R,
        refined=("world.p", "world.importance"),
        width={"world.p": 0.1 / 16, "world.importance": 0.1},
    ).grow()
    table = refinement.boundaries(sweep)
    for name, width in {"p": 0.1 / 16, "importance": 0.1}.items():
        rows = [row for row in table.to_pylist() if row["axis"] == name]
        assert rows
        assert np.allclose([row["width"] for row in rows], width)


def fields():
    """Patches of three states over lattices of one to three refined axes."""
    keys = ["world.p", "world.importance", "world.amplitude.scale"]
    for number in range(24):
        rng = np.random.default_rng(number)
        axes = keys[: 1 + number % 3]
        count, halvings = int(rng.integers(2, 4)), int(rng.integers(1, 4 if len(axes) < 3 else 3))
        spaced = {key: {"grid": [0.1, 0.9], "count": count} for key in axes}
        width = dict.fromkeys(axes, 0.8 / (count - 1) / 2**halvings)
        yield rng, spaced, width


def test_a_finished_grid_separates_all_states_by_single_steps():
    for rng, axes, width in fields():
        seeds = int(rng.integers(1, 4))
        sweep = Planted(planned(axes, tuple(axes), width, seeds), None)
        shape = sweep.plan.shape
        centres = rng.random((5, len(shape))) * shape
        at = np.stack(np.unravel_index(np.arange(sweep.plan.grid), shape), -1)
        nearest = np.linalg.norm(at[:, None] - centres, axis=-1).argmin(1) % 3
        noise = rng.random((sweep.plan.grid, seeds)) < rng.choice([0, 0.02])
        states = np.where(noise, 3, nearest[:, None])
        sweep.truth = lambda cells, states=states: states[cells]
        rounds = len(sweep.grow().plan.rounds)
        for axis, step in enumerate(sweep.plan.steps):
            assert step
            seen = refinement._read(sweep, sweep.plan.configuration.refine)
            for line in refinement._lines(seen, shape, axis):
                changes = np.diff(seen.state[line]) != 0
                assert (np.diff(seen.at[line, axis])[changes] == 1).all()
        # One after another or all at once: what is trained is the same.
        again = Planted(sweep.plan.with_rounds([sorted(sweep.trained())]), sweep.truth)
        assert refinement.next_round(again) == ()
        assert rounds <= 3 * max(sweep.plan.steps)


def test_seeds_that_disagree_everywhere_alike_cost_nothing():
    sweep = Planted(planned(seeds=10), None)
    sweep.truth = lambda cells: np.tile(1 + (np.arange(10) < 3), (cells.size, 1))
    assert len(sweep.grow().trained()) == 9


def test_one_that_strays_among_nine_is_left_alone_and_among_eight_looked_into():
    for seeds, cells in ((9, 9), (8, 9 + 2 * 5)):
        sweep = Planted(planned(seeds=seeds), None)
        sweep.truth = lambda cells, s=seeds: 1 + ((cells == 128)[:, None] & (np.arange(s) == 0))
        assert len(sweep.grow().trained()) == cells
        assert refinement.boundaries(sweep).num_rows == 0


def test_seeds_that_disagree_on_the_place_are_all_bracketed():
    places = [0.31, 0.36, 0.38, 0.44, 0.47, 0.52, 0.55, 0.58]
    sweep = scattered(places).grow()
    (row,) = refinement.boundaries(sweep).to_pylist()
    step = 0.1 / 32
    assert row["median"] == pytest.approx((0.44 + 0.47) / 2, abs=step)
    assert row["median_low"] == pytest.approx(0.31, abs=step)
    assert row["median_high"] == pytest.approx(0.58, abs=step)
    assert row["shown"] == row["seeds"] == 8


def test_below_six_seeds_there_is_no_interval():
    (row,) = refinement.boundaries(scattered([0.4] * 5).grow()).to_pylist()
    assert (row["median_low"], row["median_high"]) == (-np.inf, np.inf)
    assert row["low"] <= 0.4 <= row["high"]


def test_a_seed_that_never_changes_counts_as_beyond():
    (row,) = refinement.boundaries(scattered([0.4] * 6 + [2.0, 2.0]).grow()).to_pylist()
    assert (row["shown"], row["seeds"], row["median_high"]) == (6, 8, np.inf)
    assert row["median_low"] <= 0.4 <= row["median"] + 0.1 / 32


def test_what_diverged_has_no_say():
    sweep = planted(lambda p: 1 + (p > 0.4))
    # Half of the seeds diverge on the left, and all of them from 0.6 on.
    sweep.diverged = lambda cells: (np.arange(8) < 4) | (sweep.at(cells)[:, None] > 0.6)
    rows = refinement.boundaries(sweep.grow()).to_pylist()
    assert [(row["below"], row["above"], row["seeds"]) for row in rows] == [
        (1, 2, 4),
        (2, None, 4),
    ]
    assert rows[1]["low"] <= 0.6 <= rows[1]["high"]


def test_where_models_diverge_is_itself_a_state():
    sweep = planted(lambda p: p > 0.4, measure="diverged")
    sweep.diverged = lambda cells: sweep.truth(cells).astype(bool)
    (row,) = refinement.boundaries(sweep.grow()).to_pylist()
    assert (row["below"], row["above"], row["seeds"]) == (False, True, 8)


def test_real_numbers_cross_a_level_where_half_of_the_seeds_do():
    sweep = Planted(planned(measure="capacity", level=1.5, seeds=7), None)
    slope = np.array([1, 2, 3, 4, 5, 6, 7])
    sweep.truth = lambda cells: 1 + sweep.at(cells)[:, None] * slope / 4
    (row,) = refinement.boundaries(sweep.grow()).to_pylist()
    assert row["low"] <= 2 / 4 <= row["high"]  # where 1 + 4p/4 = 1.5
    assert (row["below"], row["above"]) == (False, True)


DRAWS = 200
EACH = {"world.amplitude.scale": list(range(1, DRAWS + 1))}  # one setting a draw, refined apart


def drawn(truth, axes=P, **options):
    """Many draws of one world in one sweep: `truth(draw, *values) -> [cells, seeds]`."""
    sweep = Planted(planned(axes=axes | EACH, refined=tuple(axes), **options), None)

    def states(cells):
        *values, draw = (sweep.at(cells, axis) for axis in range(len(axes) + 1))
        return truth(draw.astype(int) - 1, *(value[:, None] for value in values))

    sweep.truth = states
    return sweep.grow()


def rows_of(sweep):
    """The boundaries of each draw."""
    found = [[] for _ in range(DRAWS)]
    for row in refinement.boundaries(sweep).to_pylist():
        found[int(row["scale"]) - 1].append(row)
    return found


def coverage(sweep, places):
    """Draws in which the interval of the only boundary holds the place."""
    hits = 0
    for rows, place in zip(rows_of(sweep), places, strict=True):
        hits += len(rows) == 1 and rows[0]["median_low"] <= place <= rows[0]["median_high"]
    return hits


def test_the_interval_covers_the_middle_of_scattered_seeds():
    rng = np.random.default_rng(1)
    places = rng.uniform(0.3, 0.7, DRAWS)
    own = places[:, None] + 0.04 * rng.standard_normal((DRAWS, 12))
    sweep = drawn(lambda draw, p: 1 + (p > own[draw]), seeds=12)
    # Order statistics 3 and 10 of 12 cover in 96.1 % of draws, and the steps widen them.
    assert stats.binom.cdf(coverage(sweep, places), DRAWS, 0.95) > 0.001


def test_the_interval_covers_the_middle_of_a_noisy_change():
    rng = np.random.default_rng(2)
    places = rng.uniform(0.3, 0.7, DRAWS)
    luck = rng.random((DRAWS, 257, 8))

    def truth(draw, p):
        fine = np.rint((p[:, 0] - 0.1) / 0.8 * 256).astype(int)
        return 1 + (luck[draw, fine] < 1 / (1 + np.exp((places[draw, None] - p) / 0.01)))

    sweep = drawn(truth)
    assert stats.binom.cdf(coverage(sweep, places), DRAWS, 0.95) > 0.001


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_thin_state_is_seen_as_often_as_a_coarse_point_hits_it(share):
    start = np.random.default_rng(3).uniform(0.2, 0.7, DRAWS)[:, None]
    sweep = drawn(lambda i, p: 1 + ((p > start[i]) & (p < start[i] + share * 0.1)), seeds=1)
    found = [len(rows) for rows in rows_of(sweep)]
    assert set(found) == {0, 2}
    assert stats.binomtest(found.count(2), DRAWS, share).pvalue > 0.001


def test_an_island_in_a_plane_is_seen_as_often_as_a_coarse_point_lies_in_it():
    axes = {key: {"grid": [0.1, 0.9], "count": 5} for key in P | R}
    x, y = np.random.default_rng(4).uniform(0.3, 0.7, (2, DRAWS, 1))
    radius, step = 0.08, 0.2
    sweep = drawn(
        lambda i, p, r: 1 + ((p - x[i]) ** 2 + (r - y[i]) ** 2 < radius**2),
        axes=axes,
        width=step / 4,
        seeds=1,
    )
    seen = sum(len(rows) > 0 for rows in rows_of(sweep))
    assert stats.binomtest(seen, DRAWS, np.pi * (radius / step) ** 2).pvalue > 0.001


def test_a_cell_is_settled_by_the_exact_interval_of_its_share():
    for seeds in (1, 5, 8, 9, 12, 40):
        alike = np.arange(seeds + 1)
        state, settled = refinement._vote((np.arange(seeds) >= alike[:, None]).astype(int))
        most = np.maximum(alike, seeds - alike)
        assert (state == (alike < seeds / 2)).all()
        for times, sure in zip(most.tolist(), settled, strict=True):
            low = statistics.proportion_interval(times, seeds).low
            assert sure == (low > 0.5 or times == seeds)


def test_a_trained_boundary_is_that_of_the_exact_optimum(tmp_path):
    # Each of the six seeds keeps the best of eight models, which is in the optimal state.
    configuration = parse(
        {
            "seeds": 6,
            "restarts": 8,
            "model": {"n": 2, "m": 1},
            "world": {"importance": 0.3},
            "training": {"steps": 2_000},
            "axes": {"world.p": {"log": [1.0, 0.1], "count": 5}},
            "keep": {"weights": "none"},
            "shards": {"models": 12},
            "refine": {"measure": "represented", "axes": ["world.p"], "width": 0.01},
        }
    )
    outcome = run(Sweep.create(tmp_path, configuration), Here())
    assert (outcome.missing, outcome.failed) == (0, {})
    sweep = Sweep.open(tmp_path)
    (row,) = refinement.boundaries(sweep).to_pylist()
    assert (row["below"], row["above"], row["shown"]) == (2, 1, 6)
    assert row["width"] == pytest.approx(0.25 / 32)
    assert row["low"] <= theory.exact_boundary(0.3).p <= row["high"]
    assert not row["low"] <= theory.phase_boundary(2, 1, 0.3) <= row["high"]  # by hand: 0.343
    assert refinement.next_round(sweep) == ()
    assert str(refinement.savings(sweep)) == "60 of 774 models: 12.9 times fewer"
    bisection = 2 + 7  # the ends, and one cell for each halving of 128 steps
    assert bisection < sweep.plan.cells == 5 + 5


def test_an_unfinished_round_is_refused():
    sweep = planted(lambda p: 1 + (p > 0.4))
    sweep.lost = (3,)
    with pytest.raises(ValueError, match="shard 3 is not there yet"):
        refinement.next_round(sweep)
    assert refinement.boundaries(sweep).num_rows == 1  # of what is there
    (row,) = refinement.boundaries(sweep).to_pylist()
    assert row["width"] == pytest.approx(0.1)


@pytest.mark.parametrize("call", ["next_round", "boundaries", "savings"])
def test_a_sweep_without_refinement_says_so(call):
    configuration = parse({"name": "onset", "model": {"n": 2, "m": 1}, "axes": P})
    with pytest.raises(ValueError, match=f'{call}: the sweep "onset" has no'):
        getattr(refinement, call)(Planted(Plan(configuration, (8,)), None))
