"""What each code learns of a small world whose features are known."""

from functools import cache

import numpy as np
import pytest
import torch

import superpose as sp
from superpose.unmix import (
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    SAETraining,
    TopK,
)

RECIPE = SAETraining(samples=200_000, batch=256, lr=1e-2, dead_after=20_000)
WIDTH = 48
LEAST = {  # what each code has to recover, as mean best cosine
    TopK(d_sae=WIDTH, k=2): 0.97,
    BatchTopK(d_sae=WIDTH, k=1): 0.93,
    Matryoshka(d_sae=WIDTH, k=1, widths=(24, WIDTH)): 0.85,
    JumpReLU(d_sae=WIDTH, l0=1.5): 0.88,
    L1(d_sae=WIDTH, coefficient=0.5): 0.95,
    L1(d_sae=WIDTH, coefficient=0.2, penalty="sqrt"): 0.9,
    L1(d_sae=WIDTH, coefficient=0.5, penalty="tanh"): 0.88,
    Gated(d_sae=WIDTH, coefficient=0.9): 0.88,
    MatchingPursuit(d_sae=WIDTH, k=2): 0.98,
}


@cache
def overcomplete():
    """Twenty-four features in twelve dimensions, about one active, with a little noise."""
    rng = np.random.default_rng(1)
    W = torch.tensor(rng.standard_normal((24, 12)), dtype=torch.float32)
    W = torch.nn.functional.normalize(W, dim=1)
    x = sp.Features(n=24, p=0.05).sample(20_000, seed=1)
    noise = torch.tensor(rng.standard_normal((20_000, 12)) / 100, dtype=torch.float32)
    return x @ W + noise, W


@cache
def orthonormal():
    """Six features along the axes of six dimensions, from half to one and a half when active."""
    rng = np.random.default_rng(2)
    x = (rng.random((20_000, 6)) < 0.2) * rng.uniform(0.5, 1.5, (20_000, 6))
    return torch.tensor(x, dtype=torch.float32)


def active(sae, x):
    return (sae.encode(x) > 0).sum(-1).float().mean(-1)


@pytest.fixture(scope="module")
def learned():
    """All codes, one stack on one stream."""
    return dict(zip(LEAST, sp.unmix(overcomplete()[0], list(LEAST), RECIPE, seeds=1), strict=True))


@pytest.mark.parametrize("code", LEAST, ids=str)
def test_every_code_recovers_a_small_dictionary(learned, code):
    x, W = overcomplete()
    scores = sp.match(learned[code], W, x)
    assert scores.mmcs.min() >= LEAST[code]
    assert scores.explained_variance.min() > 0.8


@pytest.mark.parametrize("l0", [1.5, 3.0])
def test_jumprelu_ends_at_the_number_it_is_given(l0):
    x, _ = overcomplete()
    sae = sp.unmix(x, JumpReLU(d_sae=WIDTH, l0=l0), RECIPE, seeds=2)
    assert active(sae, x).tolist() == pytest.approx([l0, l0], rel=0.1)


@pytest.mark.parametrize("kind", [BatchTopK, Matryoshka])
@pytest.mark.parametrize("k", [1, 3])
def test_a_threshold_keeps_about_as_many_as_training_did(kind, k):
    x, _ = overcomplete()
    sae = sp.unmix(x, kind(d_sae=WIDTH, k=k), RECIPE, seeds=2)
    assert active(sae, x).tolist() == pytest.approx([k, k], rel=0.1)
    assert (sae.extra["threshold"] == sae.extra["threshold"][:, :1]).all()


def test_l1_shrinks_by_half_its_coefficient_where_gated_does_not():
    x, on = orthonormal(), orthonormal() > 0
    scale = (x - x.mean(0)).norm(dim=-1).square().mean().sqrt()
    missing = {}
    for code in (L1(d_sae=12, coefficient=0.3), Gated(d_sae=12, coefficient=0.3)):
        stack = sp.unmix(x, code, RECIPE, seeds=3)
        recovered = sp.match(stack, torch.eye(6), x).mmcs
        assert recovered.max() > 0.98
        sae = stack[int(recovered.argmax())]
        left = x - sae.decode(sae.encode(x))
        missing[type(code)] = (left[on].mean() / scale).item()
    assert missing[L1] == pytest.approx(0.15, rel=0.03)
    assert abs(missing[Gated]) < 0.01


def test_the_first_latents_of_a_matryoshka_reconstruct_alone():
    x, _ = overcomplete()
    nested = sp.unmix(x, Matryoshka(d_sae=24, k=1, widths=(6, 24)), RECIPE, seeds=1)[0]
    flat = sp.unmix(x, BatchTopK(d_sae=24, k=1), RECIPE, seeds=1)[0]

    def explained(sae):
        first = sae.encode(x) * (torch.arange(24) < 6)
        return 1 - ((sae.decode(first) - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()

    assert explained(nested) > explained(flat) + 0.05


def test_a_jumprelu_that_missed_its_number_says_by_how_much():
    x, _ = overcomplete()
    short = SAETraining(samples=2_560, batch=256)
    codes = [JumpReLU(d_sae=WIDTH, l0=WIDTH), TopK(d_sae=WIDTH, k=2)]
    missed, kept = sp.unmix(x, codes, short, seeds=1)
    last = missed.history["l0"][-1].as_py()
    assert missed.advice[0].startswith(f"member 0: {last:.3g} latents a sample were active at the")
    assert JumpReLU(d_sae=8, l0=4).advice(4.3) == JumpReLU(d_sae=8, l0=4).advice(3.7) == ""
    assert "l0=4" in JumpReLU(d_sae=8, l0=4).advice(4.5)
    assert kept.advice == ()
