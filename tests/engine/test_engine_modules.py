"""Stacks of the user's own modules."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import superpose as sp
from superpose.engine import Plateau

WORLD = sp.Features(n=5, p=0.3, importance=0.9)
POINTS = sp.Features.finite(torch.eye(5))
MODEL = sp.ToyModel(n=5, m=2)
RECIPE = sp.Training(steps=40, batch=64, lr=1e-2, snapshots=(10,))


class Toy(nn.Module):
    """Toy models as one module, from the weights that ToyModel has at step 0."""

    def __init__(self, runs, seed=0):
        super().__init__()
        W, b = zip(*(MODEL.initial(seed, r) for r in range(runs)), strict=True)
        self.W, self.b = nn.Parameter(torch.stack(W)), nn.Parameter(torch.stack(b))

    def forward(self, x):
        return MODEL.forward(x, self.W, self.b)


class Deep(nn.Module):
    """Something that no kernel knows: two hidden layers and a frozen gain."""

    def __init__(self, runs):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(runs, 5, 4, generator=draw) / 2)
        self.second = nn.Parameter(torch.randn(runs, 4, 5, generator=draw) / 2)
        self.gain = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x):
        return self.gain * (torch.tanh(x @ self.first) @ self.second)


@pytest.fixture(scope="module")
def trained():
    return sp.train(Toy(4), WORLD, RECIPE, runs=4, backend="torch")


def test_toy_models_as_a_module_train_as_themselves(trained):
    plain = sp.train(MODEL, WORLD, RECIPE, runs=4, backend="torch")
    torch.testing.assert_close(trained.W, plain.W, rtol=0, atol=2e-5)
    torch.testing.assert_close(trained.snapshots.b, plain.snapshots.b, rtol=0, atol=2e-5)
    assert ((trained.loss - plain.loss).abs() < 5 * trained.loss_se + 1e-5).all()


def test_the_given_module_is_left_alone():
    module = Toy(2)
    before = copy.deepcopy(module.state_dict())
    run = sp.train(module, WORLD, RECIPE, runs=2)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not torch.equal(run.W, module.W)


def test_any_module_trains_and_goes_on_as_if_uninterrupted(tmp_path):
    module = Deep(3)
    run = sp.train(module, [WORLD, POINTS], RECIPE, runs=3)
    assert list(run.parameters) == ["first", "second"]
    assert run.parameters["first"].shape == (2, 3, 5, 4)
    assert (run.loss < run.snapshots.loss[0]).all()
    assert (run.loss_se[1] == 0).all()
    longer = dataclasses.replace(RECIPE, steps=60)
    whole = sp.train(module, [WORLD, POINTS], longer, runs=3)
    run.save(tmp_path / "run")
    back = sp.load(tmp_path / "run", module=Deep(3))
    for resumed in (run.resume(longer), run.resume(longer, snapshot=10), back.resume(longer)):
        for name, value in whole.parameters.items():
            assert torch.equal(resumed.parameters[name], value)
        assert torch.equal(resumed.loss, whole.loss)
    assert run.table().num_rows == 6
    assert run.table("features").num_rows == 30
    one = run.module(1, 2)
    assert torch.equal(one.first[0], run.parameters["first"][1, 2])
    with pytest.raises(ValueError, match=r"load\(folder, module=…\)"):
        sp.load(tmp_path / "run")
    with pytest.raises(ValueError, match="like the one that was trained"):
        sp.load(tmp_path / "run", module=Toy(3))
    with pytest.raises(AttributeError, match="no W: their parameters are first, second"):
        _ = run.W


def test_runs_of_a_module_see_the_streams_of_their_numbers(trained):
    later = sp.train(MODEL, WORLD, RECIPE, runs=range(2, 4), backend="torch")
    module = Toy(4)
    module.W.data, module.b.data = module.W.data[2:], module.b.data[2:]
    moved = sp.train(module, WORLD, RECIPE, runs=range(2, 4))
    torch.testing.assert_close(moved.W, later.W, rtol=0, atol=2e-5)
    assert moved.index.tolist() == [2, 3]


def test_restarts_rates_and_stops_work_on_a_module(trained):
    best = sp.train(Toy(4), WORLD, RECIPE, runs=2, restarts=2)
    assert torch.equal(best.loss, trained.loss.view(2, 2).min(-1).values)
    assert torch.equal(best.W, trained.W[best.index])
    assert torch.equal(best.snapshots.loss[0], trained.snapshots.loss[0, best.index])
    mixed = dataclasses.replace(RECIPE, lr=(1e-2, 1e30, 1e-2, 1e-3))
    run = sp.train(Toy(4), WORLD, mixed, runs=4)
    assert run.diverged.tolist() == [False, True, False, False]
    assert torch.equal(run.W[[0, 2]], trained.W[[0, 2]])
    assert not torch.equal(run.W[3], trained.W[3])
    stop = Plateau(window=5, patience=1, relative=0.9)
    still = sp.train(Toy(4), WORLD, dataclasses.replace(RECIPE, stop=stop, snapshots=()), runs=4)
    assert still.steps.tolist() == [10] * 4
    assert torch.equal(still.W, trained.snapshots.W[0])


class Mixed(Toy):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Shared(Toy):
    def forward(self, x):
        return MODEL.forward(x, self.W.roll(1, 0), self.b)


class Short(Toy):
    def forward(self, x):
        return super().forward(x)[..., :-1]


class Noisy(Toy):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)


class Counting(Toy):
    def __init__(self, runs):
        super().__init__(runs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Flat(Toy):
    def forward(self, x):
        return MODEL.forward(x.reshape(2, 7), self.W, self.b)


class Double(Toy):
    def __init__(self, runs):
        super().__init__(runs)
        self.double()


class Frozen(Toy):
    def __init__(self, runs):
        super().__init__(runs)
        self.requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Mixed, "input of run 0 changes"),
        (Shared, "depends on W of other runs"),
        (Short, r"came back as \[4, 3, 4\]"),
        (Noisy, "another x̂ each time"),
        (Counting, "buffer"),
        (Flat, "it failed on x of shape"),
        (Double, "float64; it is float32"),
        (Frozen, "no parameters that learn"),
    ],
)
def test_a_module_that_is_no_stack_is_refused(kind, message):
    with pytest.raises(ValueError, match=f"train\\({kind.__name__}.*{message}"):
        sp.train(kind(4), WORLD, RECIPE, runs=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 3}, r"parameter W has shape \[4, 5, 2\]"),
        ({"runs": 4, "backend": "cpu"}, "knows a ToyModel only"),
        ({"runs": 4, "training": sp.Training(steps=1, l1=0.1)}, "no hidden layer"),
    ],
)
def test_what_a_module_cannot_have_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        sp.train(Toy(4), **{"world": WORLD, "training": RECIPE, **arguments})


class Gained(Toy):
    """A toy model with one number of its own for each run."""

    def __init__(self, runs):
        super().__init__(runs)
        self.gain = nn.Parameter(torch.ones(runs))

    def forward(self, x):
        return self.gain[:, None, None] * super().forward(x)


def test_a_parameter_may_be_one_number_for_each_run():
    run = sp.train(Gained(3), WORLD, RECIPE, runs=3)
    assert run.parameters["gain"].shape == (3,)
    longer = dataclasses.replace(RECIPE, steps=60)
    whole = sp.train(Gained(3), WORLD, longer, runs=3)
    assert torch.equal(run.resume(longer).parameters["gain"], whole.parameters["gain"])


class Idle(Toy):
    def forward(self, x):
        return x


def test_a_module_without_use_for_its_parameters_is_refused():
    with pytest.raises(ValueError, match="depends on no parameter"):
        sp.train(Idle(1), WORLD, RECIPE, runs=1)
