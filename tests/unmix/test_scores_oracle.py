"""Laws of what is attainable: nobody who knows the truth explains noise, and k atoms are k."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from superpose.unmix import OrthogonalPursuit, attainable, match, random_dictionary


def sphere(rows, d, seed=0):
    W = torch.tensor(np.random.default_rng(seed).standard_normal((rows, d))).float()
    return torch.nn.functional.normalize(W, dim=-1)


def draw(W, samples=500, p=0.1, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    f = (rng.random((samples, len(W))) < p) * rng.uniform(0.5, 1.5, (samples, len(W)))
    f = torch.tensor(f).float()
    return f, f @ W + noise * torch.tensor(rng.standard_normal((samples, W.shape[1]))).float()


@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_pursuit_keeps_k_atoms_is_not_negative_and_never_explains_less(k, atoms, seed):
    x = 3 * torch.tensor(np.random.default_rng(seed).standard_normal((40, 5))).float()
    pursuit = OrthogonalPursuit(sphere(atoms, 5, seed), torch.ones(5), k)
    z, errors = pursuit.path(x)
    assert (z >= 0).all()
    assert ((z > 0).sum(-1) <= k).all()
    assert (errors.diff(dim=1) <= 1e-4).all()
    torch.testing.assert_close(
        errors[:, -1], ((x - pursuit.decode(z)) ** 2).sum(-1), rtol=1e-3, atol=1e-3
    )


def test_amplitudes_are_those_of_non_negative_least_squares_on_the_atoms_taken():
    D = sphere(12, 5)
    x = 2 * sphere(30, 5, seed=1)
    z = OrthogonalPursuit(D, torch.zeros(5), 4).encode(x)
    for sample, code in zip(x, z, strict=True):
        own = code > 0
        exact, _ = nnls(D[own].T.numpy(), sample.numpy())
        np.testing.assert_allclose(code[own], exact, atol=2e-3)


def test_without_noise_the_true_features_explain_everything_and_coding_finds_them():
    W = sphere(12, 12)
    W = torch.linalg.qr(W).Q
    f, x = draw(W)
    found = attainable(random_dictionary(12, 12), W, x, f)
    assert found.ceiling == pytest.approx(1.0, abs=1e-6)
    assert found.true_l0 == pytest.approx(float((f > 0).sum(-1).float().mean()))
    truth = OrthogonalPursuit(W, torch.zeros(12), 6)
    score = attainable(truth, W, x, f, bias=torch.zeros(12))
    assert score.share[0] == pytest.approx(1.0, abs=1e-3)


def test_the_ceiling_is_one_minus_the_noise():
    W = sphere(30, 10)
    f, x = draw(W, samples=4_000, noise=0.3)
    found = attainable(random_dictionary(10, 4), W, x + 5, f)
    spread = float(((x - x.mean(0)) ** 2).sum(-1).mean())
    assert found.ceiling == pytest.approx(1 - 10 * 0.09 / spread, abs=0.01)
    given_bias = attainable(random_dictionary(10, 4), W, x + 5, f, bias=torch.full((10,), 5.0))
    assert given_bias.ceiling == pytest.approx(found.ceiling, abs=1e-3)


def test_directions_may_be_of_any_length():
    W = sphere(10, 6)
    f, x = draw(W)
    sae = random_dictionary(6, 8)
    one, two = attainable(sae, W, x, f), attainable(sae, 4 * W, x, f / 4)
    np.testing.assert_allclose(one.table()["coded"], two.table()["coded"], rtol=1e-4)
    assert one.ceiling == pytest.approx(two.ceiling)


def test_more_atoms_explain_more_and_the_share_is_read_from_the_table():
    W = sphere(20, 10)
    f, x = draw(W, noise=0.1)
    shares = []
    for k in (1, 2, 3):
        sae = OrthogonalPursuit(sphere(20, 10, seed=5), x.mean(0), k)
        found = attainable(sae, W, x, f)
        assert found.explained == pytest.approx(match(sae, W, x).explained_variance)
        shares.append(found.coded[0])
        assert found.interval("share").estimate == pytest.approx(
            found.table()["share"].to_numpy()[0]
        )
    assert (np.diff(shares) > 0).all()
    with pytest.raises(ValueError, match="the scores are l0, explained, coded"):
        found.interval("recall")


def test_atoms_are_spent_where_they_explain_most():
    W = torch.eye(2)
    f = torch.tensor([[3.0, 2.0], [0.1, 0.0]])
    # One atom a sample on average: both go to the first sample.
    sae = OrthogonalPursuit(W, torch.zeros(2), 1)
    found = attainable(sae, W, f, f, bias=torch.zeros(2))
    spread = float(((f - f.mean(0)) ** 2).sum())
    assert found.coded[0] == pytest.approx(1 - 0.01 / spread)
    assert found.explained[0] == pytest.approx(1 - 4 / spread)


def test_the_share_has_an_interval_over_samples():
    W = sphere(20, 10)
    f, x = draw(W, samples=2_000, noise=0.1)
    sae = OrthogonalPursuit(sphere(20, 10, seed=5), x.mean(0), 2)
    many, few = attainable(sae, W, x, f), attainable(sae, W, x[:200], f[:200])
    for name in ("share", "coded", "ceiling"):
        wide, narrow = few.sample_interval(name), many.sample_interval(name)
        assert narrow.low < narrow.estimate < narrow.high
        assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
        assert narrow.estimate == pytest.approx(many.scores[name].mean())
