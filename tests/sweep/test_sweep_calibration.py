import os
from math import inf

import numpy as np
import pytest
import torch

from superpose.sweep import calibration
from superpose.sweep.calibration import Calibration, calibrate, estimate, sizes
from superpose.sweep.configuration import parse
from superpose.sweep.plan import Plan

GRID = {
    "seeds": 10,
    "model": {"m": 2},
    "training": {"steps": 1_000, "batch": 64},
    "axes": [{"model.n": [3, 4, 5]}, {"world.p": {"log": [1, 0.01], "count": 10}}],
}


def test_a_shard_takes_the_time_asked_for_and_its_costliest_cells_not_much_more():
    configuration = parse(GRID | {"seeds": 100_000, "shards": {"seconds": 100}})
    found = Calibration(mean=(0.01, 0.1, 1.0), costliest=(0.02, 0.5, 1.5))
    assert sizes(configuration, found, cores=2) == (10_000, 500, 100)
    longest = max(s * c for s, c in zip((10_000, 500, 100), found.costliest, strict=True))
    assert longest <= 250


def test_a_model_that_takes_longer_is_a_shard_of_its_own():
    configuration = parse(GRID)
    assert sizes(configuration, Calibration((1e4,) * 3, (1e4,) * 3), cores=2) == (1, 1, 1)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_a_small_sweep_still_has_shards_for_every_core(cores):
    configuration = parse(GRID | {"seeds": 64})
    found = Calibration((1.0,) * 3, (1.0,) * 3)
    plan = Plan(configuration, sizes(configuration, found, cores=cores))
    assert plan.shards >= 4 * cores
    longest = max(plan.shard(i).models for i in range(plan.shards))
    assert longest * 1.0 <= configuration.shards.seconds


def test_a_tiny_sweep_is_not_cut_below_a_second():
    found = Calibration((1e-3,) * 3, (1e-3,) * 3)
    assert min(sizes(parse(GRID), found, cores=64)) == 1_000


def test_a_fixed_number_of_models_measures_nothing(monkeypatch):
    monkeypatch.setattr(calibration, "train", None)
    assert sizes(parse(GRID | {"shards": {"models": 7}})) == (7, 7, 7)


def test_memory_bounds_a_shard():
    training = {"steps": 1_000, "snapshots": {"log": 100}}
    big = parse({"seeds": 10**6, "model": {"n": 200, "m": 50}, "training": training})
    (size,) = sizes(big, Calibration((1e-6,), (1e-6,)), cores=2)
    kept = len(big.cell({})[2].snapshots)
    assert size * (200 * 50 + 200) * 4 * (1 + kept) < 256e6


def test_times_are_positive_grow_with_the_work_and_leave_no_trace(monkeypatch):
    monkeypatch.delenv("SUPERPOSE_THREADS", raising=False)
    monkeypatch.setattr(calibration, "_SECONDS", 0.02)
    seen = []
    real = calibration.train

    def watched(model, worlds, *rest, **more):
        seen.append((model.n, float(worlds[0].p), os.environ["SUPERPOSE_THREADS"]))
        return real(model, worlds, *rest, **more)

    monkeypatch.setattr(calibration, "train", watched)
    threads = torch.get_num_threads()
    found = calibrate(parse(GRID))
    assert torch.get_num_threads() == threads
    assert "SUPERPOSE_THREADS" not in os.environ
    assert all(
        0 < mean <= most < inf for mean, most in zip(found.mean, found.costliest, strict=True)
    )
    # The densest and the sparsest cell of the smallest and the largest block, on one thread.
    measured = {(n, p) for n, p, _ in seen}
    assert {(3, 1.0), (3, 0.01), (5, 1.0), (5, 0.01)} <= measured
    assert {threads for _, _, threads in seen} == {"1"}


def test_of_many_blocks_a_few_are_measured_and_the_others_lie_between(monkeypatch):
    measured = []

    def cost(configuration, cell):
        measured.append(cell.training.steps)
        return cell.training.steps * 1e-3 * (1 + float(cell.world.p))

    monkeypatch.setattr(calibration, "_seconds", cost)
    steps = [500, 10, 3_000, 70, 100, 40, 1_000]
    axes = [{"training.steps": steps}, {"world.p": [0.1, 1.0]}]
    found = calibrate(parse({"model": {"n": 2, "m": 1}, "axes": axes}))
    assert len(set(measured)) <= calibration.BLOCKS
    assert {10, 3_000} <= set(measured)
    assert found.costliest == pytest.approx([2e-3 * s for s in steps])
    assert found.mean == pytest.approx([1.55e-3 * s for s in steps])


def test_blocks_that_are_all_measured_keep_their_order(monkeypatch):
    monkeypatch.setattr(calibration, "_seconds", lambda _, cell: 1.0 * cell.training.steps)
    axes = {"training.steps": [30, 10, 20]}
    found = calibrate(parse({"model": {"n": 2, "m": 1}, "axes": axes}))
    assert found.mean == found.costliest == (30.0, 10.0, 20.0)


def test_an_estimate_adds_up():
    configuration = parse(GRID | {"keep": {"weights": "best"}})
    found = Calibration(mean=(0.5, 1.0, 1.5), costliest=(1.0, 2.0, 3.0))
    plan = Plan(configuration, (10, 10, 10))
    one, ten = (estimate(plan, found, workers=w, price=0.1) for w in (1, 10))
    assert (one.models, one.cells, one.shards) == (300, 30, 30)
    assert one.core_hours * 3600 == pytest.approx(300 * 1.0)
    assert one.hours == pytest.approx(10 * ten.hours)
    assert one.dollars == ten.dollars == pytest.approx(0.1 * one.core_hours)
    assert one.shard_seconds == pytest.approx((10.0, 30.0))
    # One model of ten in each cell, four bytes a number and a little more.
    numbers = np.array([3, 4, 5]) * 3
    assert 10 * 4 * numbers.sum() < one.weight_bytes < 10 * 4 * numbers.sum() + 30 * 100
    assert estimate(plan, found, workers=10**6).hours == pytest.approx(30 / 3600)
    # In shards of four of the ten seeds, each has a best one: three a cell.
    cut = estimate(Plan(configuration, (4, 4, 4)), found)
    assert cut.weight_bytes == pytest.approx(3 * one.weight_bytes, rel=0.01)


def test_with_refinement_an_estimate_is_for_the_cells_chosen_so_far():
    refine = {"measure": "represented", "axes": ["world.p"], "width": 0.01}
    plan = Plan(parse(GRID | {"refine": refine}), (10, 10, 10))
    found = estimate(plan, Calibration((1.0,) * 3, (1.0,) * 3), workers=1)
    assert found.models == 300
    assert found.models_at_most == 3 * (9 * 32 + 1) * 10
    assert found.core_hours * 3600 == pytest.approx(300)
