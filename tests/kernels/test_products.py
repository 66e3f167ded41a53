"""Small whole numbers, whose sums are exact in any order: what agrees is equal in every bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.kernels.lanes import LANES
from superpose.kernels.products import STEP, dots, plain_dots, plain_product, product

SIZE = st.integers(1, 26)


def _whole(rng, size):
    return rng.integers(-8, 9, size).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(SIZE, SIZE, st.integers(1, 4)),
    place=st.integers(0, 9),
    transposed=st.booleans(),
    fresh=st.booleans(),
    seed=st.integers(0, 99),
)
def test_product_is_that_of_plain_loops(sizes, place, transposed, fresh, seed):
    rows, terms, steps = sizes
    columns = steps * STEP
    rng = np.random.default_rng(seed)
    strides = (1, rows) if transposed else (terms, 1)
    weights = (_whole(rng, place + rows * terms), place, *strides)
    source = (_whole(rng, terms * (columns + 3) + 2 * place), 2 * place, columns + 3, terms)
    C = _whole(rng, place + rows * (columns + 1) + 5)
    expected = C.copy()
    product((C, place, columns + 1, fresh), weights, source, rows, columns)
    plain_product((expected, place, columns + 1, fresh), weights, source, rows, columns)
    assert np.array_equal(C, expected)


def test_a_fresh_product_forgets_what_was_there():
    C = np.full(STEP, np.nan, np.float32)
    product((C, 0, STEP, True), (np.ones(2, np.float32), 0, 2, 1), (C * 0 + 3, 0, 0, 2), 1, STEP)
    assert np.isnan(C).all()
    source = (np.full(STEP, 3.0, np.float32), 0, 0, 2)
    product((C, 0, STEP, True), (np.ones(2, np.float32), 0, 2, 1), source, 1, STEP)
    assert np.array_equal(C, np.full(STEP, 6.0))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.one_of(SIZE, st.integers(95, 122)), SIZE, st.integers(1, 4)),
    place=st.integers(0, 9),
    pairs=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_dots_are_those_of_plain_loops(sizes, place, pairs, seed):
    rows, columns, vectors = sizes
    length = vectors * LANES
    rng = np.random.default_rng(seed)
    G, X = (_whole(rng, rows * length + 9) for _ in range(2))
    H, D = (_whole(rng, columns * length + 9) for _ in range(2))
    left, right = (G, place, X, 9 - place, pairs), (H, 9 - place, D, place, length)
    S = _whole(rng, place + rows * (columns + 2) + 5)
    expected = S.copy()
    dots((S, place, columns + 2), left, right, rows, columns)
    plain_dots((expected, place, columns + 2), left, right, rows, columns)
    assert np.array_equal(S, expected)


def test_the_plain_loops_are_products():
    rng = np.random.default_rng(0)
    A, B, C = _whole(rng, (3, 4)), _whole(rng, (4, STEP)), _whole(rng, (3, STEP))
    out = C.ravel().copy()
    plain_product((out, 0, STEP, False), (A.ravel(), 0, 4, 1), (B.ravel(), 0, STEP, 4), 3, STEP)
    assert np.array_equal(out.reshape(3, STEP), C + A @ B)
    G, X, H, D = (_whole(rng, (size, LANES)) for size in (3, 3, 2, 2))
    out = np.zeros(6, np.float32)
    left, right = (G.ravel(), 0, X.ravel(), 0, 2), (H.ravel(), 0, D.ravel(), 0, LANES)
    plain_dots((out, 0, 2), left, right, 3, 2)
    assert np.array_equal(out.reshape(3, 2), G @ H.T + X @ D.T)
