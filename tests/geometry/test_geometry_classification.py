"""Each polytope is known by any other rotation, order or slight noise, and nothing else is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose import dimensionality
from superpose.geometry import Factor, classify, noise_overlap, polytope, shapes, summary, tolerance


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


def tricapped_prism():
    """A triangular prism with a cap over each of its three sides."""
    edges, caps = k_gon(6)[::2], k_gon(6)[1::2]
    radius, z = 0.7276, np.sqrt(1 - 0.7276**2)
    top, bottom = (np.column_stack([radius * edges, np.full(3, height)]) for height in (z, -z))
    return np.concatenate([top, bottom, np.column_stack([caps, np.zeros(3)])])


def gyroelongated_bipyramid():
    poles = [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]
    return np.concatenate([antiprism(0.185), poles])


def rectified_simplex():
    """One for each pair of the five corners, cosine 1/6 where pairs share a corner, else -2/3."""
    pairs = [{i, j} for i in range(5) for j in range(i)]
    values, vectors = np.linalg.eigh(
        [[[-2 / 3, 1 / 6, 1][len(a & b)] for b in pairs] for a in pairs]
    )
    return vectors[:, -4:] * np.sqrt(values[-4:])


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
    "9-simplex": simplex(9),
    "square antiprism": antiprism(0.3084),
    "cube": cube(),
    "icosahedron": icosahedron(),
    "tricapped trigonal prism": tricapped_prism(),
    "gyroelongated square bipyramid": gyroelongated_bipyramid(),
    "rectified 5-cell": rectified_simplex(),
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
@pytest.mark.parametrize("seed", range(2))
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
    # Prisms are fitted from a grid of heights, and are tight at one height only.
    assert factor.error == pytest.approx(0, abs=5e-3)
    assert factor.spectral_distance == pytest.approx(0, abs=0.02)
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


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([DIGON], "digon"),
        ([DIGON] * 2, "square"),
        ([DIGON] * 3, "octahedron"),
        ([DIGON] * 4, "16-cell"),
        ([DIGON] * 10, "10-orthoplex"),
        ([k_gon(3), DIGON], "triangular bipyramid"),
        ([k_gon(5), DIGON], "pentagonal bipyramid"),
        ([k_gon(7), DIGON], "7-gonal bipyramid"),
        ([simplex(3), DIGON], "tetrahedral bipyramid"),
        ([k_gon(3), k_gon(5)], "3-5 duopyramid"),
        ([DIGON, k_gon(3), DIGON], "3-4 duopyramid"),
        ([DIGON, k_gon(5), DIGON], "4-5 duopyramid"),
        ([k_gon(5), DIGON, DEDICATED, DEDICATED], "pentagonal bipyramid"),
        ([DIGON, DIGON, DIGON, k_gon(3)], "3 digons ⊕ triangle"),
        ([simplex(3), simplex(3)], "2 tetrahedra"),
        ([k_gon(3)] * 3, "3 triangles"),
        ([icosahedron()], "icosahedron"),
        ([DEDICATED] * 3, "nothing shared"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_union_has_the_name_of_its_polytope(parts, expected):
    assert polytope(classify(disguise(union(*parts), seed=0, noise=0.005))) == expected


def test_a_union_with_what_has_no_name_says_so():
    odd = Factor("irregular 5 in 3", (0, 1, 2, 3, 4), 3, 0.6, np.inf)
    pair = Factor("digon", (5, 6), 1, 0.5, 0.0)
    assert polytope([pair, odd]) == "digon ⊕ irregular 5 in 3"
    assert polytope([pair, odd, odd]) == "digon ⊕ 2 × irregular 5 in 3"
    assert polytope([]) == "nothing shared"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([k_gon(3), DIGON], 3 * [2 / 3] + 2 * [1 / 2]),
        ([k_gon(5), DIGON], 5 * [2 / 5] + 2 * [1 / 2]),
        ([DIGON] * 3, 6 * [1 / 2]),
    ],
)
def test_the_dimensionalities_of_the_paper_come_out(parts, expected):
    W = torch.from_numpy(union(*parts))
    assert dimensionality(W).tolist() == pytest.approx(expected)
    factors = classify(W)
    by_feature = [f.dimensionality for f in factors for _ in f.features]
    assert by_feature == pytest.approx(expected)
    assert sum(f.dimensionality * len(f.features) for f in factors) == pytest.approx(3)


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


@pytest.mark.parametrize("shape", [(2, 3, 6, 2), (40, 20, 5), (1, 1, 300, 20), (1, 2, 0, 3, 2)])
def test_a_stack_is_its_members(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def one_by_one(models):
        return classify(models) if models.ndim == 2 else [one_by_one(each) for each in models]

    stacked, single = (_flat(each) for each in (classify(W), one_by_one(W)))
    assert [f.features for f in stacked] == [f.features for f in single]
    assert [(f.label, f.dim) for f in stacked] == [(f.label, f.dim) for f in single]
    for name in ("dimensionality", "error", "spectral_distance"):
        assert [getattr(f, name) for f in stacked] == pytest.approx(
            [getattr(f, name) for f in single], abs=1e-9
        )


def _flat(nested):
    return [nested] if isinstance(nested, Factor) else [f for each in nested for f in _flat(each)]


def test_a_stack_cut_in_pieces_is_the_same(monkeypatch):
    W = torch.randn(50, 6, 3, generator=torch.Generator().manual_seed(0))
    whole = [[(f.label, f.features) for f in factors] for factors in classify(W)]
    monkeypatch.setattr("superpose.geometry.classification.AT_ONCE", 100)
    assert [[(f.label, f.features) for f in factors] for factors in classify(W)] == whole


def test_an_empty_stack_has_no_models():
    assert classify(torch.zeros(0, 4, 2)) == []
    assert classify(torch.zeros(2, 0, 4, 2)) == [[], []]


@given(k=st.integers(2, 12), seed=st.integers(0, 10_000), noise=st.floats(0.0, 0.1))
@settings(max_examples=60, deadline=None)
def test_a_spectrum_is_no_further_than_the_cosines_of_the_best_order(k, seed, noise):
    # Hoffman and Wielandt: |λ - λ*|₂ ≤ |G - G*|_F for every order of the directions.
    rng = np.random.default_rng(seed)
    ideal = k_gon(k) if k != 4 else simplex(3)
    noisy = ideal + noise * rng.normal(size=ideal.shape)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    G, ideal_G = noisy @ noisy.T, ideal @ ideal.T
    distance = np.sqrt(((np.linalg.eigvalsh(G) - np.linalg.eigvalsh(ideal_G)) ** 2).mean())
    off_diagonal = ~np.eye(k, dtype=bool)
    matched = np.sqrt(((G - ideal_G)[off_diagonal] ** 2).mean())
    assert distance <= np.sqrt(k - 1) * matched + 1e-12
    for factor in classify(torch.from_numpy(noisy)):
        if factor.label in {shape.label for shape in shapes(k)}:
            assert factor.error <= min(tolerance(k, ideal.shape[1]), matched) + 1e-12
            assert factor.spectral_distance == pytest.approx(distance, abs=1e-6)


def test_the_spectral_distance_is_that_of_the_definition():
    triangle = k_gon(3)
    triangle[0] = [np.cos(0.05), np.sin(0.05)]
    (factor,) = classify(torch.from_numpy(triangle))
    eigenvalues = np.sort(np.linalg.eigvalsh(triangle @ triangle.T))
    expected = np.sqrt(((eigenvalues - [0, 1.5, 1.5]) ** 2).mean())
    assert factor.label == "triangle"
    assert factor.spectral_distance == pytest.approx(expected)


def test_factors_that_noise_has_joined_come_apart():
    tilt = np.arcsin(0.11)  # above the overlap that joins, below what noise may do at n = 20
    first, second = np.array([[1.0, 0.0]]), np.array([[np.sin(tilt), np.cos(tilt)]])
    pairs = np.concatenate([first, -first, second, -second])
    assert summary(classify(torch.from_numpy(pairs))) == "1 × irregular 4 in 2"
    W = union(pairs, *[DIGON] * 8)
    assert noise_overlap(len(W)) > 0.11
    assert summary(classify(torch.from_numpy(W))) == "10 digons"


def test_the_smallest_overlap_is_no_excuse_for_an_irregular_set():
    # Cut at the weak overlap, the rest is still nothing with a name: it stays one set.
    odd = np.array([[1.0, 0.0], [0.5, 0.9], [-0.11, 1.0]])
    W = union(odd / np.linalg.norm(odd, axis=1, keepdims=True), *[DIGON] * 9)
    labels = [f.label for f in classify(torch.from_numpy(W))]
    assert labels == ["irregular 3 in 2", *["digon"] * 9]


def test_tolerances_of_pairs_grow_with_the_dimension_and_stop():
    values = [tolerance(2, m) for m in range(1, 100)]
    assert values == sorted(values)
    assert values[-1] == 0.03
    assert tolerance(3, 2) == tolerance(3, 50) < tolerance(4, 3) == tolerance(12, 3)


def test_the_summary_does_not_depend_on_order():
    a, b = Factor("digon", (0, 1), 1, 0.5, 0.0), Factor("triangle", (2, 3, 4), 2, 0.67, 0.0)
    assert summary([a, b, b]) == summary([b, a, b]) == "2 triangles + 1 digon"
