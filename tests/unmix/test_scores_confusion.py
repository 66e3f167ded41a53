"""Laws of the confusion map: each pathology is exactly 0 and exactly 1 on dictionaries by hand."""

import numpy as np
import pytest
import torch

from superpose.statistics import proportion_interval
from superpose.unmix import L1, SAE, confusion
from superpose.unmix.absorption import nested
from superpose.unmix.comparison import Rules, overlaps
from superpose.unmix.firing import sparse_rows

AXES = torch.eye(3)


def dictionary(encoder, decoder, b_enc=None):
    """An autoencoder of these encoder and decoder rows, one a latent."""
    E, D = (torch.as_tensor(rows, dtype=torch.float32) for rows in (encoder, decoder))
    *run, d_sae, d_in = D.shape
    b = torch.zeros(*run, d_sae) if b_enc is None else torch.tensor(b_enc)
    D = torch.nn.functional.normalize(D, dim=-1)
    code = L1(d_sae=d_sae, coefficient=0.0)
    return SAE(E.mT.contiguous(), b, D, torch.zeros(*run, d_in), code)


def hierarchy(samples=2_000, seed=0):
    """Feature 1 is on only where feature 0 is; feature 2 is by itself."""
    rng = np.random.default_rng(seed)
    parent = rng.random(samples) < 0.4
    child = parent & (rng.random(samples) < 0.5)
    return torch.tensor(np.stack([parent, child, rng.random(samples) < 0.3], 1)).float()


def absorbing(strength):
    """The parent's latent is inhibited by its child, whose own says both (F12)."""
    encoder = [[1.0, -strength, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    return dictionary(encoder, [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def test_the_parent_that_its_child_silences_is_absorbed_and_the_truth_absorbs_nothing():
    f = hierarchy()
    bad, good = confusion(absorbing(1.0), AXES, f, f), confusion(dictionary(AXES, AXES), AXES, f, f)
    assert bad.scores["absorption"].tolist() == [1.0]
    assert good.scores["absorption"].tolist() == [0.0]
    (row,) = bad.absorption.to_pylist()
    assert (row["parent"], row["child"], row["latents"]) == (0, 1, [1])
    assert row["samples"] == int(f[:, 1].sum())
    assert row["weakening"] == pytest.approx(1.0)


def test_a_parent_that_is_only_weakened_is_no_silent_one():
    f = hierarchy()
    (row,) = confusion(absorbing(0.25), AXES, f, f).absorption.to_pylist()
    assert row["rate"] == row["rate_low"] == 0.0 < row["rate_high"] < 0.01
    assert row["weakening"] == pytest.approx(0.25)


def test_absorption_in_half_of_the_samples_is_one_half():
    f = hierarchy()
    third = f[:, 2:] * f[:, 1:2]
    f[:, 2:] = third
    # The parent is silenced only where the child and the third feature are on.
    sae = dictionary([[1.0, -0.5, -0.5], [0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    (row,) = confusion(sae, AXES, f, f, np.array([[0, 1]])).absorption.to_pylist()
    hits, samples = int(third.sum()), int(f[:, 1].sum())
    exact = proportion_interval(hits, samples)
    assert row["rate"] == pytest.approx(exact.estimate)
    assert (row["rate_low"], row["rate_high"]) == pytest.approx((exact.low, exact.high))


def test_resampled_samples_give_absorption_the_interval_of_its_counts():
    f = hierarchy()
    f[:, 2:] *= f[:, 1:2]
    sae = dictionary([[1.0, -0.5, -0.5], [0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    found = confusion(sae, AXES, f, f, np.array([[0, 1]]))
    exact = proportion_interval(int(f[:, 2].sum()), int(f[:, 1].sum()))
    interval = found.sample_interval("absorption")
    assert interval.estimate == pytest.approx(exact.estimate)
    third = (exact.high - exact.low) / 6
    assert interval.low == pytest.approx(exact.low, abs=third)
    assert interval.high == pytest.approx(exact.high, abs=third)
    assert found.sample_interval("absorption") == interval


def test_what_no_sample_can_change_has_no_width_and_what_cannot_be_judged_none():
    f = hierarchy()
    found = confusion(absorbing(1.0), AXES, f, f)
    interval = found.sample_interval("absorption", resamples=20)
    assert (interval.low, interval.estimate, interval.high) == (1.0, 1.0, 1.0)
    assert np.isnan(found.sample_interval("hedging", resamples=5).estimate)


def test_a_parent_without_a_latent_cannot_be_absorbed():
    f = hierarchy()
    sae = dictionary(AXES[1:], AXES[1:])
    found = confusion(sae, AXES, f, f)
    assert np.isnan(found.scores["absorption"]).all()
    assert np.isnan(found.absorption["rate"].to_numpy()).all()


def test_nested_features_are_found_with_ancestors_and_no_others():
    rng = np.random.default_rng(0)
    top = rng.random(3_000) < 0.3
    middle = top & (rng.random(3_000) < 0.5)
    low = middle & (rng.random(3_000) < 0.5)
    rare = np.zeros(3_000, bool)
    rare[np.flatnonzero(top)[:3]] = True
    often = rng.random(3_000) < 0.99
    table = torch.tensor(np.stack([top, middle, low, rare, often, low], 1))
    pairs = {tuple(pair) for pair in nested(sparse_rows(table)).tolist()}
    assert pairs == {(0, 1), (0, 2), (1, 2), (0, 5), (1, 5)}


def test_one_feature_in_two_disjoint_latents_is_split_and_duplicates_are_not():
    f = hierarchy()
    f[:, 1] = 0
    # Feature 0 with and without feature 2.
    split = dictionary([[1.0, 0.0, -10.0], [1.0, 0.0, 10.0]], AXES[[0, 0]], b_enc=[0.0, -10.0])
    twice = dictionary(AXES[[0, 0]], AXES[[0, 0]])
    found = confusion(split, AXES, f, f)
    assert found.scores["splitting"].tolist() == [1.0]
    (row,) = found.splitting.to_pylist()
    assert row == {"run": 0, "feature": 0, "latents": [0, 1], "overlap": 0.0}
    assert confusion(twice, AXES, f, f).scores["splitting"].tolist() == [0.0]
    assert np.isnan(confusion(dictionary(-AXES, -AXES), AXES, f, f).scores["splitting"]).all()


def test_one_latent_of_two_features_merges_and_says_whether_it_needs_both():
    rng = np.random.default_rng(0)
    f = torch.zeros(1_000, 3)
    f[:, 0] = torch.tensor(rng.random(1_000) < 0.5).float()
    f[:, 1] = torch.tensor(rng.random(1_000) < 0.5).float()
    both = [[1.0, 1.0, 0.0]]
    needs = confusion(dictionary(both, both, b_enc=[-1.5]), AXES, f, f)
    assert needs.scores["merging"].tolist() == [1.0]
    (row,) = needs.merging.to_pylist()
    assert sorted(row["features"]) == [0, 1]
    assert row["cosines"] == pytest.approx([0.5**0.5] * 2)
    assert row["together"] == 1.0
    f[:, 1] = 1 - f[:, 0]
    (row,) = confusion(dictionary(both, both), AXES, f, f).merging.to_pylist()
    assert row["together"] == 0.0
    f[:, 1] = 0
    assert confusion(dictionary(both, both), AXES, f, f).scores["merging"].tolist() == [0.0]


def test_coherent_directions_are_no_confusion():
    W = torch.tensor([[1.0, 0.0, 0.0], [0.7, 0.71414284, 0.0], [0.0, 0.0, 1.0]])
    f = hierarchy()
    inverse = torch.linalg.inv(W).mT
    found = confusion(dictionary(inverse - 1e-4, W, [-0.01] * 3), W, f @ W, f)
    for name in ("absorption", "splitting", "merging"):
        assert found.scores[name].tolist() == [0.0], name


def correlated(q12=0.15, q1=0.4, q2=0.4, samples=40_000):
    """Two features, on with probabilities q1 and q2, both at once with q12."""
    u = np.random.default_rng(0).random(samples)
    one = u < q1
    two = (u < q12) | ((u >= q1) & (u < q1 + q2 - q12))
    return torch.tensor(np.stack([one, two], 1)).float()


def test_a_latent_that_stands_for_a_missing_feature_too_hedges():
    f = correlated(q12=0.3)
    axis, half = [[1.0, 0.0]], [[1.0, 1.0]]
    good, bad = (confusion(dictionary(d, d), torch.eye(2), f, f) for d in (axis, half))
    assert good.scores["hedging"].tolist() == [0.0]
    assert bad.scores["hedging"].tolist() == [1.0]
    assert bad.scores["hedging_component"] == pytest.approx(0.5**0.5)
    opposite = confusion(dictionary([[1.0, -1.0]], [[1.0, -1.0]]), torch.eye(2), f, f)
    assert opposite.scores["hedging_component"] == pytest.approx(-(0.5**0.5))


def test_exclusive_features_are_hedged_with_the_other_sign():
    f = correlated(q12=0.0)
    away = [[1.0, -0.5]]
    (row,) = confusion(dictionary(away, away), torch.eye(2), f, f).hedging.to_pylist()
    assert row["correlation"] < 0 < row["component"]


@pytest.mark.parametrize(("q12", "q1", "q2"), [(0.1, 0.5, 0.3), (0.25, 0.5, 0.3)])
def test_the_best_single_latent_hedges_as_the_closed_form_says(q12, q1, q2):
    f = correlated(q12, q1, q2)
    moments = (f.T @ f).double()
    _, axes = torch.linalg.eigh(moments)
    top = axes[:, -1].float() * axes[:, -1].sum().sign()
    theta = 0.5 * torch.atan2(2 * moments[0, 1], moments[0, 0] - moments[1, 1])
    rules = Rules(correlated=0.0)
    found = confusion(dictionary(top[None], top[None]), torch.eye(2), f, f, rules=rules)
    (row,) = found.hedging.to_pylist()
    sign = np.sign(row["correlation"])
    assert sign * row["component"] == pytest.approx(float(theta.sin()), rel=1e-5)


def test_nothing_missing_or_correlated_leaves_nothing_to_hedge():
    f = correlated()
    assert np.isnan(
        confusion(dictionary(torch.eye(2), torch.eye(2)), torch.eye(2), f, f).scores["hedging"]
    ).all()


def test_the_map_says_who_answers_to_whom():
    f = hierarchy()
    found = confusion(dictionary(AXES, AXES), AXES, f, f).map.to_pylist()
    assert [(row["feature"], row["latent"]) for row in found if row["cosine"] > 0.5] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    for row in found:
        if row["feature"] == row["latent"]:
            assert row["latent_given_feature"] == row["feature_given_latent"] == 1.0


def noisy(runs=3, k=10, d=6, d_sae=14, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: torch.tensor(rng.standard_normal(shape)).float()  # noqa: E731
    W = torch.nn.functional.normalize(draw(k, d), dim=-1)
    f = torch.tensor((rng.random((1_500, k)) < 0.2) * rng.uniform(0.5, 1.5, (1_500, k))).float()
    f[:, 1] *= f[:, 0] > 0
    D = torch.nn.functional.normalize(
        W[torch.tensor(rng.integers(0, k, (runs, d_sae)))] + 0.3 * draw(runs, d_sae, d), dim=-1
    )
    return W, f, dictionary(D, D, (-0.4 * np.ones((runs, d_sae), np.float32)).tolist())


def test_a_stack_is_its_members():
    W, f, sae = noisy()
    whole = confusion(sae, W, f @ W, f)
    for run in range(3):
        alone = confusion(sae[run], W, f @ W, f)
        for name, score in whole.scores.items():
            np.testing.assert_allclose(alone.scores[name], score[run : run + 1], atol=1e-6)
        mine = [row | {"run": run} for row in alone.merging.to_pylist()]
        theirs = [row for row in whole.merging.to_pylist() if row["run"] == run]
        assert [row["features"] for row in mine] == [row["features"] for row in theirs]


def test_the_order_of_latents_means_nothing():
    W, f, sae = noisy(runs=1)
    order = torch.from_numpy(np.random.default_rng(1).permutation(14))
    shuffled = SAE(
        sae.W_enc[..., order], sae.b_enc[..., order], sae.W_dec[:, order], sae.b_dec, sae.code
    )
    one, two = (confusion(each, W, f @ W, f) for each in (sae, shuffled))
    for name, score in one.scores.items():
        np.testing.assert_allclose(two.scores[name], score, atol=1e-6, err_msg=name)
    assert one.map.num_rows == two.map.num_rows
    assert one.interval("merging").estimate == one.scores["merging"][0]
    for interval in (one.interval, one.sample_interval):
        with pytest.raises(ValueError, match="the scores are absorption"):
            interval("hedge")
    with pytest.raises(ValueError, match="resamples=0"):
        one.sample_interval("merging", resamples=0)


def test_overlaps_are_those_of_dense_tables():
    rng = np.random.default_rng(0)
    a, b = (torch.tensor(rng.random((200, n)) < 0.3).float() for n in (5, 7))
    first, second = rng.integers(0, 5, 30), rng.integers(0, 7, 30)
    found = overlaps(sparse_rows(a), first, sparse_rows(b), second, at_once=7)
    np.testing.assert_array_equal(found, (a[:, first] * b[:, second]).sum(0))


@pytest.mark.parametrize("wrong", [{"found": 1.0}, {"trace": -0.1}, {"least": 0}], ids=str)
def test_rules_name_their_laws(wrong):
    with pytest.raises(ValueError, match=r"Rules\("):
        Rules(**wrong)
