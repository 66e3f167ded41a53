"""Laws of shrinkage: what an L1 penalty takes away is known in closed form."""

import numpy as np
import pytest
import torch

from superpose.unmix import L1, SAE, match, soft_threshold


def soft(coefficient, d=6):
    """The best tied encoder of an orthonormal dictionary under that penalty."""
    b_enc = torch.full((1, d), -coefficient / 2)
    W = torch.eye(d)[None]
    return SAE(W, b_enc, W, torch.zeros(1, d), L1(d_sae=d, coefficient=coefficient))


def draw(samples=20_000, d=6, p=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor((rng.random((samples, d)) < p) * rng.random((samples, d))).float()


@pytest.mark.parametrize("coefficient", [0.0, 0.2, 0.6])
def test_shrinkage_of_the_l1_optimum_is_the_closed_form(coefficient):
    f = draw()
    t = coefficient / 2
    found = match(soft(coefficient), torch.eye(6), f, f)
    # E[(a - t)_+ a] / E[a²] for a uniform on [0, 1].
    assert found.shrinkage[0] == pytest.approx(1 - 1.5 * t + 0.5 * t**3, abs=0.01)
    np.testing.assert_allclose(found.features["gain"], 1.0, atol=1e-4)
    np.testing.assert_allclose(found.features["offset"], -t, atol=1e-5)


def test_the_closed_form_minimises_its_loss():
    a, coefficient = np.linspace(0, 1, 11), 0.3
    grid = np.linspace(0, 1, 10_001)
    loss = (a[:, None] - grid) ** 2 + coefficient * np.abs(grid)
    np.testing.assert_allclose(soft_threshold(a, coefficient), grid[loss.argmin(1)], atol=1e-4)


def test_shrinkage_is_measured_in_lengths_so_long_directions_change_nothing():
    f = draw(samples=500)
    W = 3.0 * torch.eye(6)
    plain = match(soft(0.0), torch.eye(6), f, f).shrinkage
    np.testing.assert_allclose(match(soft(0.0), W, f @ W, f).shrinkage, plain, rtol=1e-5)
    np.testing.assert_allclose(plain, 1.0, rtol=1e-5)


def test_scaled_latents_have_that_slope():
    f = draw(samples=500)
    sae = soft(0.0)
    scaled = SAE(0.5 * sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.code)
    found = match(scaled, torch.eye(6), f, f)
    np.testing.assert_allclose(found.shrinkage, 0.5, rtol=1e-5)
    np.testing.assert_allclose(found.features["gain"], 0.5, rtol=1e-4)


def test_features_of_one_amplitude_have_a_slope_and_no_line():
    f = (draw(samples=500) > 0.5).float()
    found = match(soft(0.2), torch.eye(6), f, f)
    np.testing.assert_allclose(found.shrinkage, 0.9, rtol=1e-5)
    assert np.isnan(found.features["gain"]).all()
