"""Gradients of every way through a step against float64, and the loop around them."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.features import Features
from superpose.kernels import batches, cpu, small, streams
from superpose.models import ToyModel

WAYS = ["small", "dense", "mixed", "sparse", "gram"]
FLAGS = list(
    itertools.product(("linear", "relu"), ("relu", "linear"), (True, False), ("identity", "abs"))
)


def _models(n, m):
    return [
        ToyModel(n=n, m=m, hidden=hidden, output=output, tied=tied, target=target)
        for hidden, output, tied, target in FLAGS
    ]


def _exact(model, x, theta, importance, l1):
    """Loss and gradient by autograd in float64, from the definition."""
    parameters, at = [], 0
    for shape in model.shapes.values():
        part = torch.tensor(theta[at : at + np.prod(shape)].reshape(shape), dtype=torch.float64)
        parameters.append(part.requires_grad_())
        at += part.numel()
    weights = torch.tensor(importance, dtype=torch.float64)
    x = torch.tensor(x, dtype=torch.float64)
    loss = model.loss(x, *parameters, importance=weights, l1=l1)
    loss.backward()
    return loss.item(), np.concatenate([part.grad.numpy().ravel() for part in parameters])


def _assert_agrees(model, x, theta, importance, l1, way):
    loss, slope = batches.batch_gradient(model, x, theta, importance, l1, way)
    exact, gradient = _exact(model, x, theta, importance, l1)
    # Rounding of a sum of terms that may cancel: in units of the terms' size.
    size = 1.0 + float(np.abs(theta).max()) ** 3
    assert loss == pytest.approx(exact, rel=1e-5, abs=1e-6 * size)
    np.testing.assert_allclose(slope, gradient, rtol=2e-4, atol=1e-5 * size)


def _theta(model, rng, scale=1.0):
    count = sum(int(np.prod(shape)) for shape in model.shapes.values())
    return (scale * rng.normal(size=count)).astype(np.float32)


def _ways(model):
    return [way for way in WAYS if way != "gram" or model.hidden == "linear"]


@pytest.mark.parametrize("l1", [0.0, 0.1])
@pytest.mark.parametrize("model", _models(5, 2), ids=str)
def test_gradients_equal_autograd_in_float64(model, l1):
    rng = np.random.default_rng(1)
    for signed, p, batch in [(False, 0.3, 300), (True, 1.0, 127), (True, 0.05, 1)]:
        x = Features(n=5, p=p, signed=signed).sample(batch, seed=batch).numpy()
        for way in _ways(model):
            theta, importance = _theta(model, rng), rng.random(5).astype(np.float32)
            _assert_agrees(model, x, theta, importance, l1, way)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (1, 3), (3, 1), (4, 4), (2, 6), (20, 5), (65, 3), (33, 17)]),
    flags=st.sampled_from(FLAGS),
    p=st.sampled_from([0.02, 0.4, 1.0]),
    batch=st.sampled_from([1, 128, 300]),
    seed=st.integers(0, 2**16),
)
def test_gradients_agree_for_any_shape(shape, flags, p, batch, seed):
    hidden, output, tied, target = flags
    n, m = shape
    model = ToyModel(n=n, m=m, hidden=hidden, output=output, tied=tied, target=target)
    rng = np.random.default_rng(seed)
    x = Features(n=n, p=p, signed=seed % 2 == 0).sample(batch, seed=seed).numpy()
    for way in _ways(model):
        if way != "small" or n * m <= cpu.SMALL_AT_MOST:
            theta = _theta(model, rng, 1 / np.sqrt(m))
            _assert_agrees(model, x, theta, rng.random(n).astype(np.float32), 0.05, way)


EDGES = ["empty batch", "zero bias", "dead features", "zero weights", "everything zero"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", EDGES)
def test_gradients_at_the_edges(case, way):
    rng = np.random.default_rng(2)
    for model in _models(5, 2):
        if way not in _ways(model):
            continue
        theta = _theta(model, rng)
        x = Features(n=5, p=0.5).sample(200, seed=0).numpy()
        if case == "empty batch":
            x = x * 0
        elif case == "zero bias":
            theta[-5:] = 0
        elif case == "dead features":
            theta[-5:] = -100
        elif case == "zero weights":
            theta[:-5] = 0
        else:
            x, theta = x * 0, theta * 0
        _assert_agrees(model, x, theta, np.ones(5, np.float32), 0.1, way)


def test_the_formula_that_is_compiled_is_plain_arithmetic_too():
    # The twin of the small way: the same text, run on NumPy's numbers in float64.
    rng = np.random.default_rng(3)
    for model, l1 in itertools.product(_models(4, 3), (0.0, 0.2)):
        theta, importance = _theta(model, rng).astype(np.float64), rng.random(4)
        x = Features(n=4, p=0.6, signed=True).sample(50, seed=4).numpy().astype(np.float64)
        split = np.split(theta, np.cumsum([int(np.prod(s)) for s in model.shapes.values()]))[:-1]
        W_in, W_out = split[0].reshape(4, 3), split[-2].reshape(4, 3)
        weights = small.Weights(W_in, W_out, split[-1], 2 * importance, np.float64(l1))
        found = small.sample_slopes(list(x.T), weights, small.variant(model, l1 > 0, True))
        by_in = np.stack([[(x[:, i] * d).sum() for d in found.by_hidden] for i in range(4)])
        by_out = np.stack([[(g * h).sum() for h in found.hidden] for g in found.by_output])
        by_b = np.array([np.sum(g) for g in found.by_output])
        whole = [by_in + by_out] if model.tied else [by_in, by_out]
        slope = np.concatenate([part.ravel() for part in (*whole, by_b)]) / 50
        loss, gradient = _exact(model, x, theta, importance, l1)
        assert found.loss.mean() / 2 == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-12)


WORLDS = {
    "independent": Features(n=6, p=0.2),
    "dense": Features(n=6, p=1.0),
    "signed": Features(n=6, p=0.3, signed=True),
    "correlated": Features.correlated(sets=3, size=2, p=0.2),
    "exactly one": Features.exactly_one(n=6),
    "finite": Features.finite(np.eye(6, dtype=np.float32)),
}


def _trained(model, world, *, runs=(0,), steps=(0, 5), batch=200, lr=0.01, losses=False):
    recipe = cpu.Recipe(world.importances.astype(np.float32), batch, 0.1, 0.01, steps[0])
    keys = np.array([streams.stream_key(7, run) for run in runs], np.uint64)
    rows = [np.concatenate([part.numpy().ravel() for part in model.initial(7, r)]) for r in runs]
    theta = np.stack(rows).astype(np.float32)
    moments = np.zeros((len(runs), 2, theta.shape[1]), np.float32)
    rates = np.full((1, steps[1] - steps[0]), lr, np.float32)
    kept = np.zeros((len(runs), rates.shape[1] if losses else 0), np.float32)
    cpu.train(
        model, world, streams.tables(world, batch), recipe, (theta, moments, keys), (rates, kept)
    )
    return theta, moments, kept


def _by_hand(model, world, steps, batch=200, lr=0.01):
    """The same in float64 PyTorch on the batches that the kernel draws."""
    parameters = [part.double().requires_grad_() for part in model.initial(7, 0)]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1)
    importance, losses = torch.tensor(world.importances), []
    for step in range(steps):
        x = torch.tensor(batches.draw_batch(world, batch, streams.stream_key(7, 0), step)).double()
        optimiser.zero_grad()
        loss = model.loss(x, *parameters, importance=importance, l1=0.01)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return np.concatenate([part.detach().numpy().ravel() for part in parameters]), losses


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
@pytest.mark.parametrize("taken", WAYS)
def test_every_way_trains_as_the_definition_does(world, taken, monkeypatch):
    if world is WORLDS["finite"] and taken in ("small", "dense", "mixed"):
        pytest.skip("finite worlds are lists of active features")
    kinds = {
        "small": cpu.SMALL,
        "dense": cpu.DENSE,
        "mixed": cpu.MIXED,
        "sparse": cpu.SPARSE,
        "gram": cpu.GRAM,
    }
    if world is not WORLDS["finite"]:
        monkeypatch.setattr(cpu, "_kind", lambda *_: kinds[taken])
    model = ToyModel(n=6, m=3, target="abs")
    theta, _, losses = _trained(model, world, losses=True)
    expected, by_step = _by_hand(model, world, 5)
    # Adam's first steps are as large as lr whatever the slope, so signs of tiny slopes matter.
    np.testing.assert_allclose(theta[0], expected, atol=2e-5)
    np.testing.assert_allclose(losses[0], by_step, rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 3), (45, 4)], ids=str)
@pytest.mark.parametrize("p", [0.05, 0.6])
def test_a_model_is_the_same_in_any_stack_and_in_any_pieces(shape, p):
    model, world = ToyModel(n=shape[0], m=shape[1]), Features(n=shape[0], p=p)
    stack, moments, _ = _trained(model, world, runs=range(5), steps=(0, 8))
    alone, _, _ = _trained(model, world, runs=(3,), steps=(0, 8), losses=True)
    assert np.array_equal(alone[0], stack[3])
    theta, half, _ = _trained(model, world, runs=range(5), steps=(0, 3))
    recipe = cpu.Recipe(world.importances.astype(np.float32), 200, 0.1, 0.01, 3)
    keys = np.array([streams.stream_key(7, run) for run in range(5)], np.uint64)
    pace = (np.full((1, 5), 0.01, np.float32), np.zeros((5, 0), np.float32))
    cpu.train(model, world, streams.tables(world, 200), recipe, (theta, half, keys), pace)
    assert np.array_equal(theta, stack)
    assert np.array_equal(half, moments)


def test_a_diverged_model_stays_nan_and_spares_its_neighbours():
    model, world = ToyModel(n=6, m=3), Features(n=6, p=0.5)
    recipe = cpu.Recipe(np.ones(6, np.float32), 100, 0.0, 0.0, 0)
    start = np.concatenate([part.numpy().ravel() for part in model.initial(0, 0)])
    theta = np.stack([start, np.full_like(start, np.nan), np.full_like(start, 1e30), start])
    pace = (np.full((1, 20), 0.01, np.float32), np.zeros((4, 20), np.float32))
    stack = (theta, np.zeros((4, 2, len(start)), np.float32), np.zeros(4, np.uint64))
    cpu.train(model, world, streams.tables(world, 100), recipe, stack, pace)
    assert np.isnan(theta[1]).all()
    assert not np.isfinite(theta[2]).all()
    assert np.isfinite(theta[0]).all()
    assert np.array_equal(theta[0], theta[3])
    assert np.isnan(pace[1][1]).all()


def test_rates_may_differ_between_the_models_of_a_stack():
    model, world = ToyModel(n=6, m=3), Features(n=6, p=0.5)
    recipe = cpu.Recipe(np.ones(6, np.float32), 200, 0.1, 0.01, 0)
    start = np.concatenate([part.numpy().ravel() for part in model.initial(7, 0)])
    keys = np.full(2, streams.stream_key(7, 0), np.uint64)
    stack = (np.stack([start, start]), np.zeros((2, 2, len(start)), np.float32), keys)
    rates = np.stack([np.full(5, 0.01), np.full(5, 0.1)]).astype(np.float32)
    pace = (rates, np.zeros((2, 0), np.float32))
    cpu.train(model, world, streams.tables(world, 200), recipe, stack, pace)
    world_alone = [_trained(model, world, lr=lr)[0][0] for lr in (0.01, 0.1)]
    assert np.array_equal(stack[0], np.stack(world_alone))


@pytest.mark.parametrize(
    ("n", "m", "p", "expected"),
    [
        (2, 1, 0.5, "small"),
        (20, 5, 0.01, "small"),
        (400, 30, 1.0, "dense"),
        (400, 30, 0.05, "mixed"),
    ],
)
def test_the_way_is_a_function_of_shape_and_density(n, m, p, expected):
    assert cpu.way(ToyModel(n=n, m=m), Features(n=n, p=p)) == expected


WIDE = """
import sys
from llvmlite import ir
import superpose.kernels.lanes as lanes
lanes.LANES = 24 - lanes.LANES
lanes.VECTOR = ir.VectorType(lanes.FLOAT, lanes.LANES)

import numpy as np
from superpose.features import Features
from superpose.kernels import batches, streams
from superpose.models import ToyModel
world = Features(n=5, p=0.1, signed=True)
x = batches.draw_batch(world, 333, streams.stream_key(1, 2), 3)
theta = np.random.default_rng(5).normal(size=15).astype(np.float32)
found = [x]
for way in ("small", "dense", "mixed", "sparse", "gram"):
    found += batches.batch_gradient(ToyModel(n=5, m=2), x, theta, np.ones(5, np.float32), 0.1, way)
np.savez(sys.argv[1], *found)
"""


@pytest.mark.slow
def test_registers_of_another_width_draw_the_same_and_give_the_same_gradients(tmp_path):
    # What a processor with AVX-512 compiles (LLVM halves its vectors here), or one without.
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", WIDE, str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, env=environment)
    with np.load(tmp_path / "found.npz") as found:
        x, *results = (found[name] for name in found.files)
    world = Features(n=5, p=0.1, signed=True)
    assert np.array_equal(x, batches.draw_batch(world, 333, streams.stream_key(1, 2), 3))
    theta = np.random.default_rng(5).normal(size=15).astype(np.float32)
    loss, gradient = _exact(ToyModel(n=5, m=2), x, theta, np.ones(5, np.float32), 0.1)
    for way in range(5):
        assert results[2 * way] == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(results[2 * way + 1], gradient, rtol=1e-4, atol=1e-5)
