"""How often named shapes are recognised under noise, and random directions taken for one.

Noise of 2 %: every coordinate of every unit direction, in all dimensions of the model, gets a
normal error of standard deviation 0.02; then norms are drawn from 0.8 to 1.25, the features
shuffled and the space turned. A model counts as recognised when all its factors have their names
and its features are in the right ones. A random frame counts as named when any two or more
of its features are given the name of a shape, be the others what they may.
"""

import numpy as np
import pytest
import torch
from scipy.stats import beta

from superpose.geometry import classify, shapes
from superpose.geometry.ideals import _SOLIDS, _k_gon, _simplex

DRAWS = 1000
NOISE = 0.02
NO_POLYTOPE = ("dedicated", "irregular", "collapsed", "diverged")


def lower_bound(hits, level=0.99):
    """The one-sided Clopper-Pearson bound from below."""
    return beta.ppf(1 - level, hits, DRAWS - hits + 1) if hits else 0.0


def upper_bound(hits, level=0.99):
    """The one-sided Clopper-Pearson bound from above."""
    return beta.ppf(level, hits + 1, DRAWS - hits)


def span(points):
    """The same directions in as few coordinates as they need."""
    left, singular, _ = np.linalg.svd(points, full_matrices=False)
    d = int((singular > 1e-9).sum())
    return left[:, :d] * singular[:d]


SHAPES = (
    {"dedicated": np.ones((1, 1)), "digon": np.array([[1.0], [-1.0]])}
    | {"triangle": _k_gon(3), "pentagon": _k_gon(5), "hexagon": _k_gon(6)}
    | {f"{k}-gon": _k_gon(k) for k in (7, 8, 12)}
    | {"tetrahedron": span(_simplex(3)), "5-cell": span(_simplex(4))}
    | {f"{d}-simplex": span(_simplex(d)) for d in range(5, 10)}
    | {label: span(family()[len(family()) // 2]) for label, (_, family) in _SOLIDS.items()}
)

UNIONS = {
    "square": ["digon"] * 2,
    "octahedron": ["digon"] * 3,
    "cross-polytope in 10": ["digon"] * 10,
    "triangular bipyramid": ["triangle", "digon"],
    "pentagonal bipyramid": ["pentagon", "digon"],
    "five triangles": ["triangle"] * 5,
    "four tetrahedra": ["tetrahedron"] * 4,
    "four pentagons": ["pentagon"] * 4,
    "two antiprisms": ["square antiprism"] * 2,
    "digons and dedicated": ["digon"] * 3 + ["dedicated"] * 4,
    "mixture": ["5-cell", "tetrahedron", "triangle", "digon", "digon", "dedicated"],
    "many": ["pentagon", "pentagon", "triangle", "cube", *["digon"] * 8, "dedicated"],
}

FRAMES = [(3, 2), (4, 2), (5, 2), (6, 2), (8, 2), (3, 3), (4, 3), (5, 3), (6, 3), (8, 3), (9, 3)]
FRAMES += [(10, 3), (12, 3), (5, 4), (6, 4), (8, 4), (10, 4), (6, 5), (20, 5), (20, 10), (80, 20)]


def noisy(parts, spare, rng):
    """DRAWS disguised models of the parts, and for each feature which part it came from."""
    pieces = [SHAPES[label] for label in parts]
    d = sum(piece.shape[1] for piece in pieces)
    W, column = [], 0
    for piece in pieces:
        W.append(np.pad(piece, ((0, 0), (column, d + spare - column - piece.shape[1]))))
        column += piece.shape[1]
    owner = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    W = np.concatenate(W) + NOISE * rng.standard_normal((DRAWS, len(owner), d + spare))
    turn = np.linalg.qr(rng.standard_normal((DRAWS, d + spare, d + spare)))[0]
    W = W @ turn * rng.uniform(0.8, 1.25, (*W.shape[:2], 1))
    order = rng.permuted(np.tile(np.arange(len(owner)), (DRAWS, 1)), axis=1)
    return torch.from_numpy(np.take_along_axis(W, order[..., None], 1)), owner[order]


def recognised(parts, spare, seed=0):
    """How many of DRAWS noisy models are recognised."""
    W, owner = noisy(parts, spare, np.random.default_rng(seed))
    expected = [
        sorted((tuple(np.flatnonzero(each == i).tolist()), parts[i]) for i in range(len(parts)))
        for each in owner
    ]
    found = [sorted((f.features, f.label) for f in factors) for factors in classify(W)]
    return sum(a == b for a, b in zip(found, expected, strict=True))


def named(k, m, seed=0):
    """How many of DRAWS random frames of k directions in m dimensions are named."""
    W = torch.from_numpy(np.random.default_rng(seed).standard_normal((DRAWS, k, m)))
    W = W / W.norm(dim=-1, keepdim=True)
    return sum(
        any(not factor.label.startswith(NO_POLYTOPE) for factor in factors)
        for factors in classify(W)
    )


def test_every_shape_with_a_name_is_among_those_tried():
    tried = set(SHAPES) | {"collapsed pair", "9-gon", "10-gon", "11-gon"}
    assert {shape.label for k in range(2, 13) for shape in shapes(k)} <= tried


@pytest.mark.parametrize("label", [label for label in SHAPES if label != "dedicated"])
@pytest.mark.parametrize("spare", [0, 20])
def test_a_shape_is_recognised_under_noise(label, spare):
    assert lower_bound(recognised([label], spare)) > 0.97


@pytest.mark.parametrize("name", UNIONS)
@pytest.mark.parametrize("spare", [0, 10])
def test_unions_are_recognised_under_noise(name, spare):
    assert lower_bound(recognised(UNIONS[name], spare)) > 0.97


@pytest.mark.parametrize(("k", "m"), FRAMES)
def test_random_frames_are_not_named(k, m):
    assert upper_bound(named(k, m)) < 0.02


def test_random_stacks_of_weights_are_not_named():
    W = torch.from_numpy(np.random.default_rng(0).normal(size=(DRAWS, 20, 5)) * 0.4)
    labels = [{factor.label for factor in factors} for factors in classify(W)]
    hits = sum(any(not label.startswith(NO_POLYTOPE) for label in each) for each in labels)
    assert upper_bound(hits) < 0.02


def test_the_bounds_are_those_of_clopper_and_pearson():
    # None of 1,000: 1 - 0.01^(1/1000); all of them is the mirror image.
    assert upper_bound(0) == pytest.approx(1 - 0.01 ** (1 / 1000))
    assert lower_bound(DRAWS) == pytest.approx(0.01 ** (1 / 1000))
