"""Scores on samples held out: one definition over the whole set, in chunks or at once."""

import sys

import numpy as np
import pytest
import torch

import superpose as sp

generator = torch.Generator().manual_seed(0)
X = torch.randn(300, 5, generator=generator)


def stack(runs=3, d_out=5):
    weights = [
        torch.randn(runs, *shape, generator=generator) for shape in ((5, 9), (9,), (9, d_out))
    ]
    bias = torch.randn(runs, d_out, generator=generator)
    return sp.SAE(*weights, bias, sp.TopK(d_sae=9, k=2), subtract=d_out == 5)


def test_scores_are_their_definitions_for_every_member():
    sae = stack()
    found = sp.unmix.reconstruction(sae, X)
    for run, one in enumerate(sae):
        z = one.encode(X)
        explained = sp.measures.explained_variance(X, one.decode(z))
        assert found.explained_variance[run] == pytest.approx(explained, abs=1e-6)
        assert found.l0[run] == pytest.approx((z > 0).sum(1).double().mean().item())
        assert found.dead[run] == pytest.approx((z == 0).all(0).double().mean().item())
        alone = sp.unmix.reconstruction(one, X)
        assert alone.explained_variance == pytest.approx(found.explained_variance[run : run + 1])
    assert found.samples == 300
    assert found.table().num_rows == 3
    interval = found.interval("explained_variance")
    assert interval.low < found.explained_variance.mean() < interval.high


def test_chunks_change_nothing(monkeypatch):
    sae, target = stack(d_out=2), X[:, :2] ** 2
    whole = sp.unmix.reconstruction(sae, X, target)
    monkeypatch.setattr(sys.modules[sp.unmix.reconstruction.__module__], "_CHUNK", 7 * 27)
    parts = sp.unmix.reconstruction(sae, X, target)
    for name in ("explained_variance", "l0", "dead"):
        assert np.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-6)


def test_a_dictionary_that_is_the_truth_explains_all_and_the_mean_nothing():
    eye, none = torch.eye(5), torch.zeros(5)
    exact = sp.SAE(eye, none, eye, none, sp.TopK(d_sae=5, k=5))
    found = sp.unmix.reconstruction(exact, X.abs())
    assert found.explained_variance == pytest.approx(1.0)
    assert (found.l0, found.dead) == (5.0, 0.0)
    mean = sp.SAE(0 * eye, none, eye, X.mean(0), sp.TopK(d_sae=5, k=5))
    found = sp.unmix.reconstruction(mean, X)
    assert found.explained_variance == pytest.approx(0.0, abs=1e-6)
    assert (found.l0, found.dead) == (0.0, 1.0)


def test_equal_samples_and_unknown_scores_are_refused():
    with pytest.raises(ValueError, match="no variance to explain"):
        sp.unmix.reconstruction(stack(), torch.ones(4, 5))
    with pytest.raises(ValueError, match="explained_variance, l0 or dead"):
        sp.unmix.reconstruction(stack(), X).interval("loss")
