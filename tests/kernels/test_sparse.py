from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from superpose.kernels import rows, sparse

SHAPES = [(1, 1), (5, 2), (4, 4), (3, 7), (70, 8), (129, 20), (20, 70), (600, 5)]
NAMES = ("hidden relu", "output relu", "tied", "absolute target", "gram")
# With a hidden ReLU there is no Gram matrix.
FLAGS = [f for f in product((False, True), repeat=5) if not (f[0] and f[4])]
FLAG_IDS = [", ".join(n for n, on in zip(NAMES, f, strict=True) if on) or "none" for f in FLAGS]


def _lists(x):
    """A batch `[batch, n]` as (start, column, value, 0, batch)."""
    at, column = np.nonzero(x)
    start = np.concatenate([[0], np.cumsum((x != 0).sum(1))])
    return start, column.astype(np.int32), x[at, column].astype(np.float32), 0, len(x)


def _parameters(rng, n, m, tied):
    """Weights and biases; of the latter one is exactly 0 and one feature is dead."""
    b = rng.normal(0, 0.3, n)
    b[-1], b[n // 2] = -100.0, 0.0
    weights = [rng.normal(0, 0.5, (n, m)) for _ in range(1 if tied else 2)]
    return [each.astype(np.float32) for each in (*weights, b)]


def _batch(rng, n, p, batch=29):
    """Samples of both signs; the first and the last are empty, and so may be others."""
    x = rng.normal(size=(batch, n)) * (rng.random((batch, n)) < p)
    x[[0, -1]] = 0.0
    return x.astype(np.float32)


def _fused(x, parameters, importance, l1, flags, pieces=1):
    """Loss and gradient as compiled, with the rows of x in several pieces."""
    shape = parameters[0].shape
    theta = np.concatenate([each.ravel() for each in parameters])
    # What the scratch held before must not matter.
    work = np.full(sparse.work_size(*shape, flags[4]), np.nan, np.float32)
    slope = np.zeros_like(theta)
    *lists, first, last = _lists(x)
    sparse.prepare(work, theta, shape, flags)
    loss = 0.0
    for j in range(pieces):
        piece = (*lists, first + last * j // pieces, first + last * (j + 1) // pieces)
        about = (importance, np.float32(l1), shape, flags)
        loss += sparse.add_gradient_rows(piece, work, theta, slope, *about)
    sparse.finish(work, slope, shape, flags)
    return loss, slope


def _exact(x, parameters, importance, l1, flags):
    """Loss and gradient from the formulas, in float64."""
    hidden_relu, output_relu, _, absolute, _ = flags
    learnt = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in parameters]
    x = torch.tensor(x, dtype=torch.float64)
    h = x @ learnt[0]
    h = h.relu() if hidden_relu else h
    out = h @ learnt[-2].T + learnt[-1]
    out = out.relu() if output_relu else out
    y = x.abs() if absolute else x
    importance = torch.tensor(importance, dtype=torch.float64)
    loss = (importance * (y - out) ** 2).sum() + np.float32(l1).item() * h.abs().sum()
    loss.backward()
    return loss.item(), np.concatenate([each.grad.numpy().ravel() for each in learnt])


def _assert_equal(fused, exact):
    scale = max(1.0, np.abs(exact[1]).max())
    np.testing.assert_allclose(fused[0], exact[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fused[1], exact[1], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("flags", FLAGS, ids=FLAG_IDS)
def test_loss_and_gradient_are_those_of_the_formulas(flags):
    for (n, m), l1, p in product(SHAPES, (0.0, 0.1), (0.1, 1.0)):
        rng = np.random.default_rng([n, m])
        parameters = _parameters(rng, n, m, flags[2])
        importance = rng.uniform(0.1, 1.0, n).astype(np.float32)
        given = (_batch(rng, n, p), parameters, importance, l1, flags)
        _assert_equal(_fused(*given), _exact(*given))


@pytest.mark.parametrize("gram", [False, True], ids=["product", "gram"])
def test_edges(gram):
    rng = np.random.default_rng(0)
    n, m = 66, 3
    flags = (False, True, True, False, gram)
    importance = np.ones(n, np.float32)
    W, b = _parameters(rng, n, m, tied=True)
    x = _batch(rng, n, 0.1)
    for parameters, batch in (
        ([W, b], np.zeros_like(x)),
        ([W, b], np.zeros((0, n), np.float32)),
        ([W, np.zeros_like(b)], x),
        ([np.zeros_like(W), np.zeros_like(b)], x),
        ([W, np.full_like(b, -100.0)], x),
    ):
        given = (batch, parameters, importance, 0.1, flags)
        _assert_equal(_fused(*given), _exact(*given))


def test_pieces_add_up():
    rng = np.random.default_rng(1)
    flags = (True, True, False, True, False)
    given = (_batch(rng, 40, 0.2, batch=50), _parameters(rng, 40, 6, False), np.ones(40, "f4"), 0.1)
    for pieces in (1, 2, 7, 60):
        _assert_equal(_fused(*given, flags, pieces), _exact(*given, flags))


@pytest.mark.parametrize("gram", [False, True], ids=["product", "gram"])
@pytest.mark.parametrize("broken", [np.nan, np.inf], ids=str)
def test_a_diverged_model_is_seen(gram, broken):
    rng = np.random.default_rng(2)
    W, b = _parameters(rng, 70, 4, tied=True)
    W[5, 1] = broken
    x = _batch(rng, 70, 0.2)
    loss, slope = _fused(x, [W, b], np.ones(70, "f4"), 0.0, (False, True, True, False, gram))
    assert not np.isfinite(loss)
    assert not np.isfinite(slope).all()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 150),
    p=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    count=st.integers(0, sparse.TILE),
    seed=st.integers(0, 99),
)
def test_gather_lists_what_is_active(n, p, count, seed):
    x = np.zeros((sparse.TILE, n), np.float32)
    x[:count] = _batch(np.random.default_rng(seed), n, p, sparse.TILE)[:count]
    start = np.full(sparse.TILE + 1, -1)
    column = np.full(n * sparse.TILE, -1, np.int32)
    value = np.full(n * sparse.TILE, np.nan, np.float32)
    sparse.gather(np.ascontiguousarray(x.T).ravel(), count, n, start, column, value)
    for got, expected in zip((start, column, value), _lists(x), strict=False):
        assert np.array_equal(got[: len(expected)], expected)


def test_gather_keeps_what_is_not_a_number():
    tile = np.zeros(3 * sparse.TILE, np.float32)
    tile[[1, sparse.TILE, 2 * sparse.TILE + 1]] = np.nan, -0.0, np.inf
    start = np.empty(sparse.TILE + 1, np.int64)
    column, value = np.empty(3 * sparse.TILE, np.int32), np.empty(3 * sparse.TILE, np.float32)
    sparse.gather(tile, 2, 3, start, column, value)
    assert start[:4].tolist() == [0, 0, 2, 2]
    assert column[:2].tolist() == [0, 2]
    assert np.array_equal(value[:2], [np.nan, np.inf], equal_nan=True)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 15])
def test_functions_on_rows_are_their_plain_twins(vectors):
    # Whole numbers, whose sums are exact in any order: what agrees is equal in every bit.
    rng = np.random.default_rng(vectors)
    n, batch, width = 9, 7, vectors * rows.LANES
    start, column, value, _, _ = _lists(np.rint(3 * _batch(rng, n, 0.4, batch)))
    lists = (start, column, value, 2, batch)
    work = rng.integers(-8, 9, 4 * n * (width + 1)).astype(np.float32)
    matrix, source, out, slope = ((j * n * (width + 1), width + 1) for j in range(4))
    for name, places in (
        ("sum_rows", (matrix, source, out)),
        ("add_to_rows", (matrix, source)),
        ("trade_rows", (matrix, source, out, slope, source)),
    ):
        got, expected = work.copy(), work.copy()
        getattr(rows, name)(width, lists, got, places)
        getattr(rows, f"plain_{name}")(width, lists, expected, places)
        assert not np.array_equal(got, work)
        assert np.array_equal(got, expected)


@njit
def _masks(numbers, at):
    nonzero, positive = rows.mask_nonzero(numbers, at), rows.mask_positive(numbers, at)
    return nonzero, positive, rows.lowest_bit(positive), rows.number_of_bits(positive)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), at=st.integers(0, 9))
def test_masks_are_their_plain_twins(seed, at):
    values = np.array([0.0, -0.0, 1e-40, -1.0, 2.0, np.nan, np.inf, -np.inf], np.float32)
    rng = np.random.default_rng(seed)
    numbers = rng.choice(values, at + rows.WORD, p=[0.5, *[0.5 / 7] * 7])
    here = numbers[at:]
    positive = ~(here <= 0)
    assert _masks(numbers, at) == (
        rows.plain_mask(here != 0),
        rows.plain_mask(positive),
        np.flatnonzero(np.append(positive, True))[0],
        positive.sum(),
    )


def test_the_gram_matrix_pays_where_few_are_active():
    assert sparse.uses_gram(80, 20, active=0.8)
    assert not sparse.uses_gram(80, 20, active=10)
    assert not sparse.uses_gram(80, 20, active=1e-3)
    assert not sparse.uses_gram(10_000, 50, active=1)


def test_lists_pay_where_few_of_many_are_active():
    assert sparse.pays(400, 30, active=4)
    assert not sparse.pays(400, 30, active=40)
    assert not sparse.pays(20, 5, active=0.2)
