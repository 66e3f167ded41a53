"""Samples are sums of directions; directions overlap as they are asked to."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import WORLDS

from superpose.engine import train
from superpose.engine.training import Training
from superpose.features import Features
from superpose.models import ToyModel, ToyNetwork
from superpose.truth import (
    Circles,
    Firing,
    Folded,
    LowRank,
    Mixture,
    Together,
    coherence,
    equiangular,
    orthogonalised,
    random_directions,
    zipf,
)
from superpose.unmix import match, neurons


@pytest.mark.parametrize("features", WORLDS.values(), ids=WORLDS.keys())
def test_samples_are_sums_of_directions_and_the_bias(features):
    W, bias = random_directions(features.n, 3), torch.tensor([1.0, 0.0, -2.0])
    drawn = Mixture(features, W, bias).draw(400, 1, 2)
    assert torch.allclose(drawn.x, drawn.f() @ W + bias, atol=1e-4)


def test_noise_is_normal_and_apart_from_the_features():
    features, W = Features(n=5, p=0.3), random_directions(5, 4)
    silent, noisy = (Mixture(features, W, noise=s).draw(20_000, 0, 0) for s in (0.0, 0.5))
    assert np.array_equal(silent.index, noisy.index)
    noise = (noisy.x - silent.x).double()
    assert noise.mean().abs() < 5 * 0.5 / 80_000**0.5
    assert (noise**2).mean().item() == pytest.approx(0.25, abs=5 * 0.25 * (2 / 80_000) ** 0.5)
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 5 / 20_000**0.5


def test_probabilities_fall_from_the_largest_to_the_smallest():
    p = zipf(100, exponent=0.5, p_max=0.4, p_min=5e-4)
    assert (p[0], p[-1]) == pytest.approx((0.4, 5e-4))
    assert (np.diff(p) < 0).all()
    # Moved and stretched it is a power law.
    rank = np.arange(1, 101.0) ** -0.5
    assert np.corrcoef(p, rank)[0, 1] == pytest.approx(1.0)
    assert zipf(1, p_max=0.4).tolist() == [0.4]


TRAINED = train(
    ToyModel(n=6, m=3), Features(n=6, p=0.2, importance=0.5), Training(steps=300), runs=2
)


def test_the_hidden_layer_of_a_trained_model_is_a_mixture():
    best = TRAINED.best()
    world = Mixture.of(best, threshold=0.0)
    drawn = world.draw(300, 0, 0)
    assert torch.allclose(drawn.x, best.module(0).encoder(drawn.f()), atol=1e-5)
    assert torch.equal(world.directions, best.W[0])


def test_features_that_are_not_represented_are_in_the_samples_and_not_in_the_truth():
    W = torch.tensor([[1.0, 0.0], [0.2, 0.1], [0.0, 0.8]])
    toy, features = (
        ToyNetwork(ToyModel(n=3, m=2), W, torch.zeros(3)),
        Features(n=3, p=(0.3, 0.6, 0.5)),
    )
    everything, kept = Mixture.of(toy, features, threshold=0.0), Mixture.of(toy, features)
    one, other = everything.draw(300, 0, 0), kept.draw(300, 0, 0)
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.f()[:, [0, 2]], other.f())
    assert torch.equal(kept.directions, W[[0, 2]])
    assert kept.n == other.n == 2
    assert kept.probability.tolist() == [0.3, 0.5]
    assert kept.rays().feature.tolist() == [0, 1]
    assert torch.equal(kept.rays().directions, kept.directions)


def test_untied_models_write_with_the_weights_into_the_hidden_layer():
    model = ToyModel(n=3, m=2, tied=False)
    toy = ToyNetwork(model, *model.initial(0, 0))
    assert torch.equal(Mixture.of(toy, Features(n=3), threshold=0.0).directions, toy.W_in)


@pytest.mark.parametrize(
    ("build", "law"),
    [
        (lambda: Mixture.of(TRAINED), "a stack of"),
        (lambda: Mixture.of(TRAINED.best(), threshold=9.0), "none is kept"),
        (
            lambda: Mixture.of(ToyNetwork(ToyModel(n=1, m=1), torch.ones(1, 1), torch.ones(1))),
            "pass",
        ),
        (
            lambda: Mixture.of(
                ToyNetwork(ToyModel(n=1, m=1, hidden="relu"), torch.ones(1, 1), torch.ones(1)),
                Features(n=1),
            ),
            "no sum of directions",
        ),
        (lambda: Mixture(Features(n=3), torch.ones(2, 2)), r"shape \[2, 2\] for 3 features"),
        (lambda: Mixture(Features(n=2), torch.ones(2, 2), np.ones(3)), r"bias of shape \[3\]"),
        (lambda: Mixture(Features(n=2), torch.ones(2, 2), noise=-1.0), "noise at least 0"),
        (lambda: Mixture(Features(n=2), torch.full((2, 2), torch.nan)), "are finite"),
        (lambda: Mixture(Features(n=2), torch.eye(2)).draw(0, 0, 0), "batch=0"),
        (lambda: Mixture(Features(n=2), torch.eye(2)).draw(1, -1, 0), "number=-1"),
        (lambda: Mixture(Features(n=2), torch.eye(2)).draw(1, 0, 2**64), "seed="),
        (lambda: Firing(p=1.5), r"in \[0, 1\]"),
        (lambda: Firing(p=[0.5, 0.5], n=3), "one number, or n"),
        (lambda: Firing(n=3, p=0.5, amplitude=Folded([1.0, 2.0])), "magnitudes for 2"),
        (lambda: Firing(n=3, p=0.5, correlation=LowRank([[0.5]])), "factor with 1 rows"),
        (lambda: LowRank([[0.8, 0.6]]), "nothing of the feature's own"),
        (lambda: LowRank.random(3, rank=0, scale=0.1), "at least 1"),
        (lambda: Folded(-1.0, 1.0), "a lower probability"),
        (lambda: Circles(count=0), "at least one"),
        (lambda: Together(), "at least one world"),
        (lambda: zipf(3, p_min=0.5), "p_min <= p_max"),
        (lambda: random_directions(0, 2), "at least 1"),
        (lambda: orthogonalised(torch.eye(2), steps=-1), "steps from 0 on"),
        (lambda: equiangular(3, 2, cosine=0.1), "d is at least n"),
        (lambda: equiangular(3, 3, cosine=-0.6), "the cosine lies in"),
        (lambda: coherence(torch.ones(1, 2)), "at least two"),
    ],
)
def test_what_is_no_world_is_refused(build, law):
    with pytest.raises(ValueError, match=law):
        build()


def test_rays_are_what_a_dictionary_of_rays_can_find():
    parts = Together(Features(n=2, signed=True), Circles(count=1), Firing(n=1, p=0.1))
    W = random_directions(5, 4)
    found = Mixture(parts, W).rays(angles=4)
    turned = torch.stack([W[2], W[3], -W[2], -W[3]])
    expected = torch.cat([W[:2], -W[:2], turned, W[4:]])
    assert torch.allclose(found.directions, expected, atol=1e-6)
    assert found.feature.tolist() == [0, 1, 0, 1, 2, 2, 2, 2, 4]


def test_of_the_rays_of_a_feature_the_nearest_is_active():
    parts = Together(Features(n=2, p=0.5, signed=True), Circles(count=2, p=0.5), Firing(n=1, p=0.4))
    world = Mixture(parts, random_directions(7, 5))
    held_out, rays = world.sample(300), world.rays(angles=5)
    found = rays.activity(held_out)
    f = held_out.f().numpy()
    along = np.stack(
        [
            f[:, i] * c + f[:, min(i + 1, 6)] * s
            for i, (c, s) in zip(rays.feature, rays.part, strict=True)
        ],
        1,
    )
    expected = np.zeros_like(along)
    for feature in set(rays.feature.tolist()):
        own = np.flatnonzero(rays.feature == feature)
        best = own[along[:, own].argmax(1)]
        expected[np.arange(300), best] = along[np.arange(300), best].clip(0)
    np.testing.assert_allclose(found.f().numpy(), expected, atol=1e-6)
    assert found.n == len(rays.directions) == 4 + 2 * 5 + 1
    assert all((np.diff(found.index[a:b]) > 0).all() for a, b in pairwise(found.indptr))
    assert torch.equal(found.x, held_out.x)


def test_who_knows_the_rays_of_signed_features_misses_nothing():
    world = Mixture(Features(n=3, p=0.3, signed=True), torch.eye(3))
    held_out, rays = world.sample(500), world.rays()
    scores = match(neurons(3), rays.directions, held_out.x, rays.activity(held_out))
    assert scores.recall == scores.firing_f1 == 1.0
    assert scores.mcc_activation == pytest.approx(1.0)
    assert scores.shrinkage == pytest.approx(1.0)


@given(
    n=st.integers(2, 6),
    share=st.floats(0.0, 0.99),
    spare=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_equiangular_directions_have_one_cosine(n, share, spare, seed):
    lowest = -1.0 / (n - 1)
    cosine = lowest + share * (1.0 - lowest)
    W = equiangular(n, n + spare, cosine, seed)
    expected = torch.full((n, n), cosine).fill_diagonal_(1.0)
    assert torch.allclose(W @ W.T, expected, atol=1e-5)


def test_a_simplex_fits_one_dimension_less():
    W = equiangular(4, 3, cosine=-1 / 3)
    assert torch.allclose(W @ W.T, torch.full((4, 4), -1 / 3).fill_diagonal_(1.0), atol=1e-5)


def test_pushing_apart_follows_the_gradient_of_all_pairs():
    start = random_directions(12, 5, seed=1)
    W = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([W], lr=0.02)
    for _ in range(5):
        optimiser.zero_grad()
        dots = W @ W.T
        own = dots.diagonal()
        loss = (dots**2).sum() - (own**2).sum() + len(W) * ((own - 1) ** 2).sum()
        loss.backward()
        optimiser.step()
    expected = torch.nn.functional.normalize(W.detach(), dim=1)
    assert torch.allclose(orthogonalised(start, steps=5, lr=0.02), expected, atol=1e-5)
    assert torch.allclose(orthogonalised(start, steps=0), start)


def test_coherence_is_that_of_all_pairs():
    W = random_directions(1_100, 6) * 3.0
    cosine = torch.corrcoef(torch.cat([W, -W], 1)).abs().double()  # rows of mean 0: cosines
    off = cosine[~torch.eye(1_100, dtype=torch.bool)].reshape(1_100, 1_099)
    found = coherence(W)
    assert found.mean_max == pytest.approx(off.max(1).values.mean().item(), abs=1e-6)
    assert found.largest == pytest.approx(off.max().item(), abs=1e-6)
    assert found.rms == pytest.approx((off**2).mean().sqrt().item(), rel=1e-5)
    # Of random directions the mean square cosine is 1 / d.
    assert found.rms == pytest.approx(6**-0.5, rel=0.01)
