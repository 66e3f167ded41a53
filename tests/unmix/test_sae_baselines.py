"""Codes, stacks, baselines, and what they carry of a model's own output."""

import warnings

import numpy as np
import pytest
import torch

import superpose as sp
from superpose.unmix import (
    L1,
    SAE,
    Lasso,
    TopK,
    faithfulness,
    ica,
    match,
    neurons,
    pca,
    random_dictionary,
    sparse_dictionary,
)


def random_sae(runs, d_in, d_sae, code=None):
    rng = np.random.default_rng(0)
    draw = lambda *shape: torch.tensor(rng.standard_normal(shape), dtype=torch.float32)  # noqa: E731
    W_dec = torch.nn.functional.normalize(draw(runs, d_sae, d_in), dim=-1)
    code = code or TopK(d_sae=d_sae, k=2)
    return SAE(draw(runs, d_in, d_sae), draw(runs, d_sae), W_dec, draw(runs, d_in), code)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TopK(d_sae=3, k=4),
        lambda: TopK(d_sae=3, k=0),
        lambda: TopK(d_sae=True, k=1),
        lambda: L1(d_sae=0, coefficient=0.1),
        lambda: L1(d_sae=2, coefficient=-1.0),
        lambda: L1(d_sae=2, coefficient=float("nan")),
    ],
)
def test_codes_name_their_laws(make):
    with pytest.raises(ValueError, match=r"TopK\(|L1\("):
        make()


def test_indexing_is_that_of_a_tensor():
    sae, x = random_sae(3, 4, 6), torch.ones(5, 4)
    assert sae.encode(x).shape == (3, 5, 6)
    assert sae[1].encode(x).shape == (5, 6)
    assert sae[1:].decode(sae[1:].encode(x)).shape == (2, 5, 4)
    torch.testing.assert_close(sae[1].encode(x), sae.encode(x)[1])
    assert len(sae) == 3
    with pytest.raises(IndexError, match="single member"):
        sae[0][0]
    with pytest.raises(TypeError, match="single member"):
        len(sae[0])


def test_arrays_come_back_as_the_same_autoencoder():
    sae = random_sae(2, 4, 6)
    again = SAE.from_arrays(sae.arrays(), sae.code)
    assert all(np.array_equal(again.arrays()[name], array) for name, array in sae.arrays().items())
    with pytest.raises(ValueError, match="no W_dec"):
        SAE.from_arrays({k: v for k, v in sae.arrays().items() if k != "W_dec"}, sae.code)
    with pytest.raises(ValueError, match="b_enc is"):
        SAE.from_arrays(sae.arrays() | {"b_enc": np.zeros((2, 5))}, sae.code)
    with pytest.raises(ValueError, match="the code 7"):
        SAE.from_arrays(sae.arrays(), TopK(d_sae=7, k=1))


def test_the_package_is_a_verb_and_a_namespace():
    assert callable(sp.unmix)
    assert sp.unmix.TopK is sp.TopK is TopK


def test_neurons_reconstruct_exactly():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(neurons(4).decode(neurons(4).encode(x))[0], x)


def mixed(samples=20_000, seed=0):
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    W = torch.tensor(np.concatenate([axes, -axes]), dtype=torch.float32)
    return sp.Features(n=10, p=0.05).sample(samples, seed=seed) @ W, W


def test_ica_finds_the_lines_of_antipodal_pairs_and_reconstructs():
    h, W = mixed()
    found = ica(h)
    assert found.advice == ()
    assert match(found, W).recall.item() == 1.0
    torch.testing.assert_close(found.decode(found.encode(h))[0], h, atol=1e-4, rtol=1e-4)


def test_ica_keeps_to_the_rank_of_the_data():
    h, _ = mixed(2_000)
    flat = torch.cat([h, h[:, :2]], 1)
    assert ica(flat).directions.shape == (1, 10, 7)
    with pytest.raises(ValueError, match="all samples are equal"):
        ica(torch.ones(9, 2))


def test_ica_that_does_not_converge_is_told_not_raised():
    x = torch.tensor(np.random.default_rng(3).standard_normal((30, 8)), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [ica(x, seed=seed) for seed in range(3)]
    assert any("did not converge" in line for each in found for line in each.advice)


def test_principal_components_are_ordered_orthonormal_and_reconstruct():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((500, 5)) * [1.0, 5.0, 2.0, 0.1, 3.0] + 2.0).float()
    found = pca(x)
    torch.testing.assert_close(found.decode(found.encode(x))[0], x, atol=1e-4, rtol=1e-4)
    lines = found.directions[0, :5]
    torch.testing.assert_close(lines @ lines.T, torch.eye(5), atol=1e-5, rtol=1e-5)
    assert lines.abs().argmax(-1).tolist() == [1, 4, 2, 0, 3]


def test_principal_components_explain_the_most_that_so_many_lines_can():
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6))).float()
    share = torch.linalg.svdvals((x - x.mean(0)).double()) ** 2
    for number in (1, 3):
        found = match(pca(x, number), torch.eye(6), x).explained_variance[0]
        assert found == pytest.approx(float(share[:number].sum() / share.sum()), abs=1e-5)
    with pytest.raises(ValueError, match="spread over 6 dimensions"):
        pca(x, 7)
    with pytest.raises(ValueError, match="pca: all samples are equal"):
        pca(torch.ones(5, 2))


def test_a_learned_sparse_dictionary_beats_a_random_one_and_keeps_its_units():
    rng = np.random.default_rng(0)
    W = torch.nn.functional.normalize(torch.tensor(rng.standard_normal((8, 6))).float(), dim=-1)
    f = torch.tensor((rng.random((1_500, 8)) < 0.12) * rng.uniform(1, 2, (1_500, 8))).float()
    x = f @ W
    found = sparse_dictionary(x, 8, penalty=0.1, epochs=5)
    learned, chance = match(found, W, x[:300], f[:300]), match(random_dictionary(6, 8), W)
    assert learned.mmcs.item() > chance.mmcs.item() + 0.2
    assert learned.explained_variance.item() > 0.8
    assert (found.encode(x[:300]) >= 0).all()
    large = sparse_dictionary(100 * x + 7, 8, penalty=0.1, epochs=5)
    torch.testing.assert_close(large.directions, found.directions, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        large.encode(100 * x[:50] + 7), 100 * found.encode(x[:50]), atol=0.5, rtol=0.01
    )
    with pytest.raises(ValueError, match="sparse_dictionary: all samples are equal"):
        sparse_dictionary(torch.ones(5, 2), 3)


def test_the_lasso_of_an_orthonormal_dictionary_is_the_soft_threshold():
    x = torch.tensor([[2.0, 0.3], [-1.0, 0.7]])
    z = Lasso(torch.eye(2), torch.ones(2), 0.5).encode(x + 1)
    torch.testing.assert_close(z, (x - 0.5).relu(), atol=1e-3, rtol=1e-3)


def test_pursuit_explains_more_with_each_round_and_never_counts_twice():
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    chance = random_dictionary(5, 40, seed=2)
    z = chance.encode(x)
    assert (z >= 0).all()
    left = (x - chance.decode(z)).norm(dim=-1) / x.norm(dim=-1)
    assert left.max() < 0.7
    assert left.mean() < 0.25


def toy(p=0.05, batch=4_000):
    _, W = mixed(8)
    return sp.ToyModel(n=10, m=5), W, torch.zeros(10), sp.Features(n=10, p=p).sample(batch, seed=9)


def test_all_units_of_an_exact_dictionary_are_the_model():
    model, W, b, x = toy()
    score = faithfulness(model, W, b, x, neurons(5), budgets=(1, 5))
    np.testing.assert_allclose(score.full, 1.0, atol=1e-6)
    np.testing.assert_allclose(score.explained[:, 1], 1.0, atol=1e-6)


def test_the_true_directions_need_the_fewest_units():
    model, W, b, x = toy()
    truth = SAE(W.T.contiguous(), torch.zeros(10), W, torch.zeros(5), L1(d_sae=10, coefficient=0.0))
    true, plain, chance = (
        faithfulness(model, W, b, x, each, budgets=(1, 2, 3)).explained[0]
        for each in (truth, neurons(5), random_dictionary(5, 10))
    )
    assert (np.diff(true) >= 0).all()
    assert (true > plain).all()
    assert true[0] > chance[0]


def test_faithfulness_keeps_runs_and_refuses_what_does_not_fit():
    model, W, b, x = toy(batch=64)
    score = faithfulness(model, W, b, x, random_sae(3, 5, 8), budgets=[1, 2])
    assert score.explained.shape == (3, 2)
    assert score.table().num_rows == 6
    assert score.interval(2).estimate == pytest.approx(score.explained[:, 1].mean())
    np.testing.assert_allclose(score.explained[:, 1], score.full)
    with pytest.raises(ValueError, match="at least 1 unit"):
        faithfulness(model, W, b, x, neurons(5), budgets=(0,))
    with pytest.raises(ValueError, match="hidden layer 5"):
        faithfulness(model, W, b, x, neurons(4))
    with pytest.raises(ValueError, match="budgets measured"):
        score.interval(9)


@pytest.mark.parametrize("wrong", [{"d_sae": 0}, {"penalty": -1.0}, {"epochs": 0}])
def test_a_sparse_dictionary_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one latent and one epoch"):
        sparse_dictionary(torch.eye(4), **({"d_sae": 2} | wrong))
