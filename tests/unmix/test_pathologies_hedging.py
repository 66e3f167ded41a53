import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.pathologies import hedging
from superpose.truth import Mixture


@pytest.fixture(scope="module")
def measured():
    rows = over_seeds(hedging.hedging(seeds=4), ["copula"]).to_pylist()
    return {(row["copula"], row["quantity"]): row for row in rows}


@pytest.mark.parametrize("copula", hedging.COPULAS)
def test_one_latent_lies_along_the_leading_axis(measured, copula):
    angle, theory = measured[copula, "angle"], measured[copula, "theory"]["estimate"]
    assert angle["low"] <= theory <= angle["high"]
    assert angle["estimate"] == pytest.approx(theory, abs=1.0)


def test_it_turns_with_the_sign_of_the_correlation_and_not_without(measured):
    together, alone, against = (measured[copula, "angle"] for copula in hedging.COPULAS)
    assert together["low"] > 10
    assert against["high"] < -10
    assert alone["low"] < 0 < alone["high"]


@given(st.floats(0.1, 2), st.floats(0.1, 2), st.floats(-0.99, 0.99))
def test_the_angle_is_that_of_the_leading_eigenvector(c1, c2, correlation):
    c12 = correlation * (c1 * c2) ** 0.5
    matrix = np.array([[c1, c12], [c12, c2]])
    largest = np.linalg.eigvalsh(matrix)[1]
    turn = np.radians(hedging.angle(c1, c2, c12))
    along = np.array([np.cos(turn), np.sin(turn)])
    assert along @ matrix @ along == pytest.approx(largest)


@pytest.mark.parametrize("copula", hedging.COPULAS)
def test_covariances_are_those_of_samples(copula):
    f = Mixture(hedging.firing(copula), np.eye(2, dtype=np.float32)).sample(200_000).f().numpy()
    assert np.cov(f.T)[0, 1] == pytest.approx(hedging.covariance(copula), abs=0.003)


@pytest.mark.slow
def test_a_narrow_dictionary_mixes_in_what_correlates():
    rows = over_seeds(hedging.narrow(seeds=5), ["correlated"]).to_pylist()
    found = {(row["correlated"], row["quantity"]): row for row in rows}
    assert found[True, "mixed"]["low"] > found[False, "mixed"]["high"]
    assert found[True, "agreement"]["low"] > 0.3
