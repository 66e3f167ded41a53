import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from superpose.features import Features
from superpose.theory.dictionaries import absorption_gain, hedging_angle, shrunk_code
from superpose.theory.moments import covariance, second_moments


@settings(max_examples=50, deadline=None)
@given(a=st.floats(0, 3), penalty=st.floats(0, 4))
def test_the_shrunk_code_minimises_error_and_penalty(a, penalty):
    grid = np.linspace(0, 4, 4001)
    found = shrunk_code(torch.tensor([a], dtype=torch.float64), penalty).item()
    cost = (a - grid) ** 2 + penalty * grid
    assert (a - found) ** 2 + penalty * found <= cost.min() + 1e-12
    assert found == pytest.approx(grid[cost.argmin()], abs=1e-3)


def test_shrinkage_is_half_the_penalty():
    a = torch.tensor([0.3, 0.5, 2.0])
    torch.testing.assert_close(a - shrunk_code(a, 0.4), torch.full((3,), 0.2))


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.8])
def test_absorption_leaves_no_error_and_saves_what_it_says(cosine):
    p_child = 0.3
    parent = np.array([1.0, 0.0])
    child = np.array([cosine, math.sqrt(1 - cosine**2)])
    both = parent + child
    length = np.linalg.norm(both)
    np.testing.assert_allclose(length * (both / length), both)
    saved = p_child * (2.0 - length)
    assert absorption_gain(p_child, cosine) == pytest.approx(saved)


def test_absorption_gains_nothing_between_parallel_directions():
    assert absorption_gain(0.5, 1.0) == 0
    assert absorption_gain(0.0) == 0


@settings(max_examples=60, deadline=None)
@given(first=st.floats(0.01, 1), second=st.floats(0.01, 1), share=st.floats(-0.99, 0.99))
def test_the_hedging_angle_is_the_direction_of_least_error(first, second, share):
    together = share * math.sqrt(first * second)
    moments = np.array([[first, together], [together, second]])

    def error(angle):
        d = np.array([math.cos(angle), math.sin(angle)])
        return np.trace(moments) - d @ moments @ d

    if abs(first - second) + abs(together) < 1e-6:
        return
    best = minimize_scalar(error, bounds=(-math.pi / 2, math.pi / 2), method="bounded").fun
    assert error(hedging_angle(first, second, together)) <= best + 1e-9


def test_only_unrelated_features_are_not_hedged():
    world = Features(n=2, p=[0.6, 0.2])
    central, raw = covariance(world), second_moments(world)
    assert hedging_angle(central[0, 0], central[1, 1], central[0, 1]) == 0
    assert hedging_angle(raw[0, 0], raw[1, 1], raw[0, 1]) > 0.1
    pair = covariance(Features.correlated(sets=1, size=2, p=0.3))
    assert hedging_angle(pair[0, 0], pair[1, 1], pair[0, 1]) == pytest.approx(math.pi / 4)
    apart = covariance(Features.anticorrelated(sets=1, size=2, p=0.3))
    assert hedging_angle(apart[0, 0], apart[1, 1], apart[0, 1]) == pytest.approx(-math.pi / 4)


def test_values_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"shrunk_code\(penalty=-1\)"):
        shrunk_code(torch.ones(1), -1)
    with pytest.raises(ValueError, match=r"absorption_gain\(p_child=1.5, cosine=0\)"):
        absorption_gain(1.5)
    with pytest.raises(ValueError, match="q12² is at most q1 q2"):
        hedging_angle(0.1, 0.1, 0.2)
    with pytest.raises(ValueError, match="every direction"):
        hedging_angle(0.1, 0.1, 0.0)
