"""What the kernels compute against the definition, the code's objective in float64."""

import threading

import numpy as np
import pytest

from superpose.unmix.codes import L1, BatchTopK, Gated, JumpReLU, Matryoshka, TopK
from superpose.unmix.fused import Fused, FusedAdam, serves
from superpose.unmix.optimiser import Adam
from superpose.unmix.plain import Plain
from superpose.unmix.weights import Layout, aligned

CODES = {
    "topk": lambda n: TopK(d_sae=n, k=4),
    "batchtopk": lambda n: BatchTopK(d_sae=n, k=3),
    "matryoshka": lambda n: Matryoshka(d_sae=n, k=3),
    "nested in one": lambda n: Matryoshka(d_sae=n, k=3, widths=(1, 2, n)),
    "abs": lambda n: L1(d_sae=n, coefficient=0.3),
    "sqrt": lambda n: L1(d_sae=n, coefficient=0.3, penalty="sqrt"),
    "tanh": lambda n: L1(d_sae=n, coefficient=0.3, penalty="tanh"),
    "jumprelu": lambda n: JumpReLU(d_sae=n, l0=3.0, strength=0.5, bandwidth=0.2),
    "gated": lambda n: Gated(d_sae=n, coefficient=0.3),
}
SHAPES = {  # d_in, d_sae, d_out, batch: whole vectors and not, one sample, chunks and more
    "whole": (32, 64, 32, 96),
    "odd": (7, 37, 7, 101),
    "one sample": (5, 70, 5, 1),
    "deep": (300, 40, 300, 5),
    "transcoder": (32, 70, 48, 60),
    "odd transcoder": (9, 33, 4, 50),
}


def _member(code, d_in, d_out, batch, seed=0):
    """A layout, parameters and a batch; a transcoder where the dimensions differ."""
    layout = Layout(d_in, code.d_sae, d_out, code.extras, subtract=d_in == d_out)
    rng = np.random.default_rng(seed)
    theta = aligned(layout.size)
    parts = layout.views(theta)
    for part in parts.values():
        part[:] = rng.standard_normal(part.shape)
    parts["W_dec"] /= np.linalg.norm(parts["W_dec"], axis=1, keepdims=True)
    parts["E"] /= np.sqrt(d_in)
    for name in ("b_enc", "b_dec", *code.extras):
        parts[name] *= 0.1
    for name, value in code.start.items():
        parts[name] += value
    x = _samples(rng, batch, d_in)
    return layout, theta, x, x if d_in == d_out else _samples(rng, batch, d_out)


def _samples(rng, batch, d):
    x = aligned((batch, d))
    x[:] = rng.standard_normal((batch, d)) / np.sqrt(d)
    return x


def _dead(d_sae, share, seed=1):
    return np.random.default_rng(seed).random(d_sae) < share


def _plain(code, layout, theta, x, target, dead):
    wide = x.astype(np.float64)
    wanted = wide if target is x else target.astype(np.float64)
    return Plain(code, layout).gradient(theta.astype(np.float64), wide, wanted, dead)


def _assert_equal(found, expected, layout, tolerance=5e-6):
    assert found.loss == pytest.approx(expected.loss, rel=tolerance)
    assert found.squared_error == pytest.approx(expected.squared_error, rel=tolerance)
    assert found.active == expected.active
    assert np.array_equal(found.fired, expected.fired)
    assert found.smallest == pytest.approx(expected.smallest, rel=tolerance, nan_ok=True)
    ours, theirs = layout.views(found.gradient), layout.views(expected.gradient)
    for name, slope in theirs.items():
        scale = max(np.abs(slope).max(), 1e-6)
        assert np.abs(ours[name] - slope).max() < tolerance * scale, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CODES)
def test_value_and_every_gradient_are_those_of_the_definition(name, shape):
    d_in, d_sae, d_out, batch = SHAPES[shape]
    code = CODES[name](d_sae)
    layout, *given = _member(code, d_in, d_out, batch)
    nobody = np.zeros(d_sae, bool)
    found = Fused(code, layout).gradient(*given, nobody)
    # Near 0 the slope of the root grows what pre-activations are rounded by.
    tolerance = 5e-5 if name == "sqrt" else 5e-6
    _assert_equal(found, _plain(code, layout, *given, nobody), layout, tolerance)


@pytest.mark.parametrize("share", [0.02, 0.4, 1.0])
@pytest.mark.parametrize("shape", ["whole", "odd", "one sample", "transcoder"])
@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
def test_dead_latents_learn_as_in_the_definition(name, shape, share):
    d_in, d_sae, d_out, batch = SHAPES[shape]
    code = CODES[name](d_sae)
    layout, *given = _member(code, d_in, d_out, batch)
    dead = _dead(d_sae, share)
    found = Fused(code, layout).gradient(*given, dead)
    _assert_equal(found, _plain(code, layout, *given, dead), layout)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_ties_go_to_the_lowest_place_and_only_positive_values_are_kept(name, k):
    # Small whole numbers: pre-activations are exact, and most of them have equals.
    kind = {"topk": TopK, "batchtopk": BatchTopK, "matryoshka": Matryoshka}[name]
    rng = np.random.default_rng(k)
    code = kind(d_sae=300, k=k)
    layout, theta, x, _ = _member(code, 6, 6, 70)
    theta[:] = rng.integers(-1, 2, theta.shape)
    x[:] = rng.integers(-2, 3, x.shape)
    for row in x[::7]:
        row[:] = layout.views(theta)["b_dec"]  # pre-activations are the biases
    for bias in (layout.views(theta)["b_enc"], layout.views(theta)["b_enc"] - 3):
        layout.views(theta)["b_enc"][:] = bias
        dead = _dead(300, 0.3)
        found = Fused(code, layout).gradient(theta, x, x, dead)
        _assert_equal(found, _plain(code, layout, theta, x, x, dead), layout)


def test_every_latent_may_be_kept():
    code = TopK(d_sae=37, k=37)
    layout, *given = _member(code, 7, 7, 20)
    nobody = np.zeros(37, bool)
    found = Fused(code, layout).gradient(*given, nobody)
    _assert_equal(found, _plain(code, layout, *given, nobody), layout)


@pytest.mark.parametrize("name", ["abs", "tanh", "jumprelu", "gated"])
def test_chunks_with_lists_and_dense_ones_mix(name):
    code = CODES[name](160)
    layout, theta, x, target = _member(code, 32, 32, 230)
    layout.views(theta)["b_enc"][:] -= 0.2
    layout.views(theta)["b_dec"][:] = 0.0
    x *= np.repeat([3.0, 0.1, 0.1, 3.0, 0.1], [60, 50, 40, 50, 30])[:, None].astype(np.float32)
    fused, nobody = Fused(code, layout), np.zeros(160, bool)
    found = fused.gradient(theta, x, target, nobody)
    start = fused.room.entries[0]
    assert start[48] == 0, "the first chunk is dense"
    assert start[-1] > 0, "others are not"
    _assert_equal(found, _plain(code, layout, theta, x, target, nobody), layout)


@pytest.mark.parametrize("name", CODES)
def test_what_came_before_leaves_no_trace(name):
    """Neither the guess of a threshold, nor dead latents, nor a batch of another size."""
    code = CODES[name](70)
    layout, theta, x, _ = _member(code, 16, 16, 64)
    _, other, y, _ = _member(code, 16, 16, 64, seed=5)
    nobody = np.zeros(70, bool)
    first = Fused(code, layout).gradient(theta, x, x, nobody)
    used = Fused(code, layout)
    for scale, dead in ((30.0, _dead(70, 0.5)), (0.01, nobody)):
        used.gradient(other * np.float32(scale), y, y, dead)
        _assert_same(used.gradient(theta, x, x, nobody), first)
    used.gradient(theta, x[:20].copy(), x[:20].copy(), nobody)
    _assert_same(used.gradient(theta, x, x, nobody), first)


def _assert_same(found, expected):
    assert (found.loss, found.squared_error) == (expected.loss, expected.squared_error)
    assert np.array_equal(found.gradient, expected.gradient)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "abs", "gated"])
def test_bits_depend_neither_on_threads_nor_on_places_in_memory(name):
    code = CODES[name](130)
    layout, theta, x, _ = _member(code, 16, 16, 100)
    dead, found = _dead(130, 0.2), []
    expected = Fused(code, layout).gradient(theta, x, x, dead)

    def step(offset):
        moved, rows = aligned(theta.size + 16)[offset:][: theta.size], aligned(x.size + 16)
        rows = rows[offset:][: x.size].reshape(x.shape)
        moved[:], rows[:] = theta, x
        found.append(Fused(code, layout).gradient(moved, rows, rows, dead))

    threads = [threading.Thread(target=step, args=(offset,)) for offset in (0, 1, 5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 3
    for each in found:
        _assert_same(each, expected)


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("what", ["E", "W_dec", "b_dec", "x"])
def test_what_is_not_a_number_is_seen(name, what):
    code = CODES[name](64)
    layout, theta, x, _ = _member(code, 16, 16, 50)
    if what == "x":
        x[17, 3] = np.nan
    else:
        layout.views(theta)[what][:] = np.nan
    loss = Fused(code, layout).gradient(theta, x, x, np.zeros(64, bool)).loss
    assert not np.isfinite(loss)


def test_arrays_of_other_kinds_are_taken():
    code = TopK(d_sae=20, k=2)
    layout, theta, x, _ = _member(code, 8, 8, 30)
    expected = Fused(code, layout).gradient(theta, x, x, np.zeros(20, bool))
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (frozen, np.asfortranarray(x), x.astype(np.float64)):
        _assert_same(
            Fused(code, layout).gradient(theta, other, other, np.zeros(20, bool)), expected
        )


def test_codes_of_ones_own_go_the_plain_way():
    class Own(TopK):
        """Looks like TopK."""

    assert all(serves(make(64)) for make in CODES.values())
    assert not serves(Own(d_sae=4, k=1))


@pytest.mark.parametrize("name", ["topk", "jumprelu", "gated"])
@pytest.mark.parametrize("shape", ["whole", "odd", "transcoder"])
def test_adam_is_that_of_the_definition(name, shape):
    d_in, d_sae, d_out, batch = SHAPES[shape]
    layout, theta, *_ = _member(CODES[name](d_sae), d_in, d_out, batch)
    rng, other = np.random.default_rng(0), theta.astype(np.float64)
    fused, plain = FusedAdam(layout, theta), Adam(layout, other)
    for step in range(30):
        slope = rng.standard_normal(theta.size).astype(np.float32)
        slope[rng.random(theta.size) < 0.5] = 0.0
        plain.step(slope.astype(np.float64), 0.01 + 0.001 * step)
        fused.step(slope, 0.01 + 0.001 * step)
    assert np.abs(theta - other).max() < 2e-4
    assert np.abs(fused.mean - plain.mean).max() < 1e-4
    assert np.linalg.norm(layout.views(theta)["W_dec"], axis=1) == pytest.approx(1.0, abs=1e-6)
