import pytest
import torch

from superpose.features import Constant, Exponential, Features, HalfNormal
from superpose.theory import expected_loss, linear_minimum
from superpose.theory.sharing import shared_dimension

WORLDS = {
    "independent": Features(n=2, p=[0.3, 0.6], importance=[1.0, 0.4]),
    "dense": Features(n=2, p=1.0),
    "correlated": Features.correlated(sets=1, size=2, p=0.4, importance=0.5),
    "anticorrelated": Features.anticorrelated(sets=1, size=2, p=0.7),
}
ROOT = 2**-0.5


@pytest.mark.parametrize("name", WORLDS)
def test_each_use_costs_what_the_exact_loss_says(name):
    world = WORLDS[name]
    means = torch.from_numpy(world.probability / 2)
    uses = {
        "neither": ([0.0, 0.0], [True, True]),
        "first": ([1.0, 0.0], [False, True]),
        "second": ([0.0, 1.0], [True, False]),
        "antipodal": ([1.0, -1.0], [False, False]),
        "collapsed": ([ROOT, ROOT], [False, False]),
    }
    pair = shared_dimension(world)
    for use, (direction, by_mean) in uses.items():
        W = torch.tensor(direction).double().unsqueeze(-1)
        b = means.where(torch.tensor(by_mean), 0)
        exact = expected_loss(W, b, world, tolerance=1e-8).item()
        assert getattr(pair, use) == pytest.approx(exact, abs=1e-7), use


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_sets_of_two_in_two_dimensions(p):
    correlated = Features.correlated(sets=2, size=2, p=p)
    assert 2 * shared_dimension(correlated, 0, 2).antipodal == pytest.approx(2 * p**2 / 3)
    assert 2 * shared_dimension(correlated, 0, 1).antipodal == pytest.approx(2 * p / 3)
    exclusive = Features.anticorrelated(sets=2, size=2, p=p)
    assert 2 * shared_dimension(exclusive, 0, 2).antipodal == pytest.approx(p**2 / 6)
    assert shared_dimension(exclusive, 0, 1).antipodal == 0
    assert shared_dimension(exclusive, 0, 1).best == "antipodal"


@pytest.mark.parametrize("p", [0.01, 0.3, 0.99])
def test_a_correlated_pair_collapses_to_its_principal_component(p):
    world = Features.correlated(sets=1, size=2, p=p)
    pair = shared_dimension(world)
    assert pair.best == "collapsed"
    assert pair.collapsed == pytest.approx(p / 12)
    # No linear model does better, and here no output is ever off.
    assert pair.collapsed == pytest.approx(linear_minimum(world, 1))


def test_when_always_on_collapse_and_dropping_one_cost_the_same():
    pair = shared_dimension(Features(n=2, p=1.0))
    assert pair.collapsed == pytest.approx(pair.first)


@pytest.mark.parametrize(
    "amplitude", [Exponential(scale=0.5), HalfNormal(scale=2.0), Constant(value=0.7)], ids=str
)
def test_other_amplitudes_agree_with_samples(amplitude):
    world = Features.correlated(sets=1, size=2, p=0.5, amplitude=amplitude)
    x = world.sample(200_000, seed=1).double()
    pair = shared_dimension(world)
    for use, lost in [
        ("antipodal", 2 * x.amin(-1) ** 2),
        ("collapsed", (x[:, 0] - x[:, 1]) ** 2 / 2),
    ]:
        error = 4 * lost.std().item() / len(x) ** 0.5
        assert getattr(pair, use) == pytest.approx(lost.mean().item(), abs=error + 1e-12), use


def test_features_that_are_not_two_of_the_world_are_refused():
    with pytest.raises(ValueError, match=r"shared_dimension\(i=1, j=1\)"):
        shared_dimension(Features(n=3), 1, 1)
    with pytest.raises(ValueError, match="features 0 to 2"):
        shared_dimension(Features(n=3), 0, 3)


def test_signed_features_are_refused():
    with pytest.raises(ValueError, match="signed"):
        shared_dimension(Features(n=2, signed=True))
