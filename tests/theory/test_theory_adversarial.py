import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.measures import dimensionality
from superpose.theory.adversarial import attack, attack_gain

SEEDS = st.integers(0, 2**31)


def _random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _loss(W, b, shown, target):
    return (((shown @ W @ W.T + b).relu() - target) ** 2).sum(-1)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 8), m=st.integers(1, 4), seed=SEEDS)
def test_unit_features_are_as_vulnerable_as_they_lack_dimensions(n, m, seed):
    W = torch.nn.functional.normalize(_random(3, n, m, seed=seed), dim=-1)
    torch.testing.assert_close(attack_gain(W), 1 / dimensionality(W), rtol=1e-9, atol=0)


def test_polytopes_have_their_vulnerability():
    angle = torch.arange(5) * (2 * math.pi / 5)
    pentagon = torch.stack((angle.cos(), angle.sin()), -1)
    torch.testing.assert_close(attack_gain(pentagon), torch.full((5,), 2.5))
    z, quarter = 1 / math.sqrt(3), torch.arange(4) * (math.pi / 2)
    rings = [
        torch.stack((r * (quarter + turn).cos(), r * (quarter + turn).sin(), 0 * quarter + h), -1)
        for r, turn, h in [(math.sqrt(1 - z**2), 0, z), (math.sqrt(1 - z**2), math.pi / 4, -z)]
    ]
    torch.testing.assert_close(attack_gain(torch.cat(rings)), torch.full((8,), 8 / 3))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 6), m=st.integers(1, 3), seed=SEEDS)
def test_no_change_of_its_length_moves_an_output_further(n, m, seed):
    W = _random(n, m, seed=seed)
    M, gain = W @ W.T, attack_gain(W)
    changes = torch.nn.functional.normalize(_random(500, n, seed=seed + 1), dim=-1)
    assert ((changes @ M) ** 2 <= gain * (1 + 1e-9)).all()
    best = torch.nn.functional.normalize(M, dim=-1)
    torch.testing.assert_close(((best @ M).diagonal()) ** 2, gain)


def test_the_attack_on_a_digon_costs_twice_that_on_a_dedicated_feature():
    epsilon = 0.05
    x = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    rise = {}
    for name, W in {"digon": [[1.0], [-1.0]], "dedicated": [[1.0, 0.0], [0.0, 1.0]]}.items():
        W, b = torch.tensor(W).double(), torch.zeros(2).double()
        moved = x + attack(W, b, x, epsilon)
        rise[name] = (_loss(W, b, moved, x) - _loss(W, b, x, x)).item()
    assert rise["dedicated"] == pytest.approx(epsilon**2)
    assert rise["digon"] == pytest.approx(2 * epsilon**2)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, epsilon=st.floats(0.01, 0.5))
def test_attacks_have_their_length_and_never_help(seed, epsilon):
    W, b = _random(5, 2, seed=seed), _random(5, seed=seed + 1) * 0.1
    x = _random(40, 5, seed=seed + 2).relu()
    change = attack(W, b, x, epsilon)
    length = change.norm(dim=-1)
    moved = length > 0
    torch.testing.assert_close(length[moved], torch.full_like(length[moved], epsilon))
    rise = _loss(W, b, x + change, x) - _loss(W, b, x, x)
    assert (rise[moved] > 0).all()
    assert (rise[~moved] == 0).all()


def test_the_attack_finds_what_gradients_miss():
    # All outputs are off and stay off in a neighbourhood, so the gradient vanishes.
    W, b = torch.eye(3).double(), torch.full((3,), -0.05).double()
    x = torch.zeros(1, 3).double()
    change = attack(W, b, x, 0.1)
    assert _loss(W, b, x + change, x).item() == pytest.approx(0.05**2)


def test_importance_chooses_the_victim():
    W, b, x = torch.eye(2).double(), torch.zeros(2).double(), torch.ones(1, 2).double()
    for victim in (0, 1):
        importance = torch.full((2,), 0.5).double()
        importance[victim] = 1.0
        change = attack(W, b, x, 0.1, importance)
        assert change[0].abs().argmax() == victim


def test_a_length_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"attack\(epsilon=0\).*positive"):
        attack(torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1), 0.0)
