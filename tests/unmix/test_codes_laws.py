"""Laws of the codes: what is selected, what is charged, and what slopes a definition has."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpose.unmix import SAE, load
from superpose.unmix.codes import (
    CODES,
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    TopK,
    largest,
)
from superpose.unmix.codes.code import auxiliary
from superpose.unmix.weights import Layout, Units, Weights, fold

D, N = 4, 6
EACH = [
    L1(d_sae=N, coefficient=0.2),
    L1(d_sae=N, coefficient=0.2, penalty="sqrt"),
    L1(d_sae=N, coefficient=0.2, penalty="tanh"),
    TopK(d_sae=N, k=2),
    BatchTopK(d_sae=N, k=2),
    JumpReLU(d_sae=N, l0=2, bandwidth=0.4),
    Gated(d_sae=N, coefficient=0.2),
    Matryoshka(d_sae=N, k=2, widths=(2, 3, 6)),
    MatchingPursuit(d_sae=N, k=3),
]
NOBODY = torch.zeros(N, dtype=torch.bool)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trained(code, seed=0, d_out=D, subtract=True):
    """Weights in training, under trained names, as leaves."""
    layout = Layout(D, N, d_out, code.extras, subtract)
    flat = normal(layout.size, seed=seed) / 2
    parts = {name: part.clone().requires_grad_() for name, part in layout.views(flat).items()}
    return layout.assemble(parts), parts


def kept(code, *run, seed=0, d_out=D, subtract=True):
    """Weights after training, with the vectors that the code keeps."""
    names = {"JumpReLU": ("threshold",), "Gated": ("log_gain", "shift")}
    thresholds = ("threshold",) if type(code) in (BatchTopK, Matryoshka) else ()
    W_dec = torch.nn.functional.normalize(normal(*run, N, d_out, seed=seed + 1), dim=-1)
    W_enc = W_dec.mT.contiguous() if code.tied else normal(*run, D, N, seed=seed + 2)
    return Weights(
        W_enc,
        normal(*run, N, seed=seed + 3) / 4,
        W_dec,
        normal(*run, d_out, seed=seed + 4),
        extra={
            name: normal(*run, N, seed=seed + 5).abs() / 4
            for name in names.get(type(code).__name__, thresholds)
        },
        subtract=subtract,
    )


def test_every_code_is_tried_here():
    assert {type(code) for code in EACH} == set(CODES.values())


@given(st.lists(st.integers(-2, 3), min_size=1, max_size=12), st.integers(1, 12))
def test_the_largest_are_those_of_a_stable_sort(values, k):
    v = torch.tensor(values, dtype=torch.float64)
    order = v.argsort(descending=True, stable=True)[:k]
    expected = torch.zeros(len(v), dtype=torch.bool)
    expected[order] = True
    assert torch.equal(largest(v, k), expected & (v > 0))


@pytest.mark.parametrize("code", EACH, ids=str)
def test_latents_are_never_negative_and_members_of_a_stack_are_themselves(code):
    stack, x = kept(code, 3), normal(20, D, seed=9)
    z = code.latents(stack, x)
    assert z.shape == (3, 20, N)
    assert (z >= 0).all()
    assert (z > 0).any()
    for member in range(3):
        alone = Weights(
            stack.W_enc[member],
            stack.b_enc[member],
            stack.W_dec[member],
            stack.b_dec[member],
            extra={name: value[member] for name, value in stack.extra.items()},
        )
        torch.testing.assert_close(code.latents(alone, x), z[member])


@pytest.mark.parametrize("code", EACH, ids=str)
def test_folding_units_keeps_the_function(code):
    # A layer of scale 3 and one of scale 7, as a crosscoder has; then one scale, as most do.
    x = normal(50, D, seed=9)
    for scale in (torch.tensor([3.0, 3.0, 7.0, 7.0]).double(), torch.full((D,), 5.0).double()):
        inner = kept(code)
        units = Units(normal(D, seed=8).numpy(), scale.numpy())
        outer = fold(inner, units, units)
        unit = (scale**2).mean().sqrt()
        normalised = (x - torch.from_numpy(units.centre)) / scale
        z = code.latents(inner, normalised)
        torch.testing.assert_close(code.latents(outer, x), z * unit)
        expected = inner.decode(z) * scale + torch.from_numpy(units.centre)
        torch.testing.assert_close(outer.decode(code.latents(outer, x)), expected)


@pytest.mark.parametrize("code", [code for code in EACH if not code.tied], ids=str)
def test_folding_units_of_a_transcoder_keeps_the_function(code):
    x, inner = normal(50, D, seed=9), kept(code, d_out=3, subtract=False)
    units = Units(normal(D, seed=8).numpy(), np.full(D, 5.0))
    wanted = Units(normal(3, seed=7).numpy(), np.full(3, 0.2))
    outer = fold(inner, units, wanted)
    z = code.latents(inner, (x - torch.from_numpy(units.centre)) / 5.0)
    torch.testing.assert_close(code.latents(outer, x), z * 0.2)
    expected = inner.decode(z) * 0.2 + torch.from_numpy(wanted.centre)
    torch.testing.assert_close(outer.decode(z * 0.2), expected)


@pytest.mark.parametrize("code", EACH, ids=str)
def test_the_error_of_the_objective_is_that_of_its_latents(code):
    weights, _ = trained(code)
    x = normal(15, D, seed=5)
    found = code.objective(weights, x, x, NOBODY)
    torch.testing.assert_close(found.error, x - weights.decode(found.z))
    assert found.loss >= (found.error**2).sum(-1).mean() / 2
    assert (found.z >= 0).all()


def test_topk_counts_and_batch_topk_shares_out():
    x = normal(15, D, seed=5)
    for k in (1, 2, 6):
        weights, _ = trained(TopK(d_sae=N, k=k))
        positive = (weights.pre(x) > 0).sum(-1)
        z = TopK(d_sae=N, k=k).objective(weights, x, x, NOBODY).z
        assert torch.equal((z > 0).sum(-1), positive.clamp(max=k))
        found = BatchTopK(d_sae=N, k=k).objective(weights, x, x, NOBODY)
        assert (found.z > 0).sum() == min(15 * k, positive.sum())
        assert found.smallest == found.z[found.z > 0].min()
        left_out = weights.pre(x)[found.z == 0]
        assert not len(left_out) or left_out.max() <= found.smallest


def test_equal_values_are_kept_from_the_first_sample_on():
    eye = torch.eye(2)
    weights = Weights(eye, torch.zeros(2), eye, torch.zeros(2))
    x, nobody = torch.ones(3, 2), torch.zeros(2, dtype=torch.bool)
    z = BatchTopK(d_sae=2, k=1).objective(weights, x, x, nobody).z
    assert torch.equal(z, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    z = TopK(d_sae=2, k=1).objective(weights, x, x, nobody).z
    assert torch.equal(z, torch.tensor([[1.0, 0.0]] * 3))


def test_nothing_positive_is_no_latent_and_a_threshold_of_zero():
    code = BatchTopK(d_sae=N, k=2)
    weights, _ = trained(code)
    dark = Weights(weights.W_enc, weights.b_enc - 100, weights.W_dec, weights.b_dec)
    found = code.objective(dark, normal(5, D), normal(5, D), NOBODY)
    assert (found.z == 0).all()
    assert found.smallest == 0


def test_matryoshka_charges_every_prefix():
    code = Matryoshka(d_sae=N, k=2, widths=(2, 3, 6))
    weights, _ = trained(code)
    x = normal(15, D, seed=5)
    found = code.objective(weights, x, x, NOBODY)
    flat = BatchTopK(d_sae=N, k=2).objective(weights, x, x, NOBODY)
    assert torch.equal(found.z, flat.z)
    errors = [
        x - found.z[:, :width] @ weights.W_dec[:width] - weights.b_dec for width in code.widths
    ]
    expected = torch.stack([(error**2).sum(-1).mean() for error in errors]).mean()
    torch.testing.assert_close(found.loss, expected)
    one = Matryoshka(d_sae=N, k=2, widths=(N,)).objective(weights, x, x, NOBODY)
    torch.testing.assert_close(one.loss, flat.loss)


def test_penalties_agree_for_small_latents_and_charge_large_ones_less():
    slopes = {}
    for penalty in ("abs", "sqrt", "tanh"):
        z = torch.tensor([[1e-9], [2.0]], dtype=torch.float64, requires_grad=True)
        price = L1(d_sae=1, coefficient=0.5, penalty=penalty).price(z)
        (slope,) = torch.autograd.grad(price, z)
        slopes[penalty] = 2 * slope.flatten()
        zero = L1(d_sae=1, coefficient=0.5, penalty=penalty).price(0 * z)
        assert zero == 0
    assert torch.equal(slopes["abs"], torch.full((2,), 0.5, dtype=torch.float64))
    assert slopes["tanh"][0] == pytest.approx(0.5)
    assert slopes["tanh"][1] < 1e-4
    assert slopes["sqrt"][1] < 0.5 < slopes["sqrt"][0] < np.inf


def test_the_threshold_learns_from_what_is_near_it():
    code = JumpReLU(d_sae=N, l0=2, strength=0.7, bandwidth=0.4)
    weights, parts = trained(code)
    x = normal(30, D, seed=5)
    found = code.objective(weights, x, x, NOBODY)
    (slope,) = torch.autograd.grad(found.loss, parts["log_threshold"])
    pre, level = weights.pre(x), parts["log_threshold"].exp()
    assert torch.equal(found.z, torch.where(pre > level, pre, 0.0))
    near = ((pre - level).abs() < 0.2) / 0.4
    l0 = (pre > level).sum(-1).double().mean()
    by_z = (-2 * found.error @ weights.W_dec.mT / 30 * -(level**2) * near).sum(0)
    by_l0 = 0.7 * 2 * (l0 / 2 - 1) / 2 * (-level * near).mean(0)
    torch.testing.assert_close(slope, by_z + by_l0)
    assert (slope != 0).any()


def test_a_gate_learns_only_by_itself_and_holds_the_decoder_fixed():
    code = Gated(d_sae=N, coefficient=0.3)
    weights, parts = trained(code)
    x = normal(30, D, seed=5)
    found = code.objective(weights, x, x, NOBODY)
    slope, gain = torch.autograd.grad(found.loss, (parts["W_dec"], parts["log_gain"]))
    torch.testing.assert_close(slope, -2 * found.z.mT @ found.error / 30)
    pre = weights.pre(x)
    through = -2 * found.error @ weights.W_dec.mT * (found.z > 0) / 30
    torch.testing.assert_close(gain, (through * pre * parts["log_gain"].exp()).sum(0))
    assert not ((found.z > 0) & (pre <= 0)).any()


def test_pursuit_never_counts_twice():
    code, x = MatchingPursuit(d_sae=N, k=1), normal(30, D, seed=5)
    rows = torch.nn.functional.normalize(normal(N, D, seed=3), dim=-1)
    bias, none = normal(D, seed=4), torch.zeros(N, dtype=torch.float64)
    weights = Weights(rows.mT, none, rows, bias)
    found = code.objective(weights, x, x, NOBODY)
    chosen = rows[found.z.argmax(-1)]
    along = (found.error * chosen).sum(-1)[(found.z > 0).any(-1)]
    torch.testing.assert_close(along, torch.zeros_like(along))
    # In an orthonormal dictionary greedy rounds are the largest products.
    axes, _ = torch.linalg.qr(normal(D, D))
    weights = Weights(axes, none[:D], axes.mT.contiguous(), bias)
    greedy = MatchingPursuit(d_sae=D, k=2).latents(weights, x)
    torch.testing.assert_close(greedy, TopK(d_sae=D, k=2).latents(weights, x))


def test_dead_latents_learn_what_the_others_leave_and_nobody_else_does():
    code = TopK(d_sae=N, k=2, auxk=0.5)
    weights, parts = trained(code)
    x, dead = normal(30, D, seed=5), torch.tensor([False, True, False, True, True, False])
    plain, helped = (code.objective(weights, x, x, who) for who in (NOBODY, dead))
    pre, error = weights.pre(x).detach(), plain.error.detach()
    theirs = torch.where(dead, pre, -1.0)
    z = torch.where(largest(theirs, 2), pre, 0.0)  # half of four dimensions
    expected = ((error - z @ weights.W_dec) ** 2).sum(-1).mean()
    torch.testing.assert_close(helped.loss - plain.loss, 0.5 * expected)
    slope = torch.autograd.grad(auxiliary(weights, weights.pre(x), plain.error, dead), parts["E"])
    assert (slope[0][~dead] == 0).all()
    assert (slope[0][dead] != 0).any()
    silent = code.objective(weights, x, x, NOBODY).loss
    assert torch.equal(silent, TopK(d_sae=N, k=2, auxk=0.0).objective(weights, x, x, dead).loss)


def test_widths_of_a_matryoshka():
    assert Matryoshka(d_sae=3, k=1).widths == (1, 3)
    assert all(a < b for a, b in pairwise(Matryoshka(d_sae=1000, k=1).widths))


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        (TopK, {"k": 0}, "whole number"),
        (TopK, {"k": N + 1}, "at most d_sae"),
        (BatchTopK, {"k": 2, "auxk": -1.0}, "auxk"),
        (L1, {"coefficient": -1.0}, "coefficient"),
        (L1, {"coefficient": float("nan")}, "coefficient"),
        (JumpReLU, {"l0": 0.0}, "l0"),
        (JumpReLU, {"l0": N + 1.0}, "at most d_sae"),
        (JumpReLU, {"l0": 2.0, "bandwidth": 0.0}, "bandwidth"),
        (Gated, {"coefficient": float("inf")}, "coefficient"),
        (Matryoshka, {"k": 1, "widths": (3, 2, N)}, "ascend"),
        (Matryoshka, {"k": 1, "widths": (2, 3)}, "the last is d_sae"),
        (MatchingPursuit, {"k": True}, "whole number"),
    ],
    ids=str,
)
def test_codes_refuse_what_makes_no_sense(kind, wrong, told):
    with pytest.raises(ValueError, match=told):
        kind(d_sae=N, **wrong)


@pytest.mark.parametrize("code", EACH, ids=str)
def test_a_saved_dictionary_comes_back_whole(code, tmp_path):
    weights, x = kept(code, 2), normal(5, D).float()
    sae = SAE(
        *(each.float() for each in (weights.W_enc, weights.b_enc, weights.W_dec, weights.b_dec)),
        code,
        extra={name: value.float() for name, value in weights.extra.items()},
        subtract=code.tied,
        layers=(1, 3),
    )
    back = load(sae.save(tmp_path / "sae"))
    assert (back.code, back.subtract, back.layers) == (code, code.tied, (1, 3))
    assert torch.equal(back.encode(x), sae.encode(x))
    assert torch.equal(back.layer_norms, sae.layer_norms)
    assert torch.equal(back[1].encode(x), sae.encode(x)[1])
