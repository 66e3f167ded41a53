"""Laws of matching: the order of latents means nothing, but signs do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.unmix import (
    L1,
    SAE,
    attainable,
    confusion,
    match,
    neurons,
    random_dictionary,
    random_mmcs,
    reconstruction,
    saelens_scores,
)

GEOMETRY = ("mmcs", "mmcs_reverse", "mcc", "recall", "precision", "uniqueness", "f1")


def dictionary(directions):
    """An autoencoder whose encoder is its decoder, transposed."""
    W = torch.nn.functional.normalize(torch.as_tensor(directions, dtype=torch.float32), dim=-1)
    *run, d_sae, d_in = W.shape
    code = L1(d_sae=d_sae, coefficient=0.0)
    return SAE(W.mT.contiguous(), torch.zeros(*run, d_sae), W, torch.zeros(*run, d_in), code)


def sphere(rows, d, seed=0):
    return torch.tensor(np.random.default_rng(seed).standard_normal((rows, d)), dtype=torch.float32)


def test_the_truth_matched_with_itself_is_perfect():
    truth = sphere(6, 40)
    scores = match(dictionary(truth[None]), truth).scores
    for name in GEOMETRY:
        np.testing.assert_allclose(scores[name], 1.0, atol=1e-6, err_msg=name)


@given(st.integers(1, 8), st.integers(2, 6), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_order_of_latents_and_length_of_truth_mean_nothing(k, d, d_sae, seed):
    truth, latents, x = sphere(k, d, seed), sphere(d_sae, d, seed + 1), sphere(50, d, seed + 2)
    active = sphere(50, k, seed + 3) > 0
    order = torch.from_numpy(np.random.default_rng(seed).permutation(d_sae))
    one = match(dictionary(latents[None]), truth, x, active)
    two = match(dictionary(latents[order][None]), truth * 7, x, active)
    for name, score in one.scores.items():
        np.testing.assert_allclose(two.scores[name], score, atol=1e-5, err_msg=name)
    for name in ("recall", "precision", "uniqueness", "f1", "dead", "firing_f1"):
        assert 0.0 <= one.scores[name].item() <= 1.0


def test_a_stack_equals_its_members():
    truth, x = sphere(5, 4), sphere(64, 4, 1)
    stack = dictionary(torch.stack([sphere(7, 4, seed) for seed in range(3)]))
    together = match(stack, truth, x, x @ truth.T > 1)
    for run in range(3):
        alone = match(stack[run], truth, x, x @ truth.T > 1)
        for name, score in together.scores.items():
            np.testing.assert_allclose(alone.scores[name], score[run : run + 1], atol=1e-6)


def test_flipped_signs_do_not_count():
    truth = torch.eye(4)
    flipped = match(dictionary(-truth[None]), truth)
    assert flipped.recall.item() == flipped.precision.item() == 0.0
    assert match(neurons(4), -truth).recall.item() == 1.0


def test_duplicates_lower_uniqueness_and_strays_lower_precision():
    truth = torch.eye(3)
    latents = torch.cat([truth, truth[:1], -truth[:2]])
    scores = match(dictionary(latents[None]), truth)
    assert scores.recall.item() == 1.0
    assert scores.precision.item() == pytest.approx(4 / 6)
    assert scores.uniqueness.item() == pytest.approx(3 / 6)
    assert scores.mcc.item() == pytest.approx(1.0)


def test_a_dictionary_that_is_too_small_leaves_features_uncovered():
    x = torch.eye(3)
    scores = match(dictionary(torch.eye(3)[None, :1]), torch.eye(3), x, x > 0)
    assert sorted(scores.assignment[0].tolist()) == [-1, -1, 0]
    for name in ("recall", "mcc", "firing_precision", "firing_recall", "firing_f1"):
        assert scores.scores[name].item() == pytest.approx(1 / 3), name


@pytest.mark.parametrize(("d", "latents"), [(1, 3), (2, 4), (5, 20), (20, 40)])
def test_the_random_baseline_is_the_simulated_one(d, latents):
    truth = torch.eye(d)
    stack = torch.stack([sphere(latents, d, seed) for seed in range(400)])
    scores = match(dictionary(stack), truth)
    error = scores.mmcs.std() / np.sqrt(400)
    assert abs(scores.mmcs.mean() - random_mmcs(d, latents)) < 4 * error
    assert scores.mmcs_random[0] == random_mmcs(d, latents)


def test_scores_on_samples_follow_their_definitions():
    truth = torch.eye(2)
    # The third latent points where no sample lies and never fires.
    sae = dictionary(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]]))
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 1.0], [0.0, 0.0]])
    active = torch.tensor([[True, False], [True, True], [False, False], [True, False]])
    scores = match(sae, truth, x, active)
    assert scores.l0.item() == pytest.approx(4 / 4)
    assert scores.explained_variance.item() == pytest.approx(1.0)
    assert scores.dead.item() == pytest.approx(1 / 3)
    assert scores.precision.item() == pytest.approx(1.0)
    assert scores.firing_precision.item() == pytest.approx((1 + 1 / 2) / 2)
    assert scores.firing_recall.item() == pytest.approx((2 / 3 + 1) / 2)
    assert scores.firing_f1.item() == pytest.approx((0.8 + 2 / 3) / 2)


def test_features_that_are_never_on_are_left_out():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert match(neurons(2), torch.eye(2), x, x > 0).firing_f1.item() == 1.0
    assert np.isnan(match(neurons(2), torch.eye(2), x, torch.zeros(2, 2) > 0).firing_f1).all()


def test_explained_variance_of_a_constant_is_the_mean_of_nothing():
    assert np.isnan(match(neurons(2), torch.eye(2), torch.ones(4, 2)).explained_variance).all()


def test_tables_and_intervals():
    stack = dictionary(torch.stack([torch.eye(3), -torch.eye(3)]))
    scores = match(stack, torch.eye(3))
    assert scores.table().column_names[:2] == ["run", "mmcs"]
    assert scores.table()["recall"].to_pylist() == [1.0, 0.0]
    assert scores.interval("recall").estimate == 0.5


def test_scores_that_do_not_exist_are_named():
    scores = match(neurons(2), torch.eye(2))
    with pytest.raises(AttributeError, match=r"match\.l0 was not measured: .* activations"):
        _ = scores.l0
    with pytest.raises(AttributeError, match="the scores are mmcs"):
        _ = scores.recal


def test_bad_truth_and_activity_are_refused():
    sae = neurons(2)
    with pytest.raises(ValueError, match=r"true directions \[1\] have no length"):
        match(sae, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="d_in=2"):
        match(sae, torch.eye(3))
    with pytest.raises(ValueError, match="needs the activations"):
        match(sae, torch.eye(2), active=torch.eye(2) > 0)
    with pytest.raises(ValueError, match="active of shape"):
        match(sae, torch.eye(2), torch.eye(2), torch.zeros(3, 2) > 0)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_arrays_of_any_floating_type_are_scored_as_tensors_are(kind):
    rng = np.random.default_rng(0)
    W, f = rng.standard_normal((3, 4)), rng.random((50, 3)) * (rng.random((50, 3)) < 0.4)
    sae, x = dictionary(torch.tensor(W[None], dtype=torch.float32)), f @ W
    tables = [torch.tensor(each, dtype=torch.float32) for each in (W, x, f)]
    scores = match(sae, *tables)
    arrays = [each.numpy().astype(kind) for each in tables]
    assert match(sae, *arrays).scores == scores.scores
    one, other = (match(sae, arrays[0], arrays[1], on > 0) for on in (arrays[2], tables[2]))
    assert one.scores == other.scores
    assert torch.equal(sae.encode(arrays[1]), sae.encode(tables[1]))
    assert reconstruction(sae, arrays[1]).table() == reconstruction(sae, tables[1]).table()
    for what in (confusion, saelens_scores):
        assert str(what(sae, *arrays)) == str(what(sae, *tables))
    assert attainable(sae, *arrays).scores == attainable(sae, *tables).scores


@pytest.mark.parametrize("call", [match, confusion, attainable, saelens_scores])
def test_samples_of_another_width_are_refused_by_name(call):
    x, wide = torch.eye(2), torch.eye(3)
    with pytest.raises(ValueError, match=rf"{call.__name__}: activations of shape \[3, 3\]"):
        call(neurons(2), x, wide, wide)
    with pytest.raises(ValueError, match=rf"{call.__name__}: activations have no samples"):
        call(neurons(2), x, x[:0], x[:0])
    with pytest.raises(ValueError, match=rf"{call.__name__}: true directions of shape \[3, 3\]"):
        call(neurons(2), wide, x, x)
    if call is not match:
        return
    with pytest.raises(ValueError, match="threshold=nan"):
        call(neurons(2), x, threshold=float("nan"))


def test_what_is_on_is_not_enough_for_what_is_attainable():
    x = torch.eye(2)
    with pytest.raises(ValueError, match="give amplitudes"):
        attainable(neurons(2), x, x, x > 0)


def test_pairs_are_of_features_that_there_are():
    x = torch.eye(2)
    with pytest.raises(ValueError, match="from 0 to 1, but they go from 0 to 2"):
        confusion(neurons(2), x, x, x, pairs=np.array([[0, 2]]))


def test_samples_to_encode_have_the_width_of_the_dictionary():
    with pytest.raises(ValueError, match=r"encode: samples of shape \[2, 3\]"):
        dictionary(torch.ones(1, 1, 2)).encode(torch.ones(2, 3))


def test_random_directions_are_no_recovery():
    scores = match(random_dictionary(20, 40, seed=1), sphere(30, 20))
    assert scores.recall.item() < 0.1
    assert scores.mmcs.item() == pytest.approx(scores.mmcs_random.item(), abs=0.06)
