"""What is drawn follows its law, and is a function of the batch, its number and the seed alone."""

import numpy as np
import pytest
import torch
from scipy import stats
from worlds import FALLING, NESTED, WORLDS

from superpose.features import Features
from superpose.kernels.truth import factors, trees
from superpose.truth import Circles, Firing, Folded, LowRank, Mixture, Together
from superpose.truth.drawing import Batch, Plan

EACH = pytest.mark.parametrize("features", WORLDS.values(), ids=WORLDS.keys())
SAMPLES, SEED = 40_000, 11


def drawn(features, samples=SAMPLES, seed=SEED):
    return Mixture(features, torch.eye(features.n)).draw(samples, 0, seed)


def within(found, expected, samples=SAMPLES, errors=5.0):
    """Whether shares of samples are within so many standard errors of their expectation."""
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-12) / samples)
    return (np.abs(found - expected) <= errors * error).all()


@EACH
def test_features_are_active_as_often_as_their_probability_says(features):
    assert within(drawn(features).active().double().mean(0).numpy(), features.probability)


@EACH
def test_entries_are_in_order_and_none_is_zero(features):
    batch = drawn(features, 500)
    dense = batch.f().numpy()
    again = batch.sparse.tocsc().tocsr()
    assert np.array_equal(again.indices, batch.index)
    assert np.array_equal(again.indptr, batch.indptr)
    assert (batch.value != 0).all()
    assert np.array_equal(dense != 0, batch.active().numpy())
    assert batch.l0() == (dense != 0).sum() / 500


@EACH
def test_a_batch_is_a_function_of_its_size_number_and_seed(features):
    world = Mixture(features, torch.eye(features.n), noise=0.5)
    first = world.draw(64, 3, 5)
    others = [world.draw(64, 2, 5), world.draw(64, 3, 6), world.draw(32, 3, 5)]
    again = Mixture(features, torch.eye(features.n), noise=0.5).draw(64, 3, 5)
    assert torch.equal(first.x, again.x)
    assert np.array_equal(first.value, again.value)
    assert np.array_equal(first.index, again.index)
    assert not any(torch.equal(first.x[:32], other.x[:32]) for other in others[:2])
    assert torch.equal(world.draw(64, 3, 5).x, first.x)


def test_seeds_and_numbers_do_not_run_into_each_other():
    world = Mixture(Features(n=50, p=0.1), torch.eye(50))
    grid = [world.draw(20, number, seed).x for number in range(6) for seed in range(6)]
    assert len({x.numpy().tobytes() for x in grid}) == 36


@EACH
def test_fewer_samples_are_the_first_of_more(features):
    world = Mixture(features, torch.eye(features.n), noise=0.1)
    few, many = world.sample(700, seed=1), world.sample(1_500, seed=1)
    assert torch.equal(few.x, many.x[:700])
    assert torch.equal(few.f(), many.f()[:700])
    assert len(many) == 1_500


def test_samples_without_a_number_are_in_no_batch():
    world = Mixture(Features(n=50, p=0.3), torch.eye(50))
    assert not torch.equal(world.sample(1024, seed=0).x, world.draw(1024, 0, 0).x)


def test_counts_of_independent_features_are_binomial():
    # The number of active features of a sample, and of active samples of a feature in a batch.
    batch = drawn(Features(n=12, p=0.2))
    sizes = np.bincount(np.diff(batch.indptr), minlength=13)
    expected = stats.binom(12, 0.2).pmf(np.arange(13)) * SAMPLES
    last = 7  # from here on together
    observed = [*sizes[:last], sizes[last:].sum()]
    expected = [*expected[:last], expected[last:].sum()]
    assert stats.chisquare(observed, expected).pvalue > 1e-4

    world = Mixture(Features(n=400, p=0.05), torch.eye(400))
    counts = np.concatenate(
        [np.bincount(world.draw(50, k, 0).index, minlength=400) for k in range(20)]
    )
    observed = np.bincount(counts.clip(max=7), minlength=8)
    law = stats.binom(50, 0.05)
    expected = 8_000 * np.append(law.pmf(np.arange(7)), law.sf(6))
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_independent_features_meet_as_often_as_chance_has_it():
    on = drawn(Firing(p=FALLING)).active().double()
    met = (on.T @ on / SAMPLES).numpy()
    expected = np.outer(FALLING, FALLING)
    pairs = ~np.eye(9, dtype=bool)
    assert within(met[pairs], expected[pairs])


def test_sets_are_on_together_or_one_at_a_time():
    on = drawn(WORLDS["correlated"]).active()
    assert torch.equal(on[:, ::2], on[:, 1::2])
    on = drawn(WORLDS["anticorrelated"]).active()
    assert (on.reshape(SAMPLES, 2, 4).sum(-1) <= 1).all()
    assert (drawn(WORLDS["exactly one"]).active().sum(-1) == 1).all()


def test_points_come_as_they_are():
    x = drawn(WORLDS["finite"], 200).f()
    points = torch.from_numpy(WORLDS["finite"].points.toarray())
    assert all(any(torch.equal(row, point) for point in points) for row in x)


@pytest.mark.parametrize("name", ["forest", "low rank and forest"])
def test_a_child_is_on_only_where_its_parent_is_and_one_of_the_exclusive_ones(name):
    on = drawn(WORLDS[name]).active()
    for child, parent in enumerate(NESTED.parent):
        if parent >= 0:
            assert not (on[:, child] & ~on[:, parent]).any()
    for parent in np.flatnonzero(NESTED.exclusive):
        children = NESTED.children(parent)
        assert on[:, children].sum(1).max() == 1
    # Of parents that are not exclusive, children do meet.
    both = Firing(p=[0.9, 0.9, 0.9], forest=type(NESTED)([-1, 0, 0]))
    assert drawn(both).active().all(1).any()


def test_members_of_a_forest_meet_as_often_as_their_tree_has_it():
    on, p = drawn(WORLDS["forest"]).active().double(), WORLDS["forest"].probability
    met = (on.T @ on / SAMPLES).numpy()
    assert within(met[5, 2], p[5])  # a child and its parent
    assert within(met[5, 0], p[5])  # and its grandparent
    assert within(met[5, 7], p[5] * p[7])  # in another tree
    assert met[5, 6] == 0  # exclusive siblings
    assert met[2, 3] == 0


def test_correlated_features_meet_as_often_as_two_normal_numbers_pass_their_thresholds():
    firing = WORLDS["low rank"]
    on = drawn(firing).active().double()
    met = (on.T @ on / SAMPLES).numpy()
    F = firing.correlation.factor
    apart = 0.0
    for i, j in [(0, 1), (0, 8), (2, 3), (4, 7), (7, 8)]:
        law = stats.multivariate_normal([0, 0], [[1, F[i] @ F[j]], [F[i] @ F[j], 1]])
        expected = law.cdf(stats.norm.ppf(FALLING[[i, j]]))
        assert within(met[i, j], expected)
        apart = max(apart, abs(expected - FALLING[i] * FALLING[j]))
    assert apart > 0.02  # the correlations are there to be seen


def test_features_without_a_factor_are_independent():
    firing = Firing(p=FALLING, correlation=LowRank(np.zeros((9, 1))))
    on = drawn(firing).active().double()
    met = (on.T @ on / SAMPLES).numpy()
    pairs = ~np.eye(9, dtype=bool)
    assert within(met[pairs], np.outer(FALLING, FALLING)[pairs])


def test_what_settles_most_nodes_at_a_glance_changes_nothing():
    firing = Firing(p=np.full(80, 0.02), correlation=LowRank.random(80, rank=4, scale=0.4, seed=3))
    nodes = Plan(firing).nodes[0]
    shared = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    everything = nodes.factors._replace(cutoff=np.full(80, 2**32 - 1, np.uint32))
    found = [
        factors.fire(np.uint64(1), nodes.trees, each, shared, 10_000)
        for each in (nodes.factors, everything)
    ]
    count = found[0][0]
    assert count == found[1][0] > 100
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        assert np.array_equal(one[:count], other[:count])


@pytest.mark.parametrize("name", ["independent", "forest", "low rank and forest"])
def test_room_for_entries_decides_nothing(name):
    features, key = WORLDS[name], np.uint64(Batch(500, 0, 0).key)
    nodes = Plan(features).nodes[0]
    if nodes.factors is None:
        results = [trees.fire(500, key, nodes.trees, room) for room in (20, 5_000, 9_000)]
    else:
        shared = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
        results = [
            factors.fire(key, nodes.trees, nodes.factors, shared, room)
            for room in (20, 5_000, 9_000)
        ]
    count = results[1][0]
    assert results[0][0] == -1
    assert count == results[2][0] > 20
    for one, other in zip(results[1][1:], results[2][1:], strict=True):
        assert np.array_equal(one[:count], other[:count])


def moments(law, feature_value):
    """z-scores of mean and mean square of the values of an active feature."""
    value = feature_value.astype(np.float64)
    scores = []
    for power, expected in ((1, law.mean), (2, law.square)):
        sample = value**power
        scores.append((sample.mean() - expected) / (sample.std() / np.sqrt(len(sample)) + 1e-12))
    return np.abs(scores)


@pytest.mark.parametrize("name", ["independent", "exactly one", "Zipf"])
def test_magnitudes_have_the_moments_of_their_law(name):
    features = WORLDS[name]
    batch = drawn(features)
    if name == "Zipf":
        assert (batch.value == 1.0).all()
    else:
        assert (moments(features.amplitude, batch.value) < 5).all()


def test_signed_features_have_either_sign_and_the_magnitudes_of_their_law():
    value = drawn(WORLDS["signed"]).value
    assert within((value > 0).mean(), 0.5, len(value))
    assert (moments(WORLDS["signed"].amplitude, np.abs(value)) < 5).all()


def test_folded_magnitudes_are_normal_numbers_above_zero():
    folded = Folded(np.linspace(0.0, 2.0, 9), 1.0)
    f = drawn(WORLDS["folded"]).f().double().numpy()
    for feature in (0, 4, 8):
        value = f[:, feature][f[:, feature] > 0]
        law = stats.truncnorm(-folded.mean[feature], np.inf, loc=folded.mean[feature])
        assert stats.kstest(value, law.cdf).pvalue > 1e-4
        assert folded.kept[feature] == pytest.approx(stats.norm.sf(-folded.mean[feature]))


def test_children_are_scaled_by_their_parent_over_its_mean():
    forest = type(NESTED)([-1, 0, 1], scaled=True)
    law = Folded([2.0, 3.0, 1.0], [1.0, 0.0, 0.0])
    f = drawn(Firing(p=[0.8, 0.8, 0.8], amplitude=law, forest=forest), 2_000).f()
    child, grandchild = f[:, 1] > 0, f[:, 2] > 0
    assert child.sum() > grandchild.sum() > 0
    assert torch.allclose(f[child, 1], 3.0 * f[child, 0] / 2.0)
    assert torch.allclose(f[grandchild, 2], f[grandchild, 1] / 3.0)
    unscaled = Firing(p=[0.8, 0.8, 0.8], amplitude=law, forest=type(NESTED)([-1, 0, 1]))
    f = drawn(unscaled, 2_000).f()
    assert (f[f[:, 1] > 0, 1] == 3.0).all()


def test_groups_hand_on_what_scales_their_children():
    forest = type(NESTED)([-1, 0, 1], scaled=[True, True, False], feature=[0, -1, 1])
    firing = Firing(p=[1.0, 1.0], amplitude=Folded([2.0, 1.0], [1.0, 0.0]), forest=forest)
    f = drawn(firing, 500).f()
    assert torch.allclose(f[:, 1], f[:, 0] / 2.0)


def test_a_circle_has_no_direction_of_its_own():
    f = drawn(Circles(count=2, p=0.5)).f().numpy().reshape(-1, 2, 2)
    on = (f != 0).all(-1)
    assert np.array_equal(on, (f != 0).any(-1))
    assert within(on.mean(0), np.full(2, 0.5))
    angle = np.arctan2(f[on][:, 1], f[on][:, 0])
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4
    assert np.allclose(np.linalg.norm(f[on], axis=-1), 1.0, atol=1e-6)


def test_worlds_together_are_what_they_are_alone_and_independent():
    parts = WORLDS["together"].parts
    whole = drawn(WORLDS["together"], 300).f()
    assert torch.equal(whole[:, :2], drawn(parts[0], 300).f())
    twice = drawn(Together(Firing(n=3, p=0.5), Firing(n=3, p=0.5))).active().double()
    assert within((twice[:, :3] * twice[:, 3:]).mean(0).numpy(), np.full(3, 0.25))
