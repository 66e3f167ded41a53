import numpy as np
import pytest

from superpose.theory.descent import descend


def rosenbrock(x):
    a, b = x[:, :-1], x[:, 1:]
    value = (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum(-1)
    gradient = np.zeros_like(x)
    gradient[:, :-1] += -400 * a * (b - a**2) - 2 * (1 - a)
    gradient[:, 1:] += 200 * (b - a**2)
    return value, gradient


def ridge(x):
    """A convex function whose second derivative jumps, as that of a ReLU's loss does."""
    on = np.maximum(x, 0)
    return (on**2 + 0.1 * (x - 1) ** 2).sum(-1), 2 * on + 0.2 * (x - 1)


@pytest.mark.parametrize("size", [2, 5])
def test_reaches_the_minimum_of_a_curved_valley(size):
    start = np.random.default_rng(size).normal(size=(6, size))
    end = descend(rosenbrock, start, slope=1e-8, progress=0.0)
    low = end.value < 1e-12  # from 4 dimensions on there is a second, higher minimum
    assert low.sum() >= 3
    assert np.allclose(end.x[low], 1.0, atol=1e-6)
    # A gain is seen down to the rounding of the value, hence a slope to about its square root.
    assert np.all(end.slope <= 1e-6)


def test_passes_where_the_curvature_jumps():
    end = descend(ridge, np.array([[-3.0], [0.5], [4.0]]), slope=1e-10, progress=0.0)
    assert np.allclose(end.x, 0.2 / 2.2)


def test_a_stack_equals_its_members():
    start = np.random.default_rng(0).normal(size=(5, 4))
    stack = descend(rosenbrock, start, slope=1e-9, progress=0.0)
    for k in range(5):
        alone = descend(rosenbrock, start[k : k + 1], slope=1e-9, progress=0.0)
        assert np.array_equal(alone.x[0], stack.x[k])


def test_never_ends_above_its_start_and_leaves_it_alone():
    start = np.random.default_rng(1).normal(size=(8, 3))
    before = start.copy()
    for steps in (0, 1, 3):
        end = descend(rosenbrock, start, slope=0.0, progress=0.0, steps=steps)
        assert np.all(end.value <= rosenbrock(before)[0])
    assert np.array_equal(start, before)


def test_ends_where_the_gradient_is_already_zero():
    start = np.ones((1, 3))
    assert np.array_equal(descend(rosenbrock, start, slope=1e-9, progress=0.0).x, start)
