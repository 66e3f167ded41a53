import pytest
import torch

from superpose.features import Features
from superpose.models import ToyModel, ToyNetwork


def _weights(n=6, m=3, runs=(2,)):
    generator = torch.Generator().manual_seed(0)
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
        one = model.loss(x, W[r], b[r], importance)
        torch.testing.assert_close(model.loss(x, W, b, importance)[r], one)


def test_the_definition_written_out():
    model = ToyModel(n=2, m=1)
    W, b = torch.tensor([[1.0], [-0.5]]), torch.tensor([0.1, -0.2])
    x = torch.tensor([[1.0, 0.5]])
    # h = 1 - 0.25 = 0.75; outputs relu(0.85), relu(-0.575)
    torch.testing.assert_close(model.forward(x, W, b), torch.tensor([[0.85, 0.0]]))
    loss = model.loss(x, W, b, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(loss, torch.tensor(0.15**2 + 2 * 0.25))


def test_the_loss_scales_with_importance_and_ignores_rotations():
    model, (W, b) = ToyModel(n=6, m=3), _weights()
    x, importance = Features(n=6, p=0.5).sample(50), torch.rand(6)
    loss = model.loss(x, W, b, importance)
    torch.testing.assert_close(model.loss(x, W, b, 3 * importance), 3 * loss)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    torch.testing.assert_close(model.loss(x, W @ turn, b, importance), loss)


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


@pytest.mark.parametrize(
    "arguments", [{"n": 0, "m": 1}, {"n": 2, "m": True}, {"n": 2, "m": 1, "hidden": "gelu"}]
)
def test_what_cannot_be_is_refused(arguments):
    with pytest.raises((ValueError, TypeError), match="ToyModel"):
        ToyModel(**arguments)
