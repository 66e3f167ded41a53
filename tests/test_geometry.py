"""Each polytope is known by any other rotation, order or slight noise, and nothing else is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.geometry import Factor, classify, summary


def k_gon(k):
    angle = np.arange(k) * 2 * np.pi / k
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def simplex(d):
    centred = np.eye(d + 1) - 1 / (d + 1)
    points = centred @ np.linalg.svd(centred)[0][:, :d]
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def antiprism(z2):
    ring = np.sqrt(1 - z2) * k_gon(8)
    z = np.sqrt(z2) * np.array([1.0, -1.0] * 4)
    return np.column_stack([ring, z])


def icosahedron():
    """One vertex on top, a ring of five below it, and the same upside down."""
    cap = np.column_stack([k_gon(5) * 2 / 5**0.5, np.full(5, 1 / 5**0.5)])
    half = np.concatenate([[[0.0, 0.0, 1.0]], cap])
    return np.concatenate([half, -half])


def cube():
    return np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / 3**0.5


DEDICATED, DIGON = np.ones((1, 1)), np.array([[1.0], [-1.0]])

SHAPES = {
    "dedicated": DEDICATED,
    "digon": DIGON,
    "triangle": k_gon(3),
    "pentagon": k_gon(5),
    "hexagon": k_gon(6),
    "7-gon": k_gon(7),
    "8-gon": k_gon(8),
    "tetrahedron": simplex(3),
    "5-cell": simplex(4),
    "6-simplex": simplex(6),
    "square antiprism": antiprism(0.3084),
    "cube": cube(),
    "icosahedron": icosahedron(),
}


def union(*parts):
    """Parts in dimensions of their own."""
    n, m = np.sum([part.shape for part in parts], axis=0)
    W, row, column = np.zeros((n, m)), 0, 0
    for part in parts:
        k, d = part.shape
        W[row : row + k, column : column + d] = part
        row, column = row + k, column + d
    return W


def disguise(W, seed, noise=0.02):
    """Rotated in two spare dimensions, relabelled, rescaled row by row, and noisy."""
    rng = np.random.default_rng(seed)
    W = np.pad(W, ((0, 0), (0, 2)))
    W = W @ np.linalg.qr(rng.normal(size=(W.shape[1],) * 2))[0]
    W = W * rng.uniform(0.8, 1.2, (len(W), 1)) + noise * rng.normal(size=W.shape)
    return torch.from_numpy(rng.permutation(W))


@pytest.mark.parametrize("label", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_each_shape_is_known_in_disguise(label, seed):
    shape = SHAPES[label]
    (factor,) = classify(disguise(shape, seed))
    assert factor.label == label
    assert factor.features == tuple(range(len(shape)))
    assert factor.dim == shape.shape[1]
    assert factor.error < 0.06


@pytest.mark.parametrize("label", SHAPES)
def test_a_perfect_shape_has_no_error_and_shares_its_dimensions_fully(label):
    (factor,) = classify(torch.from_numpy(SHAPES[label]))
    # The antiprism is fitted from a grid of heights, and is tight at one height only.
    assert factor.error == pytest.approx(0, abs=3e-3)
    assert factor.dimensionality * len(factor.features) == pytest.approx(factor.dim, abs=0.02)


@pytest.mark.parametrize("z2", [0.3084, 0.3141, 1 / 3])
def test_square_antiprisms_of_every_useful_height_are_known(z2):
    (factor,) = classify(torch.from_numpy(antiprism(z2)))
    assert factor.label == "square antiprism"
    expected = 1 / (4 * (1 - z2) ** 2 + 8 * z2**2)
    assert factor.dimensionality == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "parts", "expected"),
    [
        ("square", [DIGON] * 2, "2 digons"),
        ("octahedron", [DIGON] * 3, "3 digons"),
        ("triangular bipyramid", [k_gon(3), DIGON], "1 triangle + 1 digon"),
        ("pentagonal bipyramid", [k_gon(5), DIGON], "1 digon + 1 pentagon"),
        ("two triangles", [k_gon(3)] * 2, "2 triangles"),
        ("two solids", [simplex(3)] * 2, "2 tetrahedra"),
        (
            "mixture",
            [simplex(4), DIGON, DEDICATED, DEDICATED],
            "2 dedicated + 1 × 5-cell + 1 digon",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("seed", range(3))
def test_unions_fall_into_their_factors(name, parts, expected, seed):
    factors = classify(disguise(union(*parts), seed))
    assert summary(factors) == expected
    assert sum(factor.dim for factor in factors) == sum(part.shape[1] for part in parts)


def test_a_square_drawn_in_the_plane_is_two_digons():
    assert summary(classify(torch.from_numpy(k_gon(4)))) == "2 digons"


@given(
    picks=st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_every_feature_is_in_exactly_one_factor_and_names_survive_relabelling(picks, seed):
    W = union(*(SHAPES[pick] for pick in picks))
    factors = classify(disguise(W, seed, noise=0.005))
    assert sorted(i for factor in factors for i in factor.features) == list(range(len(W)))
    assert sorted(factor.label for factor in factors) == sorted(picks)
    assert [f.features[0] for f in factors] == sorted(f.features[0] for f in factors)


@pytest.mark.parametrize("seed", range(10))
def test_a_random_frame_is_not_a_polytope(seed):
    W = torch.randn(20, 5, generator=torch.Generator().manual_seed(seed))
    assert all(f.label.startswith("irregular") for f in classify(W) if len(f.features) > 2)


def test_three_random_directions_in_a_plane_are_rarely_called_a_triangle():
    W = torch.randn(400, 3, 2, generator=torch.Generator().manual_seed(0))
    W = W / W.norm(dim=-1, keepdim=True)
    named = sum(f.label == "triangle" for member in classify(W) for f in member)
    assert named < 4


def test_ignored_features_are_left_out():
    W = union(k_gon(5), DEDICATED)
    W = np.insert(W, [0, 3], 0.2, axis=0)
    factors = classify(torch.from_numpy(W))
    assert summary(factors) == "1 dedicated + 1 pentagon"
    assert factors[0].features == (1, 2, 3, 5, 6)


def test_an_empty_model_has_no_factors():
    assert classify(torch.zeros(4, 2)) == []
    assert summary([]) == "nothing represented"


def test_a_diverged_model_does_not_look_like_an_empty_one():
    W = torch.stack([torch.full((4, 2), torch.nan), torch.eye(4, 2)])
    assert [summary(factors) for factors in classify(W)] == ["1 diverged", "2 dedicated"]


def test_two_features_along_one_direction_are_not_a_digon():
    (factor,) = classify(torch.tensor([[1.0, 0.02], [1.0, 0.0]]))
    assert factor.label == "collapsed pair"
    assert factor.dimensionality == pytest.approx(0.5, abs=0.01)


def test_a_pair_that_is_neither_opposite_nor_orthogonal_is_irregular():
    (factor,) = classify(torch.tensor([[1.0, 0.0], [-0.5, 0.8]]))
    assert (factor.label, factor.error) == ("irregular 2 in 2", np.inf)


def test_a_stretched_pentagon_keeps_its_distance_from_the_regular_one():
    stretched = k_gon(5) * [1.0, 0.7]
    (factor,) = classify(torch.from_numpy(stretched))
    assert factor.label == "irregular 5 in 2"
    assert 0.08 < factor.error < 0.3


def test_a_stack_is_its_members():
    W = torch.randn(2, 3, 6, 2, generator=torch.Generator().manual_seed(0))
    stacked = classify(W)
    assert stacked == [[classify(member) for member in row] for row in W]


def test_the_summary_does_not_depend_on_order():
    a, b = Factor("digon", (0, 1), 1, 0.5, 0.0), Factor("triangle", (2, 3, 4), 2, 0.67, 0.0)
    assert summary([a, b, b]) == summary([b, a, b]) == "2 triangles + 1 digon"
