"""The test of superposition: planted truth both ways, its level, and the laws of its nulls."""

import numpy as np
import pytest
import torch
from scipy import stats

from superpose.activations import Activations
from superpose.engine import Training, train
from superpose.features import Features
from superpose.models import ToyModel
from superpose.networks import superposition_test
from superpose.networks.lines import distance, encode, refine, unit, widen
from superpose.networks.presence import _complete, _elliptical, _modes, _thresholds


def planted(n, d, p, samples=800, noise=0.03, seed=0, **law):
    """Features along random directions, complete where n ≤ d."""
    rng = np.random.default_rng(seed)
    x = Features(n=n, p=p, **law).sample(samples, seed=seed).double().numpy()
    x = x @ unit(rng.standard_normal((n, d)))
    return torch.from_numpy(x + noise * x.std() * rng.standard_normal(x.shape))


def test_planted_superposition_is_found():
    found = superposition_test(planted(12, 5, 0.05, samples=600))
    assert found.present
    assert found.p_value == pytest.approx(0.05)
    assert found.gain > max(found.complete.max(), found.elliptical.max())
    assert len(found.complete) == len(found.elliptical) == 19
    assert "more features than dimensions" in found.reason


@pytest.mark.slow
def test_a_trained_model_in_superposition_is_found():
    world = Features(n=12, p=0.03)
    run = train(ToyModel(n=12, m=4), world, Training(steps=3_000, lr=3e-3), runs=4).best()
    hidden = world.sample(1_500, seed=9) @ run.W.reshape(-1, 12, 4)[0]
    assert superposition_test(hidden).present


def test_the_level_holds_for_complete_sparse_models():
    alarms = 0
    for seed in range(40):
        n, p = 2 + seed % 2, (0.05, 0.15, 0.4)[seed // 14]
        alarms += superposition_test(planted(n, 3, p, samples=300, seed=seed), seed=seed).present
    assert alarms <= stats.binom.ppf(0.999, 40, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("features", [Features, None])
def test_the_level_holds_over_many_draws(features):
    alarms = 0
    for seed in range(200):
        if features is None:
            x = Features.correlated(sets=3, size=2, p=0.15).sample(600, seed=seed).double()
            x = x @ torch.from_numpy(np.random.default_rng(seed).standard_normal((6, 6)))
        else:
            x = planted(5, 5, 0.15, samples=600, seed=seed)
        alarms += superposition_test(x, seed=seed).present
    assert alarms <= 18


@pytest.mark.slow
def test_power_where_features_are_sparse_and_many():
    found = sum(
        superposition_test(planted(15, 6, 0.05, samples=1_000, seed=seed), seed=seed).present
        for seed in range(30)
    )
    assert found >= 27


@pytest.mark.parametrize("kind", ["gaussian", "shuffled", "turned"])
def test_nothing_is_claimed_where_there_are_no_directions(kind):
    rng = np.random.default_rng(3)
    x = planted(14, 4, 0.05, seed=3).numpy()
    if kind == "gaussian":
        x = rng.multivariate_normal(x.mean(0), np.cov(x.T), len(x))
    elif kind == "shuffled":
        x = rng.permuted(x, axis=0)
    else:
        x = unit(rng.standard_normal(x.shape)) * np.linalg.norm(x, axis=1, keepdims=True)
    assert not superposition_test(torch.from_numpy(x)).present


def test_antipodal_pairs_are_counted_not_claimed():
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    x = Features(n=8, p=0.05).sample(1_000).double().numpy() @ np.concatenate([rotation, -rotation])
    found = superposition_test(torch.from_numpy(x))
    assert not found.present
    assert found.two_sided == 4
    assert "4 of 4 axes carry both signs" in found.advice[-1]
    one_sided = superposition_test(torch.from_numpy(np.abs(x @ rotation.T)))
    assert one_sided.two_sided == 0
    assert not one_sided.advice


def test_draws_end_with_the_first_that_reaches_the_gain():
    found = superposition_test(planted(3, 3, 0.2, samples=300), level=0.1, draws=29)
    assert found.p_value == pytest.approx(1 / len(found.complete))
    assert max(found.complete[-1], found.elliptical.max(initial=0.0)) >= found.gain
    assert found.complete[:-1].size == 0 or found.complete[:-1].max() < found.gain
    assert f"draw {len(found.complete)}" in found.reason


def test_scale_container_and_repetition_do_not_matter():
    x = planted(3, 3, 0.2, samples=300).float()
    found = [superposition_test(each, seed=5) for each in (x, Activations(x), 1_024 * x)]
    assert found[0].gain == found[1].gain == pytest.approx(found[2].gain)
    assert found[0].p_value == found[1].p_value == found[2].p_value


def test_dimensions_without_spread_are_left_out():
    x = planted(3, 3, 0.2, samples=300)
    found = superposition_test(torch.cat([x, x[:, :2], torch.ones(300, 1)], 1))
    assert found.d == 3
    assert "of 6 units, the samples spread in 3 dimensions" in found.advice[0]


def test_one_dimension_holds_one_line():
    found = superposition_test(planted(4, 1, 0.1, samples=200))
    assert found.p_value == 1.0
    assert not found.present


def test_few_samples_are_told():
    assert "are few" in superposition_test(planted(4, 4, 0.3, samples=120)).advice[0]


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.ones(200, 3), {}, "all samples are equal"),
        (torch.eye(20), {}, "152 are the least"),
        (torch.full((200, 3), torch.nan), {}, "NaN"),
        (torch.eye(3), {"level": 5}, "chance of a false alarm"),
        (torch.eye(3), {"draws": 18}, "draw 19 or more"),
        (torch.eye(3), {"level": 0.01}, "draw 99 or more"),
        (torch.eye(3), {"active": 0}, "at least one line"),
    ],
)
def test_input_that_cannot_be_tested(x, options, message):
    with pytest.raises(ValueError, match=message):
        superposition_test(x, **options)


def test_a_complete_draw_keeps_patterns_and_marginals():
    rng = np.random.default_rng(0)
    s = rng.standard_normal((500, 3)) * (rng.random((500, 3)) < 0.3)
    s += 0.01 * rng.standard_normal(s.shape)
    drawn, threshold = _complete(s, rng), _thresholds(s)
    on = np.abs(s) > threshold
    assert (np.sign(drawn[on]) == np.sign(s[on])).all()
    assert (drawn[~on] == s[~on]).all()
    assert (np.sort(drawn, axis=0) == np.sort(s, axis=0)).all()
    assert (drawn != s).any(0).all()


def test_an_elliptical_draw_keeps_each_distance():
    y = np.random.default_rng(0).standard_normal((400, 3)) ** 3 @ np.diag([1.0, 2.0, 5.0])
    drawn = _elliptical(y, np.random.default_rng(1))
    metric = np.linalg.inv(y.T @ y / len(y))
    before, after = (np.einsum("si,ij,sj->s", each, metric, each) for each in (y, drawn))
    assert np.allclose(before, after)


def test_the_mode_is_where_features_are_off():
    rng = np.random.default_rng(0)
    s = (rng.random((2_000, 2)) < [0.1, 0.6]) * (0.3 + rng.random((2_000, 2)))
    s += 0.01 * rng.standard_normal(s.shape) + [5.0, -2.0]
    assert np.abs(_modes(s) - [5.0, -2.0]).max() < 0.02


@pytest.mark.parametrize("active", [1, 2, 3])
def test_codes_are_least_squares_on_their_lines(active):
    rng = np.random.default_rng(active)
    x, D = rng.standard_normal((50, 5)), unit(rng.standard_normal((9, 5)))
    z = encode(x, D, active)
    for sample, code in zip(x, z, strict=True):
        (places,) = np.nonzero(code)
        assert len(places) == active
        best = np.linalg.lstsq(D[places].T, sample, rcond=None)[0]
        assert np.allclose(code[places], best)


def test_equal_lines_do_no_harm():
    x = np.random.default_rng(0).standard_normal((20, 2))
    z = encode(x, np.array([[1.0, 0.0], [1.0, 0.0]]), 2)
    assert np.allclose(z @ np.array([[1.0, 0.0], [1.0, 0.0]]), x * [1.0, 0.0])


def test_lines_that_are_there_are_found():
    rng = np.random.default_rng(0)
    D = unit(rng.standard_normal((5, 3)))
    x = Features(n=5, p=0.08).sample(1_500).double().numpy() @ D
    x = x[np.abs(x).sum(1) > 0]
    start = widen(x, D[:2], 1, 3, rng)
    assert np.array_equal(start[:2], D[:2])
    found = refine(x, start, 1)
    assert np.abs(found @ D.T).max(0).min() > 0.999
    assert distance(x, found, 1) <= distance(x, start, 1) < distance(x, D[:2], 1)
