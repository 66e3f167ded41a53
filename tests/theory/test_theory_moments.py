import numpy as np
import pytest

from superpose.features import Constant, Exponential, Features, HalfNormal
from superpose.theory import covariance, mean, second_moments

WORLDS = [
    Features(n=1, p=0.3),
    Features(n=4, p=[0.1, 0.5, 0.9, 1.0]),
    Features.correlated(sets=2, size=3, p=[0.2, 0.7]),
    Features.anticorrelated(sets=2, size=3, p=[0.2, 1.0]),
    Features.exactly_one(n=5),
    Features(n=3, p=0.4, amplitude=Exponential(0.6)),
    Features.correlated(sets=2, size=2, p=0.5, amplitude=HalfNormal(1.5)),
    Features.anticorrelated(sets=2, size=2, p=0.5, amplitude=Constant(2.0)),
    Features.correlated(sets=2, size=2, p=0.5, amplitude=HalfNormal(0.5), signed=True),
]


def _name(world):
    return f"{type(world.law).__name__} {type(world.amplitude).__name__} {world.signed}"


@pytest.mark.parametrize("world", WORLDS, ids=_name)
def test_moments_agree_with_samples(world):
    x = world.sample(200_000, seed=3).double().numpy()
    products = x[:, :, None] * x[:, None, :]
    for exact, drawn in ((mean(world), x), (second_moments(world), products)):
        error = drawn.std(0) / np.sqrt(len(x))
        assert np.all(np.abs(drawn.mean(0) - exact) <= 4.5 * error + 1e-12)


@pytest.mark.parametrize("world", WORLDS, ids=_name)
def test_covariance_is_symmetric_and_has_no_negative_eigenvalue(world):
    sigma = covariance(world)
    np.testing.assert_array_equal(sigma, sigma.T)
    assert np.linalg.eigvalsh(sigma).min() > -1e-15


def test_variance_and_covariances_by_the_formulas():
    p, k = 0.6, 3
    independent = covariance(Features(n=2, p=p))
    np.testing.assert_allclose(independent, np.eye(2) * (p / 3 - p**2 / 4), atol=1e-16)
    together = covariance(Features.correlated(sets=1, size=k, p=p))
    assert together[0, 1] == pytest.approx(p / 4 - p**2 / 4)
    apart = covariance(Features.anticorrelated(sets=1, size=k, p=p))
    assert apart[0, 1] == pytest.approx(-(p**2) / (4 * k**2))


def test_sets_of_one_are_independent_features():
    p = [0.2, 0.9]
    plain = second_moments(Features(n=2, p=p))
    np.testing.assert_array_equal(second_moments(Features.correlated(sets=2, size=1, p=p)), plain)
    np.testing.assert_array_equal(
        second_moments(Features.anticorrelated(sets=2, size=1, p=p)), plain
    )


def test_signed_features_are_uncorrelated_and_keep_their_squares():
    for law in (Exponential(0.6), HalfNormal(1.5), Constant(2.0)):
        plain = Features.correlated(sets=2, size=2, p=0.5, amplitude=law)
        signed = Features.correlated(sets=2, size=2, p=0.5, amplitude=law, signed=True)
        assert not mean(signed).any()
        np.testing.assert_array_equal(covariance(signed), np.diag(np.diag(second_moments(plain))))
