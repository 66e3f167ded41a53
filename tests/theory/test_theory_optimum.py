from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import qmc

from superpose.features import Constant, Features
from superpose.theory import (
    branch_crossing,
    covariance,
    expected_loss,
    feature_losses,
    linear_minimum,
    local_minima,
    optima,
    optimum,
    second_moments,
)

# --- an objective of another kind: exact weights of the patterns, Sobol magnitudes ---


def draws(world, points=256):
    """Samples [T, n] and their weights, which sum to 1."""
    size = world.law.size
    options = []
    for s, p in enumerate(world.set_probability.tolist()):
        members = list(range(s * size, (s + 1) * size))
        on = [(p / size, [j]) for j in members] if world.law.exclusive else [(p, members)]
        options.append([(1 - p, []), *on])
    samples, weights = [], []
    for choice in product(*options):
        active = [j for _, members in choice for j in members]
        count = points if active else 1
        x = np.zeros((count, world.n))
        if active:
            x[:, active] = qmc.Sobol(len(active), seed=len(active)).random(points)
        samples.append(x)
        weights.append(np.full(count, np.prod([q for q, _ in choice]) / count))
    return np.concatenate(samples), np.concatenate(weights)


def sampled_objective(world, m, points=256):
    x, weight = draws(world, points)
    inside, importance = world.n * m, world.importances

    def value_and_gradient(z):
        W, b = z[:inside].reshape(world.n, m), z[inside:]
        before = x @ (W @ W.T) + b
        error = np.maximum(before, 0) - x
        g = 2 * importance * error * (before > 0) * weight[:, None]
        dM = g.T @ x
        gradient = np.concatenate([((dM + dM.T) @ W).ravel(), g.sum(0)])
        return weight @ (error**2) @ importance, gradient

    return value_and_gradient


def sampled_minimum(world, m, starts, points=256):
    """The exact loss of the best model that the sampled objective and scipy lead to."""
    objective, rng = sampled_objective(world, m, points), np.random.default_rng(0)
    ends = []
    for _ in range(starts):
        W, b = rng.normal(size=world.n * m), world.probability / 2 * rng.random(world.n)
        ends.append(minimize(objective, np.concatenate([W, b]), jac=True, method="L-BFGS-B"))
    best = torch.from_numpy(min(ends, key=lambda end: end.fun).x)
    W, b = best[: world.n * m].reshape(world.n, m), best[world.n * m :]
    return expected_loss(W, b, world, tolerance=1e-8).item()


WORLDS = {
    "independent": (Features(n=3, p=0.2, importance=0.7), 2),
    "unequal p": (Features(n=4, p=[0.1, 0.4, 0.05, 0.2]), 2),
    "correlated": (Features.correlated(sets=2, size=2, p=0.2), 2),
    "anticorrelated": (Features.anticorrelated(sets=2, size=2, p=0.4, importance=0.8), 1),
    "exactly one": (Features.exactly_one(n=5), 2),
    "dense": (Features(n=3, p=1.0, importance=0.9), 1),
}


@cache
def search(name):
    world, m = WORLDS[name]
    zero = float(np.diag(second_moments(world)) @ world.importances)
    return world, m, zero, optimum(world, m, starts=16)


@pytest.mark.parametrize("name", WORLDS)
def test_agrees_with_sampled_magnitudes_and_another_optimiser(name):
    world, m, zero, best = search(name)
    other = sampled_minimum(world, m, starts=8)
    # The other search minimises a slightly different function, so it ends slightly above.
    assert best.loss <= other + 1e-7 * zero
    assert other <= best.loss + 3e-4 * zero


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_returned_holds_together(name):
    world, m, zero, found = search(name)
    losses = [each.loss for each in found.minima]
    assert losses == sorted(losses)
    assert sum(each.starts for each in found.minima) == found.starts == 16
    assert (found.W.shape, found.b.shape) == ((world.n, m), (world.n,))
    assert found.loss == found.minima[0].loss
    for each in found.minima:
        exact = expected_loss(each.W, each.b, world, tolerance=1e-9).item()
        assert exact == pytest.approx(each.loss, abs=2e-9 * zero)
    assert found.minima[0].converged


@pytest.mark.parametrize("name", WORLDS)
def test_no_small_change_lowers_the_loss(name):
    world, m, zero, best = search(name)
    step = torch.Generator().manual_seed(0)
    W = best.W + 1e-3 * torch.randn(40, world.n, m, generator=step, dtype=torch.float64)
    b = best.b + 1e-3 * torch.randn(40, world.n, generator=step, dtype=torch.float64)
    around = expected_loss(W, b, world, tolerance=1e-8)
    assert around.min().item() >= best.loss - 2e-8 * zero


@pytest.mark.parametrize("name", WORLDS)
def test_no_output_is_worse_than_a_constant(name):
    world, _, _, best = search(name)
    losses = feature_losses(best.W, best.b, world, tolerance=1e-8).numpy()
    assert np.all(losses <= np.diag(covariance(world)) * (1 + 1e-3))


def test_with_room_for_all_nothing_is_lost():
    best = optimum(Features(n=3, p=0.3), 3, starts=4)
    assert best.loss < 1e-8
    assert torch.allclose(best.W @ best.W.T, torch.eye(3, dtype=torch.float64), atol=1e-3)


def test_anticorrelated_pairs_fit_back_to_back():
    best = optimum(Features.anticorrelated(sets=2, size=2, p=0.1), 2, starts=6)
    assert best.loss < 1e-8  # 0 to the accuracy of the series
    gram = best.W @ best.W.T
    assert gram[0, 1] == pytest.approx(-1, abs=1e-3)
    assert gram[:2, 2:].abs().max() < 1e-3


def test_two_minima_of_two_features():
    found = optimum(Features(n=2, p=0.5), 1, starts=16)
    assert len(found.minima) == 2
    assert found.loss == pytest.approx(0.076282, abs=2e-6)
    assert found.W.prod() < 0 < found.minima[1].W.prod()


@pytest.mark.parametrize(
    ("p", "loss"),
    [(0.1, 0.003319), (0.3, 0.02931), (4 / 7, 0.093422), (0.6, 0.098886), (1.0, 0.083254)],
)
def test_two_features_in_one_dimension(p, loss):
    assert optimum(Features(n=2, p=p), 1, starts=8).loss == pytest.approx(loss, abs=2e-6)


def test_the_pentagon():
    best = optimum(Features(n=5, p=0.05), 2, starts=2)
    assert best.loss == pytest.approx(8.9035e-3, abs=2e-7)
    assert best.W.norm(dim=1).tolist() == pytest.approx([1.1345] * 5, abs=2e-3)
    assert best.b.tolist() == pytest.approx([-0.2462] * 5, abs=2e-3)


def test_relabelling_changes_nothing():
    order = [2, 0, 1]
    p, importance = [0.1, 0.3, 0.2], [1.0, 0.5, 0.8]
    other_p, other_importance = ([given[k] for k in order] for given in (p, importance))
    one = optimum(Features(n=3, p=p, importance=importance), 2, starts=8)
    other = optimum(Features(n=3, p=other_p, importance=other_importance), 2, starts=8)
    assert one.loss == pytest.approx(other.loss, abs=1e-8)
    assert torch.allclose(one.b[order], other.b, atol=1e-3)


def test_the_loss_scales_with_importance():
    one = optimum(Features(n=2, p=0.3, importance=[1.0, 0.5]), 1, starts=8)
    other = optimum(Features(n=2, p=0.3, importance=[3.0, 1.5]), 1, starts=8)
    assert other.loss == pytest.approx(3 * one.loss, abs=1e-8)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_a_relu_does_at_least_as_well_as_ignoring(p):
    world = Features(n=4, p=p, importance=0.6)
    assert optimum(world, 2, starts=4).loss <= linear_minimum(world, 2) + 1e-7


def test_more_starts_lose_nothing_and_a_seed_repeats():
    world = Features(n=4, p=0.4, importance=0.8)
    few, many = optimum(world, 2, starts=2, seed=3), optimum(world, 2, starts=6, seed=3)
    assert many.loss <= few.loss + 1e-9
    again = optimum(world, 2, starts=2, seed=3)
    assert again.W.equal(few.W)
    assert again.loss == few.loss


def test_dead_outputs_are_revived():
    # From most starts of this world a descent alone ends with a dead fifth feature, whose loss
    # is E x² where a constant has Var x (0.01206 in all).
    found = optimum(Features.correlated(sets=3, size=2, p=0.03), 2, starts=6)
    assert max(each.loss for each in found.minima) < 0.006


def test_a_branch_stays_itself():
    world = Features(n=2, p=0.3, importance=[1.0, 0.3])
    W = torch.tensor([[[1.0], [0.0]], [[1.0], [-1.0]]])
    b = torch.tensor([[0.0, 0.1], [0.0, 0.0]])
    ignored, pair = local_minima(W, b, world)
    assert ignored.loss == pytest.approx(0.3 * (0.1 - 0.09 / 4), abs=1e-8)
    assert pair.loss < ignored.loss
    assert ignored.W[1].abs() < 1e-3


def test_a_path_of_worlds_is_at_least_as_good_as_each_alone():
    worlds = [Features(n=3, p=p, importance=0.8) for p in (0.2, 0.4, 0.6)]
    seen = []
    path = optima(worlds, 1, starts=3, progress=lambda *now: seen.append(now))
    assert seen == [(k, 6) for k in range(1, 7)]
    for world, found in zip(worlds, path, strict=True):
        alone = optimum(world, 1, starts=3)
        assert found.loss <= alone.loss + 1e-9
        assert sum(each.starts for each in found.minima) == found.starts == 3


def test_a_path_may_change_its_number_of_features():
    path = optima([Features(n=2, p=0.2), Features(n=3, p=0.2)], 1, starts=2)
    assert [found.W.shape[0] for found in path] == [2, 3]
    assert optima([], 1) == ()


def test_advice_is_given_where_evidence_is_thin():
    assert "add starts" in optimum(Features(n=3, p=0.3), 1, starts=1).advice
    assert optimum(Features(n=2, p=0.1), 1, starts=16).advice == ""


@pytest.mark.parametrize(("m", "starts"), [(0, 4), (1, 0)])
def test_sizes_of_at_least_one(m, starts):
    with pytest.raises(ValueError, match="at least 1"):
        optimum(Features(n=2, p=0.1), m, starts=starts)


def test_branches_that_do_not_cross_are_an_error():
    def family(p):
        return Features(n=2, p=p, importance=[1.0, 0.3])

    pair = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    alone = torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.1])
    with pytest.raises(ValueError, match="same sign"):
        branch_crossing(pair, alone, family, between=(0.3, 0.32))
    with pytest.raises(ValueError, match="both models run down to the same minimum"):
        branch_crossing(pair, alone, family, between=(0.1, 0.2))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"pass W\[None\]"):
        local_minima(torch.zeros(1, 3, 1), torch.zeros(1, 3), Features(n=2))


@pytest.mark.slow
def test_a_pentagon_gives_way_to_two_digons_when_one_feature_is_rare():
    angle = 2 * np.pi * torch.arange(5) / 5
    pentagon = 1.13 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((5,), -0.25)
    digons = (
        torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0]]),
        torch.tensor([0.0, 0, 0, 0, 0.01]),  # the ignored feature is alive
    )

    def family(ratio):
        return Features(n=5, p=[0.05] * 4 + [0.05 * ratio])

    assert branch_crossing(pentagon, digons, family, (0.2, 0.4)) == pytest.approx(0.269, abs=2e-3)


@pytest.mark.parametrize(
    ("world", "partner"), [(Features.correlated, 0.0), (Features.anticorrelated, -1.0)]
)
def test_correlated_pairs_are_orthogonal_and_anticorrelated_ones_antipodal(world, partner):
    W = optimum(world(sets=2, size=2, p=0.1), 2, starts=6).W
    W = W / W.norm(dim=1, keepdim=True)
    assert (W @ W.T)[0, 1] == pytest.approx(partner, abs=0.05)
    # The antipode is always there: of the other set, or the partner.
    assert (W @ W.T).min(1).values.tolist() == pytest.approx([-1.0] * 4, abs=0.01)


def test_a_world_without_a_smooth_loss_to_minimise_is_refused():
    with pytest.raises(ValueError, match="kinks"):
        optimum(Features(n=2, amplitude=Constant()), 1)
    with pytest.raises(ValueError, match="importances are 0"):
        optimum(Features(n=2, importance=[0.0, 0.0]), 1)
