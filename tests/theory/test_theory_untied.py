"""Untied models and the target |x|."""

import numpy as np
import pytest
import torch

from superpose.features import Constant, Exponential, Features, HalfNormal
from superpose.theory import expected_loss, feature_losses

WORLDS = {
    "independent": Features(n=4, p=[0.2, 0.5, 0.9, 1.0], importance=0.7),
    "correlated": Features.correlated(sets=2, size=2, p=0.3),
    "anticorrelated": Features.anticorrelated(sets=2, size=2, p=0.6, amplitude=Exponential(0.5)),
    "signed uniform": Features(n=4, p=0.4, signed=True),
    "signed exponential": Features(n=4, p=0.5, amplitude=Exponential(0.7), signed=True),
    "signed half-normal": Features.exactly_one(4, amplitude=HalfNormal(1.5), signed=True),
    "signed constant": Features.anticorrelated(
        sets=2, size=2, p=[0.3, 0.8], amplitude=Constant(0.6), signed=True
    ),
    "signed sets": Features.correlated(sets=2, size=2, p=0.4, signed=True),
}
SIGNED = [name for name in WORLDS if name.startswith("signed") and name != "signed sets"]


def _model(seed, n=4, m=3, runs=()):
    rng = np.random.default_rng(seed)
    W, W_out = torch.from_numpy(rng.normal(size=(2, *runs, n, m)) / m**0.5)
    return W, W_out, torch.from_numpy(rng.normal(size=(*runs, n)) * 0.2)


def _agrees(found, world, model, output, target, samples=100_000):
    """Within 5 standard errors of the mean over samples, feature by feature."""
    W, W_out, b = model
    x = world.sample(samples, seed=3).double()
    y = x @ W @ W_out.mT + b
    error = ((x.abs() if target == "abs" else x) - (y.relu() if output == "relu" else y)) ** 2
    spread = error.std(0) / samples**0.5
    assert ((found - error.mean(0)).abs() <= 5 * spread + 1e-4).all()


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("name", WORLDS)
def test_untied_models_agree_with_samples(name, output):
    world = WORLDS[name]
    for seed in range(3):
        W, W_out, b = _model(seed)
        found = feature_losses(W, b, world, output, W_out=W_out, tolerance=1e-5)
        _agrees(found, world, (W, W_out, b), output, "identity")


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("name", WORLDS)
def test_a_tied_model_is_an_untied_one_of_equal_matrices(name, output):
    W, _, b = _model(0, runs=(2,))
    tied = expected_loss(W, b, WORLDS[name], output, tolerance=1e-5)
    untied = expected_loss(W, b, WORLDS[name], output, W_out=W.clone(), tolerance=1e-5)
    torch.testing.assert_close(untied, tied, rtol=1e-14, atol=0)


def test_only_the_product_of_the_matrices_counts():
    W, W_out, b = _model(1)
    turn = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 3)))
    one = expected_loss(W, b, WORLDS["independent"], W_out=W_out)
    other = expected_loss(W @ turn, b, WORLDS["independent"], W_out=W_out @ turn.inverse().mT)
    assert other.item() == pytest.approx(one.item(), rel=1e-6)


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("name", SIGNED)
def test_sizes_of_signed_features_agree_with_samples(name, output):
    world = WORLDS[name]
    for seed in range(3):
        W, W_out, b = _model(seed)
        found = feature_losses(W, b, world, output, W_out=W_out, target="abs", tolerance=1e-5)
        _agrees(found, world, (W, W_out, b), output, "abs")


def test_the_size_of_one_uniform_feature_in_closed_form():
    W, b = torch.ones(1, 1), torch.zeros(1)
    found = expected_loss(W, b, Features(n=1, p=0.6, signed=True), target="abs", tolerance=1e-9)
    # Right where x is positive, 0 where it is negative.
    assert found.item() == pytest.approx(0.3 / 3, rel=1e-8)


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("name", ["independent", "correlated", "anticorrelated"])
def test_without_signs_a_feature_is_its_size(name, output):
    W, W_out, b = _model(0)
    plain = feature_losses(W, b, WORLDS[name], output, W_out=W_out)
    sizes = feature_losses(W, b, WORLDS[name], output, W_out=W_out, target="abs")
    assert torch.equal(plain, sizes)


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("target", ["identity", "abs"])
def test_a_stack_over_worlds_equals_its_members(output, target):
    worlds = [Features(n=4, p=p, signed=True, importance=0.8) for p in (0.1, 0.7)]
    W, W_out, b = _model(0, runs=(2, 3))
    found = expected_loss(W, b, worlds, output, W_out=W_out, target=target)
    assert found.shape == (2, 3)
    for w, world in enumerate(worlds):
        for r in range(3):
            alone = expected_loss(W[w, r], b[w, r], world, output, W_out=W_out[w, r], target=target)
            torch.testing.assert_close(found[w, r], alone, rtol=1e-13, atol=0)


@pytest.mark.parametrize("output", ["relu", "linear"])
def test_a_diverged_matrix_has_no_loss(output):
    W, W_out, b = _model(0, runs=(2,))
    W_out[1, 0, 0] = torch.nan
    for target in ("identity", "abs"):
        found = expected_loss(
            W, b, WORLDS["signed uniform"], output, W_out=W_out, target=target, tolerance=1e-4
        )
        assert found.isfinite().tolist() == [True, False]


def test_what_cannot_be_is_refused():
    W, W_out, b = _model(0)
    world = Features(n=4)
    with pytest.raises(ValueError, match=r"W_out \[4, 2\].*alike"):
        expected_loss(W, b, world, W_out=W_out[:, :2])
    with pytest.raises((ValueError, TypeError), match="target"):
        expected_loss(W, b, world, target="square")
    with pytest.raises(ValueError, match="estimate it on samples"):
        expected_loss(W, b, WORLDS["signed sets"], target="abs")
