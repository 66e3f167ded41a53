"""Finite worlds: what theory says of a data set, and what it refuses to say."""

import numpy as np
import pytest
import torch

from superpose.features import Features
from superpose.theory import (
    active_probability,
    covariance,
    expected_loss,
    feature_losses,
    linear_feature_losses,
    linear_minimum,
    linear_optimal_bias,
    loss_and_gradient,
    loss_by_active,
    mean,
    optimum,
    points,
    second_moments,
    shared_dimension,
)
from superpose.theory.moments import mean_size

X = Features(n=6, p=0.4, signed=True).sample(50, seed=1)
X[:, 4] = 0.0
WORLD = Features.finite(X, importance=0.7)


def _model(runs=(), seed=0):
    rng = np.random.default_rng(seed)
    W, W_out = torch.from_numpy(rng.normal(size=(2, *runs, 6, 2)))
    return W, W_out, torch.from_numpy(rng.normal(size=(*runs, 6)) * 0.2)


def test_moments_are_means_over_the_points():
    x = X.double().numpy()
    np.testing.assert_allclose(mean(WORLD), x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(mean_size(WORLD), np.abs(x).mean(0), rtol=1e-14)
    np.testing.assert_allclose(second_moments(WORLD), x.T @ x / 50, rtol=1e-13, atol=1e-17)
    np.testing.assert_allclose(covariance(WORLD), np.cov(x.T, bias=True), rtol=1e-12, atol=1e-16)
    shares = np.bincount((x != 0).sum(1), minlength=7) / 50
    np.testing.assert_allclose(active_probability(WORLD), shares)


@pytest.mark.parametrize("target", ["identity", "abs"])
@pytest.mark.parametrize("output", ["relu", "linear"])
def test_the_loss_is_the_mean_over_the_points(output, target):
    W, W_out, b = _model(runs=(2, 3))
    x = X.double()
    for out_of in (W, W_out):
        y = x @ W @ out_of.mT + b.unsqueeze(-2)
        goal = x.abs() if target == "abs" else x
        error = ((goal - (y.relu() if output == "relu" else y)) ** 2).mean(-2)
        given = None if out_of is W else out_of
        found = feature_losses(W, b, WORLD, output, W_out=given, target=target)
        torch.testing.assert_close(found, error, rtol=1e-13, atol=1e-15)
        whole = expected_loss(W, b, WORLD, output, W_out=given, target=target)
        weighted = (error * torch.from_numpy(WORLD.importances)).sum(-1)
        torch.testing.assert_close(whole, weighted, rtol=1e-13, atol=1e-15)


def test_how_many_points_are_held_at_a_time_changes_rounding_only(monkeypatch):
    W, _, b = _model()
    whole = expected_loss(W, b, WORLD).item()
    monkeypatch.setattr(points, "_ENTRIES", 40)
    assert expected_loss(W, b, WORLD).item() == pytest.approx(whole, rel=1e-14)


def test_worlds_of_a_stack_have_points_of_their_own():
    worlds = [WORLD, Features.finite(X[:7]), Features.finite(X[:1])]
    W, _, b = _model(runs=(3,))
    found = expected_loss(W, b, worlds)
    for k, world in enumerate(worlds):
        assert found[k] == expected_loss(W[k], b[k], world)
    with pytest.raises(ValueError, match="differ in n, law"):
        expected_loss(W, b, [WORLD, WORLD, Features(n=6)])


def test_the_linear_model_in_closed_form():
    W, W_out, b = _model()
    plain = linear_feature_losses(W, b, WORLD, W_out=W_out)
    torch.testing.assert_close(plain, feature_losses(W, b, WORLD, "linear", W_out=W_out))
    best = linear_optimal_bias(W, WORLD)
    assert expected_loss(W, best, WORLD, "linear") < expected_loss(W, b, WORLD, "linear")
    loss, _, slope_b = loss_and_gradient(W, best, WORLD, "linear")
    assert loss == expected_loss(W, best, WORLD, "linear")
    assert slope_b.abs().max() < 1e-12
    alike = Features.finite(X)
    singular = np.linalg.svd(X.double().numpy() - mean(alike), compute_uv=False)
    assert linear_minimum(alike, 2) == pytest.approx((singular[2:] ** 2).sum() / 50)


def test_a_diverged_model_has_no_loss_even_where_no_point_sees_it():
    W, _, b = (each.clone() for each in _model(runs=(4,)))
    W_out = W.clone()
    W[1, 4, 0] = torch.nan
    b[2, 0] = torch.inf
    W[3] = 1e200
    found = expected_loss(W, b, WORLD, W_out=W_out)
    assert found.isfinite().tolist() == [True, False, False, False]
    assert found[1:].isnan().all()


def test_what_needs_a_law_is_refused():
    W, _, b = _model()
    with pytest.raises(ValueError, match=r"loss_and_gradient.*data set.*differentiate"):
        loss_and_gradient(W, b, WORLD)
    with pytest.raises(ValueError, match=r"loss_by_active.*data set"):
        loss_by_active(W, b, WORLD)
    with pytest.raises(ValueError, match=r"shared_dimension.*data set"):
        shared_dimension(WORLD)
    with pytest.raises(ValueError, match=r"optimum.*train on its points"):
        optimum(WORLD, m=2)
