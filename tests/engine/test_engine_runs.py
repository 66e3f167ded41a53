"""Runs: snapshots, going on, files, tables, modules of one model."""

import dataclasses

import numpy as np
import pytest
import torch

import superpose as sp
from superpose import records
from superpose.engine import Plateau, describe_world, world_from
from superpose.initialisation import Given

SHORT = sp.Training(steps=60, batch=256)
KEPT = dataclasses.replace(SHORT, snapshots=(0, 10, 60))
PENTAGON = sp.ToyModel(n=5, m=2)
UNTIED = sp.ToyModel(n=5, m=2, tied=False)
WORLD = sp.Features(n=5, p=0.2, importance=0.9)
WORLDS = {
    "plain": WORLD,
    "unequal": sp.Features(n=5, p=(0.1, 0.2, 0.3, 0.4, 0.5), importance=(1.0, 0.5, 0.5, 0.2, 0.1)),
    "correlated": sp.Features.correlated(sets=1, size=5, p=0.3),
    "anticorrelated": sp.Features.anticorrelated(sets=1, size=5, p=0.8),
    "exponential": sp.Features(n=5, p=0.2, amplitude=sp.Exponential(0.5)),
    "signed": sp.Features(n=5, p=0.2, amplitude=sp.HalfNormal(2.0), signed=True),
    "exactly one": sp.Features.exactly_one(n=5, amplitude=sp.Constant(2.0)),
}
POINTS = sp.Features.finite(torch.eye(5)[:, [0, 1, 2, 2, 4]] * 0.7, importance=0.9)


def _same(a, b):
    """Whether two runs are equal in every bit of every model."""
    assert a.snapshots.steps == b.snapshots.steps
    for one, other in ((a.state, b.state), (a.snapshots.state, b.snapshots.state)):
        assert list(one.parameters) == list(other.parameters)
        for name, value in one.parameters.items():
            assert torch.equal(value, other.parameters[name])
        for name in ("moments", "watch", "steps", "loss", "loss_se"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(a.index, b.index)


@pytest.fixture(scope="module")
def stack():
    return sp.train(PENTAGON, WORLD, KEPT, runs=4, seed=3)


def test_snapshots_lie_on_the_way_of_an_uninterrupted_run(stack):
    plain = sp.train(PENTAGON, WORLD, SHORT, runs=4, seed=3)
    assert torch.equal(stack.W, plain.W)
    assert torch.equal(stack.snapshots.W[2], stack.W)
    assert torch.equal(stack.snapshots.loss[2], stack.loss)
    first = torch.stack([PENTAGON.initial(3, r)[0] for r in range(4)])
    assert torch.equal(stack.snapshots.W[0], first)
    ten = sp.train(PENTAGON, WORLD, dataclasses.replace(SHORT, steps=10), runs=4, seed=3)
    assert torch.equal(stack.snapshots.W[1], ten.W)
    assert torch.equal(stack.snapshots.loss[1], ten.loss)


@pytest.mark.parametrize("snapshot", [0, 10, 60])
def test_a_run_goes_on_from_each_snapshot_as_if_uninterrupted(stack, snapshot):
    longer = dataclasses.replace(KEPT, steps=90, snapshots=(0, 10, 60, 75))
    _same(
        stack.resume(longer, snapshot=snapshot), sp.train(PENTAGON, WORLD, longer, runs=4, seed=3)
    )
    if snapshot < 60:
        _same(stack.resume(snapshot=snapshot), stack)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("hidden", ["linear", "relu"])
def test_a_rich_recipe_goes_on_as_if_uninterrupted(backend, hidden):
    recipe = sp.Training(
        steps=130,
        batch=64,
        lr=(1e-2, 1e-3, 3e-3),
        schedule="half_cosine",
        warmup=20,
        final=0.1,
        l1=0.01,
        snapshots=(7, 33, 100),
        stop=Plateau(window=20, patience=1, relative=0.3),
    )
    model = sp.ToyModel(n=5, m=2, hidden=hidden, tied=False)
    worlds = [WORLDS["signed"], POINTS]
    run = sp.train(model, worlds, recipe, runs=3, backend=backend)
    assert (run.steps < 130).any()
    for snapshot in recipe.snapshots:
        _same(run.resume(snapshot=snapshot), run)


def test_the_best_goes_on_alone(stack):
    longer = dataclasses.replace(KEPT, steps=90)
    best = stack.best().resume(longer)
    whole = stack.resume(longer)
    assert torch.equal(best.W[0], whole.W[best.index[0]])


def test_restarts_that_were_kept_go_on():
    kept = sp.train(PENTAGON, WORLD, KEPT, runs=2, restarts=2)
    longer = dataclasses.replace(KEPT, steps=90)
    plain = sp.train(PENTAGON, WORLD, longer, runs=4)
    assert torch.equal(kept.resume(longer).W, plain.W[kept.index])


@pytest.mark.parametrize(
    ("changes", "snapshot", "message"),
    [
        ({}, None, "60 steps are done"),
        ({"steps": 50, "snapshots": ()}, None, "has 50"),
        ({"steps": 90, "lr": 1e-2}, None, "learning rates of the 60 steps"),
        ({"steps": 90, "schedule": "linear"}, 10, "learning rates of the 10 steps"),
        ({"steps": 90, "batch": 128}, None, "batch was 256 and is 128"),
        ({"steps": 90, "weight_decay": 0.0}, None, "weight_decay was 0.01"),
        ({"steps": 90, "l1": 0.1}, None, "l1 was 0.0"),
        ({"steps": 90, "stop": Plateau()}, None, "stop was None"),
        ({"steps": 90}, 20, "no snapshot after 20 steps"),
        ({"steps": 90, "snapshots": (5,)}, None, "no snapshot after 5 steps"),
    ],
    ids=str,
)
def test_a_recipe_that_disagrees_with_what_was_done_is_refused(stack, changes, snapshot, message):
    with pytest.raises(ValueError, match=f"resume: .*{message}"):
        stack.resume(dataclasses.replace(KEPT, **changes), snapshot=snapshot)


def test_from_step_0_any_recipe_goes_on(stack):
    other = dataclasses.replace(KEPT, lr=1e-2, batch=64, snapshots=())
    _same(stack.resume(other, snapshot=0), sp.train(PENTAGON, WORLD, other, runs=4, seed=3))


def test_batches_of_a_finite_world_are_no_matter():
    run = sp.train(PENTAGON, POINTS, KEPT, runs=2)
    longer = dataclasses.replace(KEPT, steps=90, batch=1)
    _same(run.resume(longer), sp.train(PENTAGON, POINTS, longer, runs=2))


RICH = dataclasses.replace(KEPT, lr=(1e-3, 2e-3), warmup=3, stop=Plateau(window=20))
SAVED = {
    "plain": (PENTAGON, WORLD, KEPT),
    "worlds": (PENTAGON, list(WORLDS.values()), SHORT),
    "untied": (UNTIED, POINTS, RICH),
    "finite among others": (PENTAGON, [POINTS, WORLD, POINTS], RICH),
    "abs": (sp.ToyModel(n=5, m=2, target="abs", hidden="relu"), WORLDS["signed"], RICH),
    "given": (sp.ToyModel(n=5, m=2, init=Given(W=torch.ones(5, 2))), WORLD, SHORT),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_saved_run_comes_back_whole(case, tmp_path):
    model, world, training = SAVED[case]
    run = sp.train(model, world, training, runs=2, seed=1)
    run.save(tmp_path / "run")
    back = sp.load(tmp_path / "run")
    for name in ("model", "worlds", "training", "seed", "kernel", "processor"):
        assert getattr(back, name) == getattr(run, name)
    _same(back, run)
    run.save(tmp_path / "again")
    for name in ("arrays.safetensors", "manifest.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    if len(run.snapshots.steps) > 1:
        _same(back.resume(snapshot=run.snapshots.steps[1]), run)


def test_records_of_the_first_kernel_still_load(stack, tmp_path):
    about = {
        "model": {"n": 5, "m": 2, "hidden": "linear", "output": "relu"},
        "worlds": [describe_world(WORLD)],
        "training": {
            "steps": 60,
            "batch": 256,
            "lr": 1e-3,
            "weight_decay": 0.01,
            "schedule": "constant",
            "snapshots": [0, 10, 60],
        },
        "seed": 3,
        "kernel": "cpu-1",
    }
    arrays = {
        "index": stack.index,
        "W": stack.W.numpy(),
        "b": stack.b.numpy(),
        "loss": stack.loss.numpy(),
        "loss_se": stack.loss_se.numpy(),
        "snapshots.W": stack.snapshots.W.numpy(),
        "snapshots.b": stack.snapshots.b.numpy(),
    }
    records.save(tmp_path / "old", kind="run", about=about, arrays=arrays)
    old = sp.load(tmp_path / "old")
    assert old.training == KEPT
    assert old.kernel == "cpu-1"
    assert torch.equal(old.W, stack.W)
    assert torch.equal(old.snapshots.W, stack.snapshots.W)
    assert old.snapshots.state.steps.tolist() == [[0] * 4, [10] * 4, [60] * 4]
    assert old.best().table().num_rows == 1
    with pytest.raises(ValueError, match="trained by the kernel cpu-1"):
        old.resume(snapshot=10)


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_survive_description(name):
    assert world_from(describe_world(WORLDS[name])) == WORLDS[name]


def test_a_finite_world_is_described_by_its_digest():
    described = describe_world(POINTS)
    points = POINTS.law.points
    assert world_from(described, {points.digest: points}) == POINTS
    with pytest.raises(ValueError, match=r"points .* are not given"):
        world_from(described)


def test_a_world_described_before_amplitudes_had_laws_is_uniform():
    described = describe_world(WORLD)
    del described["amplitude"], described["signed"]
    assert world_from(described) == WORLD


def test_best_keeps_the_lowest_loss_of_each_world():
    run = sp.train(PENTAGON, [WORLD, WORLDS["unequal"]], KEPT, runs=5)
    best = run.best()
    assert best.W.shape == (2, 1, 5, 2)
    assert torch.equal(best.loss[:, 0], run.loss.min(-1).values)
    for w in range(2):
        assert torch.equal(best.W[w, 0], run.W[w, best.index[w, 0]])
        assert torch.equal(best.snapshots.W[:, w, 0], run.snapshots.W[:, w, best.index[w, 0]])


def test_runs_over_worlds_join():
    parts = [sp.train(PENTAGON, [world], KEPT, runs=2) for world in (WORLD, WORLDS["unequal"])]
    _same(sp.engine.stack(parts), sp.train(PENTAGON, [WORLD, WORLDS["unequal"]], KEPT, runs=2))
    with pytest.raises(ValueError, match="differ"):
        sp.engine.stack([parts[0], sp.train(PENTAGON, [WORLD], SHORT, runs=2)])
    with pytest.raises(ValueError, match="how many models"):
        sp.engine.stack([parts[0], sp.train(PENTAGON, [WORLD], KEPT, runs=3)])
    with pytest.raises(ValueError, match="nothing to join"):
        sp.engine.stack([])


def test_runs_of_one_world_join():
    parts = [sp.train(PENTAGON, world, KEPT, runs=2) for world in (WORLD, WORLDS["unequal"])]
    _same(sp.engine.stack(parts), sp.train(PENTAGON, [WORLD, WORLDS["unequal"]], KEPT, runs=2))


def test_a_module_computes_what_the_definition_does(stack):
    x = WORLD.sample(16)
    assert torch.equal(stack.module(3)(x), PENTAGON.forward(x, stack.W[3], stack.b[3]))
    untied = sp.train(UNTIED, [WORLD], SHORT, runs=2)
    weights = (value[0, 1] for value in untied.parameters.values())
    assert torch.equal(untied.module(0, 1)(x), UNTIED.forward(x, *weights))
    with pytest.raises(ValueError, match="one index for each"):
        stack.module(0, 1)


def test_parameters_go_by_the_names_of_the_model(stack):
    assert torch.equal(stack.W_in, stack.W)
    assert torch.equal(stack.W_out, stack.W)
    untied = sp.train(UNTIED, WORLD, KEPT, runs=2)
    assert list(untied.parameters) == ["W_in", "W_out", "b"]
    assert not torch.equal(untied.W_in, untied.W_out)
    assert untied.snapshots.W_out.shape == (3, 2, 5, 2)
    with pytest.raises(AttributeError, match="no W: their parameters are W_in, W_out, b"):
        _ = untied.W


def test_tables_have_a_row_for_each_model_and_feature(stack):
    models, features = stack.table(), stack.table("features")
    assert models.num_rows == 4
    assert models["steps"].to_pylist() == [60] * 4
    assert models["diverged"].to_pylist() == [False] * 4
    assert features.num_rows == 20
    assert features["norm"].to_pylist() == sp.feature_norms(stack.W).flatten().tolist()
    assert features["run"].to_pylist()[:6] == [0] * 5 + [1]
    untied = sp.train(UNTIED, WORLD, SHORT, runs=2)
    norms = untied.table("features")["norm"].to_pylist()
    assert norms == sp.feature_norms(untied.W_in).flatten().tolist()


def test_what_is_done_is_not_resumed(stack):
    for recipe in (stack.training, dataclasses.replace(stack.training, snapshots=())):
        with pytest.raises(ValueError, match="give a longer"):
            stack.resume(recipe)
