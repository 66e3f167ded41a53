"""Recipes: what they refuse, what their learning rates are, and when a model has had enough."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import superpose as sp
from superpose.engine import Plateau, log_steps
from superpose.engine.stopping import new_watch

MODEL, WORLD = sp.ToyModel(n=5, m=2), sp.Features(n=5, p=0.2)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": ()},
        {"lr": (1e-3, -1.0)},
        {"weight_decay": np.nan},
        {"snapshots": (5, 3)},
        {"steps": 5, "snapshots": (6,)},
        {"steps": 5, "warmup": 6},
        {"warmup": -1},
        {"final": 0.1},
        {"schedule": "linear", "final": 1.5},
        {"l1": -1.0},
    ],
    ids=str,
)
def test_a_training_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match=r"Training\("):
        sp.Training(**bad)


@pytest.mark.parametrize("bad", [{"window": 0}, {"patience": 0}, {"relative": 1.0}], ids=str)
def test_a_plateau_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match=r"Plateau\("):
        Plateau(**bad)


def test_equal_recipes_are_equal_and_hashable():
    made = [sp.Training(lr=[1e-3, 2e-3], snapshots=[1, 2], stop=Plateau()) for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made)) == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine", "half_cosine"])
@pytest.mark.parametrize(("warmup", "final"), [(0, 0.0), (10, 0.0), (10, 0.05)])
def test_learning_rates_rise_to_lr_and_fall_to_their_end(schedule, warmup, final):
    recipe = sp.Training(steps=1010, lr=0.1, schedule=schedule, warmup=warmup, final=final)
    rates = recipe.learning_rates()
    assert rates.shape == (1010,)
    np.testing.assert_allclose(rates[:warmup], 0.1 * np.arange(1, warmup + 1) / 10)
    assert rates[warmup] == pytest.approx(0.1)
    assert np.all(np.diff(rates[warmup:]) < 0)
    # A step more would be at the end itself.
    assert 0.1 * final < rates[-1] < 0.1 * final + 0.0002


def test_half_a_cosine_is_half_way_down_in_the_middle():
    rates = sp.Training(steps=100, lr=1.0, schedule="half_cosine", final=0.2).learning_rates()
    assert rates[50] == pytest.approx(0.6)


def test_a_whole_warmup_is_a_ramp():
    assert sp.Training(steps=4, lr=1.0, warmup=4).learning_rates().tolist() == [0.25, 0.5, 0.75, 1]


@given(last=st.integers(1, 10**6), count=st.integers(1, 60))
def test_log_steps_increase_to_the_last(last, count):
    steps = log_steps(last, count)
    assert list(steps) == sorted(set(steps))
    assert steps[-1] == last
    assert len(steps) <= count
    assert steps[0] >= 1


def test_each_run_has_its_own_learning_rate():
    each = [
        sp.train(MODEL, WORLD, sp.Training(steps=30, batch=64, lr=lr), runs=range(r, r + 1))
        for r, lr in enumerate((1e-3, 1e-2, 0.1))
    ]
    recipe = sp.Training(steps=30, batch=64, lr=(1e-3, 1e-2, 0.1))
    run = sp.train(MODEL, WORLD, recipe, runs=3)
    assert torch.equal(run.W, torch.cat([one.W for one in each]))
    with pytest.raises(ValueError, match=r"3 learning rates.*none for run 3"):
        sp.train(MODEL, WORLD, recipe, runs=4)


def test_windows_count_however_losses_arrive():
    rng = np.random.default_rng(0)
    stop, losses = Plateau(window=40), rng.random((3, 40)).astype(np.float32)
    whole, pieces = new_watch(3), new_watch(3)
    stop.see(whole, losses)
    for a, z in ((0, 1), (1, 17), (17, 40)):
        stop.see(pieces, losses[:, a:z])
    assert np.array_equal(whole, pieces)


def test_patience_ends_after_so_many_windows_without_progress():
    stop, watch = Plateau(window=1, patience=2, relative=0.1), new_watch(1)
    over = []
    for loss in (1.0, 0.95, 0.8, 0.79, np.nan):
        stop.see(watch, np.full((1, 1), loss, np.float32))
        stop.judge(watch)
        over.append(bool(stop.over(watch)[0]))
    assert over == [False, False, False, False, True]


def test_models_stop_at_a_plateau_each_by_itself():
    stop = Plateau(window=50, patience=2, relative=0.02)
    recipe = sp.Training(steps=5_000, batch=256, lr=1e-2, stop=stop, snapshots=(60, 4_000))
    run = sp.train(MODEL, WORLD, recipe, runs=4, seed=1)
    assert (run.steps < 4_000).all()
    assert (run.steps % 50 == 0).all()
    assert len(set(run.steps.tolist())) > 1
    # What a model was when it stopped is what later snapshots show.
    assert torch.equal(run.snapshots.W[1], run.W)
    assert torch.equal(run.snapshots.loss[1], run.loss)
    alone = sp.train(MODEL, WORLD, recipe, runs=range(2, 3), seed=1)
    assert alone.steps[0] == run.steps[2]
    assert torch.equal(alone.W[0], run.W[2])
    short = dataclasses.replace(recipe, steps=int(run.steps[2]), stop=None, snapshots=())
    assert torch.equal(sp.train(MODEL, WORLD, short, runs=range(2, 3), seed=1).W[0], run.W[2])


def test_weights_decay_or_grow():
    """With lr · decay = 0.01 a step and no slope, weights grow or shrink by that each step."""
    silent = sp.Features(n=5, p=0.2, importance=(0.0,) * 5)
    norms = []
    for decay in (-1.0, 0.0, 1.0):
        recipe = sp.Training(steps=50, batch=64, lr=1e-2, weight_decay=decay)
        norms.append(sp.train(MODEL, silent, recipe, runs=1).W.norm())
    grown, kept, shrunk = norms
    assert grown / kept == pytest.approx(1.01**50, rel=1e-4)
    assert shrunk / kept == pytest.approx(0.99**50, rel=1e-4)


def test_l1_makes_the_hidden_layer_sparser():
    model = sp.ToyModel(n=5, m=3, hidden="relu", tied=False)
    x = WORLD.sample(4096, seed=9)
    used = []
    for l1 in (0.0, 0.2):
        recipe = sp.Training(steps=1_500, batch=256, lr=1e-2, l1=l1, weight_decay=0.0)
        run = sp.train(model, WORLD, recipe, runs=2)
        used.append(model.encode(x, run.W_in).abs().sum(-1).mean())
    assert used[1] < 0.7 * used[0]
