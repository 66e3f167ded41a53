import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.theory.thomson import thomson_energy, thomson_minimum


def _icosahedron():
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, s, t * golden) for s in (-1, 1) for t in (-1, 1)]
    corners = [np.roll(corner, turn) for corner in corners for turn in range(3)]
    return torch.from_numpy(np.array(corners) / math.hypot(1, golden))


@pytest.mark.parametrize(
    ("k", "d", "energy"),
    [
        (5, 2, 10 * math.cos(math.radians(72)) ** 2),
        (6, 2, 3.0),
        (7, 3, 10 * math.cos(math.radians(72)) ** 2),
        (8, 3, 2.04383),
        (9, 3, 63 / 17),
    ],
)
def test_the_least_energies(k, d, energy):
    found = thomson_minimum(k, d, starts=8)
    assert found.energy == pytest.approx(energy, abs=5e-6)
    assert found.found == 1.0
    assert thomson_energy(torch.from_numpy(found.points)).item() == pytest.approx(found.energy)
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), 1, atol=1e-12)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 1), (4, 2), (5, 3), (6, 3), (8, 4)])
def test_up_to_two_points_a_dimension_do_not_meet(k, d):
    assert thomson_minimum(k, d, starts=4).energy == pytest.approx(0, abs=1e-12)


def test_twelve_points_do_better_than_the_icosahedron():
    assert thomson_energy(_icosahedron()).item() == pytest.approx(12)
    best = thomson_minimum(12, 3, starts=48)
    assert best.energy == pytest.approx(11.0974, abs=5e-5)
    assert best.energies[0] == best.energy
    assert all(low < high for low, high in zip(best.energies, best.energies[1:], strict=False))


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_energy_is_that_of_the_pairs_however_they_are_turned_and_numbered(k, d, seed):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.normal(size=(3, k, d)))
    pairs = sum((W[:, i] * W[:, j]).sum(-1).relu() ** 2 for i in range(k) for j in range(i))
    expected = 2 * pairs if k > 1 else torch.zeros(3).double()
    torch.testing.assert_close(thomson_energy(W), expected, atol=1e-12, rtol=1e-12)
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(d, d)))[0])
    turned = thomson_energy((W @ turn)[:, torch.from_numpy(rng.permutation(k))])
    torch.testing.assert_close(turned, expected, atol=1e-12, rtol=1e-9)


def test_no_random_points_lie_below_the_minimum():
    W = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 7, 3)))
    W = W / W.norm(dim=-1, keepdim=True)
    assert thomson_energy(W).min() > thomson_minimum(7, 3, starts=4).energy


def test_the_same_seed_gives_the_same_points():
    first, again = (thomson_minimum(6, 2, starts=2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.points, again.points)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match=r"thomson_minimum\(k=5, d=0, starts=32\)"):
        thomson_minimum(5, 0)
