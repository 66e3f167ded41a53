"""Harvesting leaves the network as it was, whatever happens."""

import pytest
import torch
from torch import nn

from superpose.models import ToyModel, ToyNetwork
from superpose.networks import harvest


class Pair(nn.Module):
    def forward(self, x):
        return x * 2, x * 3


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken")


def network(*last):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.BatchNorm1d(6), *last
    )


def state(module):
    return (
        [part.training for part in module.modules()],
        [len(part._forward_hooks) for part in module.modules()],
        [(p.requires_grad, p.grad) for p in module.parameters()],
        {name: value.clone() for name, value in module.state_dict().items()},
        torch.get_rng_state(),
    )


def assert_same(before, after):
    assert before[:2] == after[:2]
    assert [(r, g is None) for r, g in before[2]] == [(r, g is None) for r, g in after[2]]
    assert all(torch.equal(before[3][name], after[3][name]) for name in before[3])
    assert torch.equal(before[4], after[4])


def test_values_are_those_of_the_layer_whatever_the_batch():
    net, x = network(), torch.randn(50, 4)
    whole = harvest(net, x, ["0", "1"])
    parts = harvest(net, x, ["0", "1"], batch=7)
    # The ReLU works in place: what layer 0 said must not be what layer 1 left in its memory.
    torch.testing.assert_close(whole["0"].x, net[0](x).detach())
    torch.testing.assert_close(whole["1"].x, net[0](x).detach().relu())
    torch.testing.assert_close(parts["1"].x, whole["1"].x)


def test_everything_is_as_before():
    net = network()
    net[3].eval()
    net[0].weight.requires_grad_(False)
    net[0].bias.grad = torch.ones(6)
    before = state(net)
    harvest(net, torch.randn(10, 4), ["1"])
    now = state(net)
    torch.set_rng_state(before[4])
    assert_same(before, state(net))
    assert now[0] == before[0]
    assert net[0].bias.grad is not None


def test_random_state_is_restored_where_the_network_draws():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    x = torch.ones(5, 3)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    harvest(nn.Sequential(Noisy()), x, ["0"])
    assert torch.equal(torch.rand(4), expected)


def test_everything_is_as_before_also_when_it_raises():
    net = network(Broken())
    before = state(net)
    with pytest.raises(RuntimeError, match="broken"):
        harvest(net, torch.ones(10, 4), ["1"])
    assert_same(before, state(net))


def test_batches_may_be_tuples_and_mappings():
    net, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(6, 4)
    expected = harvest(net, x, ["0"])["0"].x
    loader = [(x[:3], torch.zeros(3)), [x[3:], torch.zeros(3)]]
    torch.testing.assert_close(harvest(net, loader, ["0"])["0"].x, expected)
    keywords = [{"input": x[:2]}, {"input": x[2:]}]
    torch.testing.assert_close(harvest(net, keywords, ["0"])["0"].x, expected)


def test_axes():
    tokens = harvest(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 5, 4), ["0"])["0"]
    assert tokens.x.shape == (10, 3)
    conv, maps = nn.Sequential(nn.Conv2d(1, 7, 3), nn.ReLU()), torch.randn(2, 1, 5, 5)
    channels = harvest(conv, maps, ["1"], axis=1)["1"]
    torch.testing.assert_close(channels.x, conv(maps).detach().movedim(1, -1).reshape(-1, 7))
    with pytest.raises(ValueError, match="axis=1 for channels"):
        harvest(conv, maps, ["1"])
    with pytest.raises(ValueError, match="axis=1 for channels"):
        harvest(nn.Sequential(nn.Conv1d(1, 2, 3)), torch.randn(2, 1, 9), ["0"])
    with pytest.raises(ValueError, match="axis=5"):
        harvest(conv, maps, ["1"], axis=5)


def test_first_tensor_of_a_tuple():
    acts = harvest(nn.Sequential(Pair()), torch.ones(2, 3), ["0"])["0"]
    assert acts.x.unique().tolist() == [2.0]


def test_toy_network_gives_its_hidden_layer():
    model = ToyModel(n=3, m=2)
    net = ToyNetwork(model, *model.initial(0, 0))
    x = torch.rand(5, 3)
    acts = harvest(net, x, ["encoder"])["encoder"]
    torch.testing.assert_close(acts.x, x @ net.W.detach())


def test_unknown_layers_are_told_with_the_closest():
    net = nn.ModuleDict({"mlp": nn.Linear(2, 2), "attention": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="'attention'"):
        harvest(net, torch.ones(1, 2), ["atention"])
    with pytest.raises(ValueError, match="a list of names"):
        harvest(net, torch.ones(1, 2), "mlp")


def test_layers_that_run_twice_or_never_and_missing_inputs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(self.used(x))

    with pytest.raises(ValueError, match="ran 2 times"):
        harvest(Twice(), torch.ones(1, 2), ["used"])
    with pytest.raises(ValueError, match="ran 0 times"):
        harvest(Twice(), torch.ones(1, 2), ["unused"])
    with pytest.raises(ValueError, match="no inputs"):
        harvest(Twice(), [], ["unused"])
    with pytest.raises(ValueError, match="inputs yield str"):
        harvest(Twice(), ["text"], ["unused"])
