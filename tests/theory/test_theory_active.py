import numpy as np
import pytest
import torch
from scipy.stats import binom

from superpose.features import Exponential, Features, HalfNormal
from superpose.theory import active_probability, expected_loss, loss_and_gradient, loss_by_active

WORLDS = [
    Features(n=6, p=[0.1, 0.9, 0.4, 0.2, 1.0, 0.05], importance=0.8),
    Features.correlated(sets=3, size=2, p=0.4, amplitude=Exponential(0.7)),
    Features.anticorrelated(sets=2, size=3, p=[0.6, 0.3], importance=0.6),
    Features.exactly_one(6),
    Features(n=6, p=0.3, amplitude=HalfNormal(2.0), signed=True),
]


def _name(world):
    return f"{type(world.law).__name__} {type(world.amplitude).__name__}"


def _model(seed=0, n=6, m=3):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.normal(size=(n, m)) / np.sqrt(m))
    return W, torch.from_numpy(rng.normal(size=n) * 0.2)


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("world", WORLDS, ids=_name)
def test_the_parts_sum_to_the_loss_and_are_those_of_samples(world, output):
    W, b = _model()
    parts, chance = loss_by_active(W, b, world, output), active_probability(world)
    assert parts.sum().item() == pytest.approx(expected_loss(W, b, world, output).item(), rel=1e-9)
    x = world.sample(100_000, seed=1).double()
    y = x @ W @ W.T + b
    error = (x - (y.relu() if output == "relu" else y)) ** 2 @ torch.from_numpy(world.importances)
    for k in range(7):
        chosen = error[(x != 0).sum(1) == k]
        if chance[k] == 0.0:
            assert parts[k] == 0.0
            assert len(chosen) == 0
        elif len(chosen) > 30:
            spread = chosen.std().item() / len(chosen) ** 0.5
            assert abs(parts[k].item() / chance[k] - chosen.mean().item()) <= 4 * spread + 1e-5


@pytest.mark.parametrize("world", WORLDS, ids=_name)
def test_with_nothing_active_the_bias_alone_errs(world):
    W, b = _model(1)
    first = loss_by_active(W, b, world)[0].item()
    bias = float(world.importances @ b.clamp(min=0.0).numpy() ** 2)
    assert first == pytest.approx(bias * active_probability(world)[0], rel=1e-12, abs=1e-15)


def test_one_active_feature_in_closed_form():
    # Per active feature j: ∫(x − ReLU(ax + b))² for itself and ∫ReLU(cx + b)² for each other.
    W, b = _model(2)
    world = Features(n=6, p=0.2)
    gram, x = (W @ W.T).numpy(), (np.arange(20_000) + 0.5) / 20_000
    total = 0.0
    for j in range(6):
        y = np.maximum(gram[:, j, None] * x + b.numpy()[:, None], 0.0)
        target = np.zeros((6, 1)) + (np.arange(6) == j)[:, None] * x
        total += ((target - y) ** 2).mean(1).sum() / 6
    part = loss_by_active(W, b, world, tolerance=1e-8)[1].item()
    assert part == pytest.approx(total * active_probability(world)[1], abs=2e-8)


def test_all_features_active_is_the_dense_world():
    W, b = _model(3)
    part = loss_by_active(W, b, Features(n=6, p=0.3), tolerance=1e-8)[6].item()
    dense = expected_loss(W, b, Features(n=6, p=1.0), tolerance=1e-8).item()
    assert part == pytest.approx(0.3**6 * dense, abs=1e-8)


def test_a_stack_equals_its_members_bit_for_bit():
    W, b = (
        torch.stack([_model(s)[0] for s in range(4)]),
        torch.stack([_model(s)[1] for s in range(4)]),
    )
    together = loss_by_active(W.view(2, 2, 6, 3), b.view(2, 2, 6), WORLDS[0])
    assert together.shape == (2, 2, 7)
    for r in range(4):
        assert torch.equal(together.view(4, 7)[r], loss_by_active(W[r], b[r], WORLDS[0]))


def test_a_diverged_model_has_no_parts():
    W, b = _model()
    b[0] = torch.nan
    assert loss_by_active(W, b, WORLDS[0]).isnan().all()


def test_near_orthogonal_models_recombine():
    W = torch.eye(8, 5).double() + 1e-5 * torch.from_numpy(
        np.random.default_rng(0).normal(size=(8, 5))
    )
    b = torch.tensor([0.0, -0.2] * 4).double()
    world = Features(n=8, p=0.1)
    whole = loss_and_gradient(W, b, world, tolerance=1e-9).loss.item()
    assert loss_by_active(W, b, world, tolerance=1e-9).sum().item() == pytest.approx(
        whole, rel=1e-8
    )


def test_the_number_of_active_features_is_binomial():
    found = active_probability(Features(n=9, p=0.3))
    np.testing.assert_allclose(found, binom.pmf(np.arange(10), 9, 0.3), rtol=1e-12)
    sets = active_probability(Features.correlated(sets=3, size=2, p=0.4))
    np.testing.assert_allclose(sets[::2], binom.pmf(np.arange(4), 3, 0.4), rtol=1e-12)
    assert not sets[1::2].any()
    one = active_probability(Features.exactly_one(5))
    np.testing.assert_array_equal(one, np.arange(6) == 1)


@pytest.mark.parametrize("world", WORLDS, ids=_name)
def test_the_probabilities_are_those_of_samples(world):
    counts = (world.sample(50_000, seed=2) != 0).sum(1)
    for k, chance in enumerate(active_probability(world)):
        share = (counts == k).double().mean().item()
        assert abs(share - chance) <= 4.5 * (chance * (1 - chance) / 50_000) ** 0.5 + 1e-12


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match=r"loss_by_active: .*n=3"):
        loss_by_active(torch.zeros(2, 1), torch.zeros(2), Features(n=3))
