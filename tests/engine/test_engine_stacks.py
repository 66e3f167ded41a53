"""Stacks: the kernel trains as the definition does, and a model depends on itself alone."""

import _thread
import dataclasses
import time
from itertools import product
from threading import Timer

import numpy as np
import pytest
import torch

import superpose as sp
from superpose import initialisation
from superpose.engine import Plateau, shards

SHORT = sp.Training(steps=60, batch=256)
PENTAGON = sp.ToyModel(n=5, m=2)
WORLDS = [
    sp.Features(n=5, p=0.2, importance=0.9),
    sp.Features(n=5, p=(0.1, 0.2, 0.3, 0.4, 0.5), importance=(1.0, 0.5, 0.5, 0.2, 0.1)),
    sp.Features.correlated(sets=1, size=5, p=0.3),
    sp.Features.anticorrelated(sets=1, size=5, p=0.8),
    sp.Features(n=5, p=0.2, amplitude=sp.Exponential(0.5)),
    sp.Features(n=5, p=0.2, amplitude=sp.HalfNormal(2.0), signed=True),
    sp.Features.exactly_one(n=5, amplitude=sp.Constant(2.0)),
    sp.Features.finite(torch.eye(5) * 0.9 + 0.1),
]
FLAGS = list(product(("linear", "relu"), ("relu", "linear"), (True, False), ("identity", "abs")))


@pytest.fixture(scope="module")
def stack():
    return sp.train(PENTAGON, WORLDS[0], SHORT, runs=4, seed=3)


def _assert_alike(model, world, training, atol=2e-5):
    fused, plain = (
        sp.train(model, world, training, runs=2, backend=backend) for backend in ("cpu", "torch")
    )
    assert fused.kernel != plain.kernel
    for name, value in plain.parameters.items():
        torch.testing.assert_close(fused.parameters[name], value, rtol=0, atol=atol)
    torch.testing.assert_close(fused.state.moments, plain.state.moments, rtol=1e-3, atol=1e-5)


RICH = dataclasses.replace(
    SHORT, steps=20, schedule="half_cosine", warmup=5, weight_decay=-0.1, lr=(1e-2, 3e-3), l1=0.01
)


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("p", [0.5, 0.04])
def test_the_kernel_trains_as_the_definition_does(flags, p):
    hidden, output, tied, target = flags
    model = sp.ToyModel(n=24, m=6, hidden=hidden, output=output, tied=tied, target=target)
    world = sp.Features(n=24, p=p, importance=0.9, signed=True)
    _assert_alike(model, world, RICH)


@pytest.mark.parametrize("flags", FLAGS[::5], ids=str)
def test_small_kernels_train_as_the_definition_does(flags):
    hidden, output, tied, target = flags
    model = sp.ToyModel(n=5, m=2, hidden=hidden, output=output, tied=tied, target=target)
    _assert_alike(model, WORLDS[5], RICH)


@pytest.mark.parametrize("world", range(len(WORLDS)))
def test_every_world_is_trained_as_the_definition_does(world):
    _assert_alike(PENTAGON, WORLDS[world], dataclasses.replace(SHORT, steps=20))


@pytest.mark.parametrize("model", [sp.ToyModel(n=1, m=1), sp.ToyModel(n=2, m=3)], ids=str)
def test_odd_shapes_train_as_the_definition_does(model):
    _assert_alike(model, sp.Features(n=model.n, p=0.7), dataclasses.replace(SHORT, steps=20))


@pytest.mark.parametrize("flags", [("linear", True), ("relu", False)], ids=str)
def test_batch_losses_are_those_of_the_definition(flags):
    """A plateau after every window of one step: what is watched is the loss itself."""
    hidden, tied = flags
    stop = Plateau(window=7, patience=100)
    training = sp.Training(steps=6, batch=100, lr=1e-2, l1=0.1, stop=stop)
    model = sp.ToyModel(n=5, m=2, hidden=hidden, tied=tied)
    runs = [sp.train(model, WORLDS[0], training, runs=2, backend=b) for b in ("cpu", "torch")]
    assert (runs[0].state.watch[:, 0] > 0).all()
    torch.testing.assert_close(runs[0].state.watch, runs[1].state.watch, rtol=1e-5, atol=0)


def test_a_stack_equals_its_members_bit_for_bit(stack):
    alone = sp.train(PENTAGON, WORLDS[0], SHORT, runs=range(2, 3), seed=3)
    assert torch.equal(alone.W[0], stack.W[2])
    assert torch.equal(alone.b[0], stack.b[2])
    assert alone.loss[0] == stack.loss[2]


def test_a_model_among_thousands_equals_itself_alone():
    recipe = dataclasses.replace(SHORT, steps=5)
    crowd = sp.train(PENTAGON, WORLDS[0], recipe, runs=4096, seed=3)
    for number in (0, 255, 256, 2049, 4095):
        alone = sp.train(PENTAGON, WORLDS[0], recipe, runs=range(number, number + 1), seed=3)
        assert torch.equal(alone.W[0], crowd.W[number])
        assert alone.loss[0] == crowd.loss[number]


def test_a_world_of_a_stack_equals_itself_alone(stack):
    both = sp.train(PENTAGON, [WORLDS[1], WORLDS[0]], SHORT, runs=4, seed=3)
    assert both.W.shape == (2, 4, 5, 2)
    assert torch.equal(both.W[1], stack.W)
    assert torch.equal(both.loss[1], stack.loss)


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("size", [1, 3, 256])
def test_neither_threads_nor_shards_change_a_bit(stack, threads, size, monkeypatch):
    monkeypatch.setenv("SUPERPOSE_THREADS", threads)
    monkeypatch.setattr(shards, "MODELS", size)
    monkeypatch.setattr(shards, "_SECONDS", 1e-4)  # a step or so at a time
    run = sp.train(PENTAGON, WORLDS[0], SHORT, runs=4, seed=3)
    assert torch.equal(run.W, stack.W)
    assert torch.equal(run.state.moments, stack.state.moments)


@pytest.mark.parametrize("hidden", ["linear", "relu"])
def test_restarts_keep_the_best_of_each_group(hidden, monkeypatch):
    monkeypatch.setenv("SUPERPOSE_THREADS", "2")
    model = sp.ToyModel(n=5, m=2, hidden=hidden)
    recipe = dataclasses.replace(SHORT, snapshots=(30,))
    plain = sp.train(model, WORLDS[:2], recipe, runs=range(3, 12), seed=1)
    monkeypatch.setattr(shards, "MODELS", 2)
    best = sp.train(model, WORLDS[:2], recipe, runs=range(1, 4), restarts=3, seed=1)
    assert torch.equal(best.loss, plain.loss.view(2, 3, 3).min(-1).values)
    for w in range(2):
        at = best.index[w] - 3
        assert torch.equal(best.W[w], plain.W[w, at])
        assert torch.equal(best.snapshots.b[0, w], plain.snapshots.b[0, w, at])
        assert torch.equal(best.snapshots.loss[0, w], plain.snapshots.loss[0, w, at])


def test_restarts_never_keep_a_model_that_diverged():
    recipe = dataclasses.replace(SHORT, lr=(1e30, 1e-3, 1e-3, 1e30, 1e30, 1e30))
    run = sp.train(PENTAGON, WORLDS[0], recipe, runs=3, restarts=2)
    assert run.index.tolist() == [1, 2, 4]
    assert run.diverged.tolist() == [False, False, True]


def test_divergence_is_data_and_spares_the_neighbours():
    recipe = dataclasses.replace(SHORT, steps=1_500)
    calm = sp.train(PENTAGON, WORLDS[0], recipe, runs=3)
    assert not calm.diverged.any()
    assert calm.advice == ""
    wild = sp.train(PENTAGON, WORLDS[0], dataclasses.replace(recipe, lr=(1e-3, 1e30, 1e-3)), runs=3)
    assert wild.diverged.tolist() == [False, True, False]
    assert wild.loss[1].isnan()
    assert torch.equal(wild.W[[0, 2]], calm.W[[0, 2]])
    assert wild.steps.tolist() == [1_500, 1_000, 1_500]
    assert "1 of 3 models diverged" in wild.advice
    assert "seen first after 1000 steps" in wild.advice
    assert wild.finite().index.tolist() == [0, 2]


def test_worlds_of_any_kind_train_in_one_stack():
    recipe = sp.Training(steps=200, batch=128, lr=1e-2)
    run = sp.train(PENTAGON, WORLDS, recipe, runs=2)
    untrained = sp.train(PENTAGON, WORLDS, sp.Training(steps=1), runs=2)
    assert (run.loss < untrained.loss).all()
    assert (run.loss_se == 0).all()
    last = sp.train(PENTAGON, WORLDS[-1], recipe, runs=range(1, 2))
    assert torch.equal(last.W[0], run.W[-1, 1])


def _points():
    rng = np.random.default_rng(0)
    points = rng.random((6, 40), np.float32) * (rng.random((6, 40)) < 0.15)
    return sp.Features.finite(points / np.linalg.norm(points, axis=1, keepdims=True))


def test_points_are_memorised():
    """As many points as hidden dimensions: each can have one to itself."""
    model = sp.ToyModel(n=40, m=6, output="linear", tied=False)
    recipe = sp.Training(steps=2_000, lr=1e-2, weight_decay=0.0)
    run = sp.train(model, _points(), recipe, runs=2)
    assert (run.loss < 1e-4).all()  # 1 for a model that outputs 0


def test_losses_over_points_are_their_mean():
    model, world = sp.ToyModel(n=40, m=6, hidden="relu", tied=False), _points()
    run = sp.train(model, world, sp.Training(steps=200, lr=1e-2, snapshots=(0,)), runs=2)
    assert (run.loss < 0.6 * run.snapshots.loss[0]).all()
    assert (run.loss_se == 0).all()
    x = torch.from_numpy(world.points.toarray()).double()
    weights = (value[0].double() for value in run.parameters.values())
    plain = model.loss(x, *weights, importance=torch.ones(40).double())
    assert float(run.loss[0]) == pytest.approx(float(plain), rel=1e-9)


def test_a_loss_without_closed_form_is_estimated_with_its_error():
    run = sp.train(sp.ToyModel(n=5, m=2, hidden="relu"), WORLDS[0], SHORT, runs=2)
    assert (run.loss_se > 0).all()
    assert (run.loss_se < 0.05 * run.loss).all()
    fresh = WORLDS[0].sample(2**18, seed=99)
    for r in range(2):
        importance = torch.as_tensor(WORLDS[0].importances, dtype=torch.float32)
        other = run.model.loss(fresh, run.W[r], run.b[r], importance=importance)
        assert abs(other - run.loss[r]) < 5 * run.loss_se[r]


@pytest.mark.parametrize(
    ("flags", "world", "exact"),
    [
        ({"tied": False}, WORLDS[0], True),
        ({"tied": False, "output": "linear"}, WORLDS[2], True),
        ({"target": "abs"}, WORLDS[5], True),
        ({"target": "abs", "tied": False}, WORLDS[0], True),
        ({"target": "abs"}, sp.Features.correlated(sets=1, size=5, p=0.3, signed=True), False),
        ({"hidden": "relu", "target": "abs", "tied": False}, WORLDS[5], False),
    ],
    ids=str,
)
def test_losses_are_those_of_samples(flags, world, exact):
    model = sp.ToyModel(n=5, m=2, **flags)
    run = sp.train(model, world, SHORT, runs=2)
    assert ((run.loss_se == 0) == exact).all()
    importance = torch.as_tensor(world.importances, dtype=torch.float32)
    x = world.sample(2**18, seed=5)
    sampled = model.loss(x, *run.parameters.values(), importance=importance)
    torch.testing.assert_close(sampled.double(), run.loss, rtol=0.03, atol=0)


@pytest.mark.parametrize(
    "init",
    [
        initialisation.Notebook(10),
        initialisation.Normal(0.2, b=0.1),
        initialisation.Given(W=torch.arange(10.0).reshape(5, 2) / 10, b=torch.ones(5)),
    ],
    ids=["notebook", "normal", "given"],
)
def test_models_start_where_they_are_told(init):
    model = dataclasses.replace(PENTAGON, init=init)
    run = sp.train(model, WORLDS[0], dataclasses.replace(SHORT, snapshots=(0,)), runs=2)
    for r in range(2):
        W, b = model.initial(0, r)
        assert torch.equal(run.snapshots.W[0, r], W)
        assert torch.equal(run.snapshots.b[0, r], b)


def test_weights_given_for_fewer_runs_are_named():
    model = dataclasses.replace(PENTAGON, init=initialisation.Given(W=torch.zeros(2, 5, 2)))
    with pytest.raises(ValueError, match="run 2 has no W"):
        sp.train(model, WORLDS[0], SHORT, runs=3)


def test_progress_counts_models_up_to_the_last():
    heard = []
    sp.train(PENTAGON, WORLDS[:2], SHORT, runs=3, restarts=2, progress=lambda *at: heard.append(at))
    assert heard == sorted(set(heard))
    assert heard[-1] == (12, 12)


def test_an_interruption_ends_training_soon():
    # Many minutes of steps, of which no machine does a tenth in the time allowed.
    endless = dataclasses.replace(SHORT, steps=1_000_000)
    timer = Timer(0.3, _thread.interrupt_main)
    begun = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sp.train(PENTAGON, WORLDS[0], endless, runs=2, backend="torch")
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": sp.Features(n=4)}, "make them equal"),
        ({"world": []}, "nothing to train"),
        ({"runs": 0}, "nothing to train"),
        ({"runs": range(-2, 1)}, "start at 0"),
        ({"seed": 2**32}, r"seed=4294967296.*below 2\*\*32"),
        ({"restarts": 0}, "restarts=0"),
        ({"world": sp.Features(n=5, p=1e-10)}, r"p=1e-10.*at least 2\*\*-31"),
        ({"world": sp.Features(n=5, importance=[1e30] * 5)}, "importance of 1e.30.*float32"),
        ({"world": sp.Features(n=5, amplitude=sp.Constant(1e30))}, "amplitude of 1e.30.*float32"),
    ],
)
def test_bad_arguments_name_the_law(arguments, message):
    with pytest.raises(ValueError, match=message):
        sp.train(**{"model": PENTAGON, "world": WORLDS[0], "training": SHORT, **arguments})


def test_numbers_of_numpy_count_as_numbers():
    recipe = sp.Training(steps=5, batch=32)
    run = sp.train(
        sp.ToyModel(n=2, m=1), sp.Features(n=2), recipe, runs=np.int64(2), seed=np.int64(3)
    )
    plain = sp.train(sp.ToyModel(n=2, m=1), sp.Features(n=2), recipe, runs=2, seed=3)
    assert torch.equal(run.W, plain.W)


@pytest.mark.parametrize("given", [{"restarts": 0}, {"runs": 0}, {"runs": range(-1, 2)}], ids=str)
def test_numbers_that_cannot_be_are_one_sentence(given):
    with pytest.raises(ValueError, match=r"^train"):
        sp.train(sp.ToyModel(n=2, m=1), sp.Features(n=2), sp.Training(steps=1), **given)
