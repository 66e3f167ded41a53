"""Laws of scores on samples: the form of the input and the size of the chunks mean nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from superpose.unmix import L1, SAE, firing, match, neurons, random_dictionary
from superpose.unmix.firing import Rows, blocks, feature_rows, sparse_rows, switched_on, together


def dictionary(directions, b_enc=0.0):
    """An autoencoder whose encoder is its decoder, transposed."""
    W = torch.nn.functional.normalize(torch.as_tensor(directions, dtype=torch.float32), dim=-1)
    *run, d_sae, d_in = W.shape
    code = L1(d_sae=d_sae, coefficient=0.0)
    shift = torch.full((*run, d_sae), float(b_enc))
    return SAE(W.mT.contiguous(), shift, W, torch.zeros(*run, d_in), code)


def world(samples=400, k=12, d=8, p=0.15, seed=0):
    """Directions, amplitudes and samples of sparse features."""
    rng = np.random.default_rng(seed)
    W = torch.nn.functional.normalize(torch.tensor(rng.standard_normal((k, d))).float(), dim=-1)
    f = (rng.random((samples, k)) < p) * rng.uniform(0.5, 1.5, (samples, k))
    f = torch.tensor(f).float()
    return W, f, f @ W


def stack(W, runs=3, seed=1):
    noise = torch.tensor(np.random.default_rng(seed).standard_normal((runs, *W.shape))).float()
    return dictionary(W + 0.1 * noise, b_enc=-0.4)


def sparse(f):
    rows = sparse_rows(f)
    return SimpleNamespace(indptr=rows.indptr, index=rows.indices, value=rows.data)


def test_dense_and_sparse_amplitudes_score_alike_and_truth_values_score_what_they_can():
    W, f, x = world()
    dense, rows, which = (match(stack(W), W, x, active) for active in (f, sparse(f), f > 0))
    assert dense.scores.keys() == rows.scores.keys()
    assert dense.scores.keys() - which.scores.keys() == {"mcc_activation", "shrinkage"}
    for name, score in dense.scores.items():
        np.testing.assert_array_equal(rows.scores[name], score, err_msg=name)
        if name in which.scores:
            np.testing.assert_array_equal(which.scores[name], score, err_msg=name)
    with pytest.raises(AttributeError, match=r"shrinkage was not measured: .* amplitudes"):
        _ = which.shrinkage


def test_the_size_of_the_chunks_means_nothing(monkeypatch):
    W, f, x = world()
    whole = match(stack(W), W, x, f)
    monkeypatch.setattr(firing, "_CHUNK", 3 * 12 * 37)
    for name, score in match(stack(W), W, x, f).scores.items():
        np.testing.assert_allclose(score, whole.scores[name], rtol=1e-5, err_msg=name)


def test_a_stack_is_its_members_with_amplitudes_too():
    W, f, x = world()
    together = match(stack(W), W, x, f)
    for run in range(3):
        alone = match(stack(W)[run], W, x, f)
        for name, score in together.scores.items():
            np.testing.assert_allclose(alone.scores[name], score[run : run + 1], rtol=1e-5)


def test_activation_mcc_is_that_of_dense_correlations():
    W, f, x = world()
    sae = stack(W, runs=1)
    z = sae.encode(x)[0].numpy().astype(np.float64)
    table = np.abs(np.corrcoef(f.numpy().T.astype(np.float64), z.T)[: len(W), len(W) :])
    rows, columns = linear_sum_assignment(table, maximize=True)
    assert match(sae, W, x, f).mcc_activation[0] == pytest.approx(table[rows, columns].mean())


def test_activation_mcc_is_one_for_proportional_latents_and_zero_for_none():
    f = world(k=6)[1]
    exact = match(dictionary(torch.eye(6)[None]), torch.eye(6), f, f)
    assert exact.mcc_activation[0] == pytest.approx(1.0)
    half = match(dictionary(torch.eye(6)[None, :3]), torch.eye(6), f, f)
    assert half.mcc_activation[0] == pytest.approx(0.5)


@pytest.mark.parametrize("p", [0.01, 0.9])
def test_sparse_and_dense_ways_of_counting_are_one_product(p):
    rng = np.random.default_rng(3)
    a, b = ((rng.random((5_000, n)) < p) * rng.random((5_000, n)) for n in (30, 40))
    rows = [Rows(table.astype(np.float32)) for table in (a, b)]
    found = np.concatenate([part for _, part in together(*rows, block=7)])
    np.testing.assert_allclose(found, a.T @ b, rtol=1e-4)


def test_blocks_cover_every_sample_once():
    for samples in (1, 5, 64, 1_001):
        summing = blocks(samples)
        assert summing.sum() == samples
        np.testing.assert_array_equal(summing.sum(0), 1)
        sizes = np.diff(summing.indptr)
        assert sizes.max() - sizes.min() <= 1


def test_what_is_on_is_kept_and_zeros_are_not():
    rows = feature_rows(sparse(torch.tensor([[0.0, 2.0], [1.0, 0.0]])), 2, 2)
    assert switched_on(rows).toarray().tolist() == [[0, 1], [1, 0]]
    given = SimpleNamespace(indptr=[0, 1, 2], index=[0, 1], value=[0.0, 1.0])
    assert feature_rows(given, 2, 2).nnz == 1


@pytest.mark.parametrize(
    ("active", "complaint"),
    [
        (torch.tensor([[1.0, -1.0]]), "below zero"),
        (SimpleNamespace(indptr=[0, 1], index=[5], value=[1.0]), "features up to 5"),
        (SimpleNamespace(indptr=[0, 0, 0], index=[], value=[]), "has 2 samples"),
    ],
    ids=["signed", "features", "samples"],
)
def test_activity_that_does_not_fit_is_refused(active, complaint):
    with pytest.raises(ValueError, match=complaint):
        match(neurons(2), torch.eye(2), torch.ones(1, 2), active)


def test_sample_intervals_hold_the_score_and_shrink_with_the_samples():
    W, f, x = world(samples=6_400)
    many, few = match(stack(W), W, x, f), match(stack(W), W, x[:640], f[:640])
    for name in ("explained_variance", "l0", "firing_f1", "mcc_activation", "shrinkage"):
        wide, narrow = few.sample_interval(name), many.sample_interval(name)
        assert narrow.estimate == pytest.approx(many.scores[name].mean())
        assert narrow.low <= narrow.estimate <= narrow.high, name
        assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low), name


def test_sample_intervals_cover_the_score_of_all_samples():
    W, _, x = world(samples=24_000)
    sae = stack(W, runs=1)
    truth = match(sae, W, x).explained_variance[0]
    parts = [match(sae, W, x[i : i + 400]) for i in range(0, 24_000, 400)]
    found = [part.sample_interval("explained_variance") for part in parts]
    covered = sum(each.low <= truth <= each.high for each in found)
    # Of 60 intervals of 95 %, 48 or fewer has a probability of a hundred-thousandth.
    assert covered > 48


def test_differences_on_the_same_samples_are_paired():
    W, f, x = world(samples=2_000)
    one, two = match(stack(W), W, x, f), match(stack(W, seed=2), W, x, f)
    same = one.sample_interval("explained_variance", minus=one)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)
    paired = one.sample_interval("explained_variance", minus=two)
    each = one.sample_interval("explained_variance")
    assert paired.high - paired.low < each.high - each.low
    assert paired.estimate == pytest.approx(
        one.explained_variance.mean() - two.explained_variance.mean()
    )
    with pytest.raises(ValueError, match="same samples, but saw 2000 and 1999"):
        one.sample_interval("l0", minus=match(stack(W), W, x[1:], f[1:]))


def test_intervals_of_what_samples_do_not_move_are_refused():
    W, f, x = world()
    with pytest.raises(ValueError, match="give match"):
        match(stack(W), W).sample_interval("l0")
    with pytest.raises(ValueError, match="recall is not a score on samples"):
        match(stack(W), W, x, f).sample_interval("recall")


def test_explained_variance_takes_the_mean_of_all_samples_and_no_shift_moves_it():
    W, _, x = world()
    shift = torch.full((8,), 50.0)
    sae = dictionary(torch.eye(8)[None])
    back = sae.decode(sae.encode(x))[0]
    expected = 1 - ((x - back) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert match(sae, W, x).explained_variance[0] == pytest.approx(float(expected), rel=1e-5)
    moved = SAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec + shift, sae.code)
    assert match(moved, W, x + shift).explained_variance[0] == pytest.approx(
        float(expected), abs=1e-4
    )


def test_deciles_hold_every_feature_that_is_ever_on_and_average_to_the_scores():
    W, f, x = world(k=30, d=20)
    f[:, 4] = 0
    scores = match(stack(W), W, f @ W, f)
    table = scores.deciles().to_pydict()
    assert sum(table["features"]) == 29
    assert (np.diff(table["frequency_low"]) >= 0).all()
    mean = np.average(table["f1"], weights=table["features"])
    assert mean == pytest.approx(scores.firing_f1.mean())
    covered = (scores.features["best"][:, f.any(0).numpy()] > 0.9).mean()
    assert np.average(table["coverage"], weights=table["features"]) == pytest.approx(covered)
    with pytest.raises(ValueError, match="how often a feature is on"):
        match(stack(W), W, x).deciles()


def test_a_dictionary_that_finds_frequent_features_only_shows_in_the_deciles():
    rng = np.random.default_rng(0)
    p = np.linspace(0.02, 0.5, 20)
    f = torch.tensor((rng.random((2_000, 20)) < p).astype(np.float32))
    found = dictionary(torch.eye(20)[None, 10:])
    coverage = match(found, torch.eye(20), f, f).deciles()["coverage"].to_pylist()
    assert coverage == [0.0] * 5 + [1.0] * 5


def test_the_table_of_features_has_a_row_for_each_run_and_feature():
    W, f, x = world()
    scores = match(stack(W), W, x, f)
    table = scores.feature_table()
    assert table.num_rows == 3 * 12
    np.testing.assert_array_equal(table["latent"].to_numpy(), scores.assignment.ravel())
    np.testing.assert_allclose(
        table["frequency"].to_numpy()[:12], (f > 0).double().mean(0).numpy(), rtol=1e-6
    )
    rows = match(random_dictionary(8, 5), W).feature_table()
    assert rows.column_names == ["run", "feature", "latent", "best", "cosine"]


def test_the_threshold_says_who_is_covered():
    W, f, x = world()
    strict, loose = (match(stack(W), W, x, f, threshold=cosine) for cosine in (0.99, 0.5))
    assert (strict.recall <= loose.recall).all()
    assert strict.firing_f1.mean() < loose.firing_f1.mean()
    assert np.isnan(
        match(dictionary(-torch.eye(3)[None]), torch.eye(3), f[:, :3], f[:, :3]).shrinkage
    ).all()


def test_the_least_difference_follows_the_spread_over_runs():
    W, f, x = world()
    scores = match(stack(W, runs=5), W, x, f)
    spread = scores.firing_f1.std(ddof=1)
    assert scores.least_difference("firing_f1") == pytest.approx(2.0238 * spread, rel=1e-3)
    assert match(stack(W, runs=1), W).least_difference("mcc") == np.inf
