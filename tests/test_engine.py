import dataclasses

import numpy as np
import pytest
import torch

import superpose as sp
from superpose.engine import describe_world, world_from

SHORT = sp.Training(steps=60, batch=256)
PENTAGON = sp.ToyModel(n=5, m=2)
WORLDS = [
    sp.Features(n=5, p=0.2, importance=0.9),
    sp.Features(n=5, p=(0.1, 0.2, 0.3, 0.4, 0.5), importance=(1.0, 0.5, 0.5, 0.2, 0.1)),
    sp.Features.correlated(sets=1, size=5, p=0.3),
    sp.Features.anticorrelated(sets=1, size=5, p=0.8),
]
OTHER_AMPLITUDES = [
    sp.Features(n=5, p=0.2, amplitude=sp.Exponential(0.5)),
    sp.Features(n=5, p=0.2, amplitude=sp.HalfNormal(2.0), signed=True),
    sp.Features.exactly_one(n=5, amplitude=sp.Constant(2.0)),
]


@pytest.fixture(scope="module")
def stack():
    return sp.train(PENTAGON, WORLDS[0], SHORT, runs=4, seed=3)


def test_a_stack_equals_its_members_bit_for_bit(stack):
    alone = sp.train(PENTAGON, WORLDS[0], SHORT, runs=range(2, 3), seed=3)
    assert torch.equal(alone.W[0], stack.W[2])
    assert torch.equal(alone.b[0], stack.b[2])
    assert alone.loss[0] == stack.loss[2]


def test_a_world_of_a_stack_equals_itself_alone(stack):
    both = sp.train(PENTAGON, [WORLDS[1], WORLDS[0]], SHORT, runs=4, seed=3)
    assert both.W.shape == (2, 4, 5, 2)
    assert torch.equal(both.W[1], stack.W)
    assert torch.equal(both.loss[1], stack.loss)


def test_threads_do_not_change_a_bit(stack, monkeypatch):
    monkeypatch.setenv("SUPERPOSE_THREADS", "1")
    assert torch.equal(sp.train(PENTAGON, WORLDS[0], SHORT, runs=4, seed=3).W, stack.W)


@pytest.mark.parametrize(
    ("world", "hidden", "output"),
    [(world, "linear", "relu") for world in WORLDS]
    + [(WORLDS[0], "relu", "relu"), (WORLDS[0], "linear", "linear"), (WORLDS[0], "relu", "linear")],
)
def test_the_kernel_trains_as_the_definition_does(world, hidden, output):
    model = sp.ToyModel(n=5, m=2, hidden=hidden, output=output)
    training = dataclasses.replace(SHORT, steps=20, schedule="cosine", weight_decay=0.1, lr=1e-2)
    fused, plain = (
        sp.train(model, world, training, runs=2, backend=backend) for backend in ("cpu", "torch")
    )
    torch.testing.assert_close(fused.W, plain.W, rtol=0, atol=2e-5)
    torch.testing.assert_close(fused.b, plain.b, rtol=0, atol=2e-5)


def test_snapshots_lie_on_the_way_of_an_uninterrupted_run(stack):
    kept = dataclasses.replace(SHORT, snapshots=(0, 10, 60))
    run = sp.train(PENTAGON, WORLDS[0], kept, runs=4, seed=3)
    assert torch.equal(run.W, stack.W)
    assert torch.equal(run.snapshots.W[2], run.W)
    first = torch.stack([PENTAGON.initial(3, r)[0] for r in range(4)])
    assert torch.equal(run.snapshots.W[0], first)
    ten = sp.train(PENTAGON, WORLDS[0], dataclasses.replace(SHORT, steps=10), runs=4, seed=3)
    assert torch.equal(run.snapshots.W[1], ten.W)


def test_a_saved_run_comes_back_whole(stack, tmp_path):
    stack.save(tmp_path / "run")
    back = sp.load(tmp_path / "run")
    assert back.model == stack.model
    assert back.worlds == stack.worlds
    assert back.training == stack.training
    assert torch.equal(back.W, stack.W)
    assert torch.equal(back.loss, stack.loss)
    stack.save(tmp_path / "again")
    for name in ("arrays.safetensors", "manifest.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    "world", WORLDS + OTHER_AMPLITUDES, ids=lambda w: type(w.law).__name__ + str(w.amplitude)
)
def test_worlds_survive_description(world):
    assert world_from(describe_world(world)) == world


def test_a_world_described_before_amplitudes_had_laws_is_uniform():
    described = describe_world(WORLDS[0])
    del described["amplitude"], described["signed"]
    assert world_from(described) == WORLDS[0]


def test_worlds_that_the_kernel_cannot_draw_train_in_torch():
    short = sp.Training(steps=200, batch=128, lr=1e-2)
    worlds = [WORLDS[0], OTHER_AMPLITUDES[1]]
    run = sp.train(PENTAGON, worlds, short, runs=2)
    assert run.kernel == "cpu-1 and torch"
    untrained = sp.train(PENTAGON, worlds, sp.Training(steps=1), runs=2)
    assert (run.loss < untrained.loss).all()
    alone = sp.train(PENTAGON, OTHER_AMPLITUDES[1], short, runs=range(1, 2))
    assert torch.equal(alone.W[0], run.W[1, 1])
    with pytest.raises(ValueError, match="draws uniform features"):
        sp.train(PENTAGON, OTHER_AMPLITUDES[0], short, backend="cpu")


def test_best_keeps_the_lowest_loss_of_each_world():
    run = sp.train(PENTAGON, WORLDS[:2], SHORT, runs=5)
    best = run.best()
    assert best.W.shape == (2, 1, 5, 2)
    assert torch.equal(best.loss[:, 0], run.loss.min(-1).values)
    for w in range(2):
        assert torch.equal(best.W[w, 0], run.W[w, best.index[w, 0]])


def test_divergence_is_data_and_spares_the_neighbours(stack):
    wild = sp.train(PENTAGON, WORLDS[0], dataclasses.replace(SHORT, lr=1e30), runs=2)
    assert wild.diverged.all()
    assert wild.loss.isnan().all()
    assert not stack.diverged.any()


def test_a_module_computes_what_the_definition_does(stack):
    x = WORLDS[0].sample(16)
    expected = PENTAGON.forward(x, stack.W[3], stack.b[3])
    assert torch.equal(stack.module(3)(x), expected)
    with pytest.raises(ValueError, match="one index for each"):
        stack.module(0, 1)


def test_a_loss_without_closed_form_is_estimated_with_its_error():
    run = sp.train(sp.ToyModel(n=5, m=2, hidden="relu"), WORLDS[0], SHORT, runs=2)
    assert (run.loss_se > 0).all()
    assert (run.loss_se < 0.05 * run.loss).all()


def test_tables_have_a_row_for_each_model_and_feature(stack):
    models, features = stack.table(), stack.table("features")
    assert models.num_rows == 4
    assert features.num_rows == 20
    assert features["norm"].to_pylist() == sp.feature_norms(stack.W).flatten().tolist()
    assert features["run"].to_pylist()[:6] == [0] * 5 + [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": sp.Features(n=4)}, "make them equal"),
        ({"runs": 0}, "nothing to train"),
        ({"runs": range(-2, 1)}, "start at 0"),
        ({"seed": 2**32}, r"seed=4294967296.*below 2\*\*32"),
        ({"world": sp.Features(n=5, p=1e-10)}, r"p=1e-10.*at least 2\*\*-32"),
    ],
)
def test_bad_arguments_name_the_law(arguments, message):
    with pytest.raises(ValueError, match=message):
        sp.train(**{"model": PENTAGON, "world": WORLDS[0], "training": SHORT, **arguments})


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"weight_decay": np.nan},
        {"snapshots": (5, 3)},
        {"steps": 5, "snapshots": (6,)},
    ],
    ids=str,
)
def test_a_training_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match=r"Training\("):
        sp.Training(**bad)


def test_learning_rates_fall_to_zero():
    for schedule in ("linear", "cosine"):
        rates = sp.Training(steps=100, lr=0.1, schedule=schedule).learning_rates()
        assert rates[0] == 0.1
        assert np.all(np.diff(rates) < 0)
        assert 0 < rates[-1] < 0.002
