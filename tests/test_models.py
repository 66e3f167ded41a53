import pytest
import torch

from superpose.features import Features
from superpose.initialisation import Xavier
from superpose.models import ToyModel, ToyNetwork


def _weights(n=6, m=3, runs=(2,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(*runs, n, m, generator=generator),
        torch.randn(*runs, n, generator=generator),
    )


@pytest.mark.parametrize("hidden", ["linear", "relu"])
@pytest.mark.parametrize("output", ["linear", "relu"])
def test_a_stack_equals_its_members(hidden, output):
    model = ToyModel(n=6, m=3, hidden=hidden, output=output)
    W, b = _weights()
    x, importance = Features(n=6, p=0.5).sample(50), torch.rand(6)
    stacked = model.forward(x, W, b)
    assert stacked.shape == (2, 50, 6)
    for r in range(2):
        torch.testing.assert_close(stacked[r], model.forward(x, W[r], b[r]))
        one = model.loss(x, W[r], b[r], importance=importance)
        torch.testing.assert_close(model.loss(x, W, b, importance=importance)[r], one)


def test_the_definition_written_out():
    model = ToyModel(n=2, m=1)
    W, b = torch.tensor([[1.0], [-0.5]]), torch.tensor([0.1, -0.2])
    x = torch.tensor([[1.0, 0.5]])
    # h = 1 - 0.25 = 0.75; outputs relu(0.85), relu(-0.575)
    torch.testing.assert_close(model.forward(x, W, b), torch.tensor([[0.85, 0.0]]))
    loss = model.loss(x, W, b, importance=torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(loss, torch.tensor(0.15**2 + 2 * 0.25))


def test_the_loss_scales_with_importance_and_ignores_rotations():
    model, (W, b) = ToyModel(n=6, m=3), _weights()
    x, importance = Features(n=6, p=0.5).sample(50), torch.rand(6)
    loss = model.loss(x, W, b, importance=importance)
    torch.testing.assert_close(model.loss(x, W, b, importance=3 * importance), 3 * loss)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    torch.testing.assert_close(model.loss(x, W @ turn, b, importance=importance), loss)


def test_initial_weights_depend_on_seed_and_run_alone():
    model = ToyModel(n=40, m=10)
    W, b = model.initial(3, 7)
    assert torch.equal(W, model.initial(3, 7)[0])
    assert not torch.equal(W, model.initial(3, 8)[0])
    assert not torch.equal(W, model.initial(4, 7)[0])
    assert (b == 0).all()
    assert W.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.1)


def test_a_network_shows_its_hidden_layer_and_can_be_trained_on():
    model, (W, b) = ToyModel(n=6, m=3), _weights(runs=())
    network = ToyNetwork(model, W, b)
    assert dict(network.named_parameters()).keys() == {"W", "b"}
    seen = []
    network.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.rand(4, 6)
    torch.testing.assert_close(network(x), model.forward(x, W, b))
    torch.testing.assert_close(seen[0], x @ W)
    network(x).sum().backward()
    assert network.W.grad is not None


@pytest.mark.parametrize("hidden", ["linear", "relu"])
def test_an_untied_stack_equals_its_members_and_a_tied_model_where_the_matrices_are_one(hidden):
    model = ToyModel(n=6, m=3, hidden=hidden, tied=False)
    (W_in, b), (W_out, _) = _weights(), _weights(seed=1)
    x, importance = Features(n=6, p=0.5).sample(50), torch.rand(6)
    stacked = model.loss(x, W_in, W_out, b, importance=importance, l1=0.1)
    for r in range(2):
        one = model.loss(x, W_in[r], W_out[r], b[r], importance=importance, l1=0.1)
        torch.testing.assert_close(stacked[r], one)
    tied = ToyModel(n=6, m=3, hidden=hidden)
    assert torch.equal(model.forward(x, W_in, W_in, b), tied.forward(x, W_in, b))


def test_the_whole_loss_written_out():
    model = ToyModel(n=2, m=1, tied=False, target="abs", output="linear")
    W_in, W_out = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [0.5]])
    x, b = torch.tensor([[-1.0, 0.0]]), torch.tensor([0.25, 0.0])
    # h = -1; outputs 1.25 and -0.5 for the targets 1 and 0
    loss = model.loss(x, W_in, W_out, b, importance=torch.tensor([1.0, 2.0]), l1=0.5)
    torch.testing.assert_close(loss, torch.tensor(0.25**2 + 2 * 0.25 + 0.5))


def test_the_penalty_is_the_mean_over_the_batch_of_the_sum_over_units():
    model, (W, b) = ToyModel(n=6, m=3, hidden="relu"), _weights()
    x, ones = Features(n=6, p=0.5).sample(50), torch.ones(6)
    rise = model.loss(x, W, b, importance=ones, l1=0.3) - model.loss(x, W, b, importance=ones)
    torch.testing.assert_close(rise, 0.3 * model.encode(x, W).sum(-1).mean(-1))


def test_parameters_have_names_shapes_and_an_order():
    assert ToyModel(n=3, m=2).shapes == {"W": (3, 2), "b": (3,)}
    untied = ToyModel(n=3, m=2, tied=False)
    assert list(untied.shapes.items()) == [("W_in", (3, 2)), ("W_out", (3, 2)), ("b", (3,))]
    assert [a.shape for a in untied.initial(0, 0)] == [(3, 2), (3, 2), (3,)]
    W, b = ToyModel(n=3, m=2).initial(0, 0)
    assert torch.equal(W, untied.initial(0, 0)[0])
    for wrong in ((W,), (W, b), (W, W, b, b)):
        with pytest.raises(ValueError, match=f"{len(wrong)} parameters.*W_in, W_out, b"):
            untied.forward(torch.ones(1, 3), *wrong)
    with pytest.raises(ValueError, match="3 parameters"):
        ToyModel(n=3, m=2).loss(torch.ones(1, 3), W, b, torch.ones(3), importance=torch.ones(3))
    with pytest.raises(ValueError, match="1 parameters"):
        ToyNetwork(untied, W)


def test_models_are_values():
    assert ToyModel(n=3, m=2, init=Xavier()) == ToyModel(n=3, m=2)
    assert hash(ToyModel(n=3, m=2, tied=False)) == hash(ToyModel(n=3, m=2, tied=False))
    assert (
        len({ToyModel(n=3, m=2, **each) for each in ({}, {"tied": False}, {"target": "abs"})}) == 3
    )


def test_an_untied_network_names_its_matrices():
    model = ToyModel(n=6, m=3, tied=False)
    parameters = model.initial(0, 0)
    network = ToyNetwork(model, *parameters)
    assert list(dict(network.named_parameters())) == ["W_in", "W_out", "b"]
    assert list(dict(network.named_modules())) == ["", "encoder"]
    x = torch.rand(4, 6)
    torch.testing.assert_close(network(x), model.forward(x, *parameters))
    torch.testing.assert_close(network.encoder(x), x @ parameters[0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0, "m": 1},
        {"n": 2, "m": True},
        {"n": 2, "m": 1, "hidden": "gelu"},
        {"n": 2, "m": 1, "output": "abs"},
        {"n": 2, "m": 1, "tied": 1},
        {"n": 2, "m": 1, "target": "square"},
        {"n": 2, "m": 1, "init": "xavier"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(arguments):
    with pytest.raises((ValueError, TypeError), match="ToyModel"):
        ToyModel(**arguments)


def test_numbers_of_models_start_at_0():
    with pytest.raises(ValueError, match="from 0 on"):
        ToyModel(n=2, m=1).initial(0, -1)
