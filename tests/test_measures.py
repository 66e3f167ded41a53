"""Laws of the measures: what rotation, relabelling, scale and stacking leave as it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose import measures

PER_FEATURE = [
    measures.feature_norms,
    measures.interference,
    measures.dimensionality,
    measures.leverage,
    measures.represented,
]
PER_UNIT = [measures.polysemanticity, measures.participation_ratio, measures.response_selectivity]
PER_MODEL = [
    measures.capacity,
    measures.dims_per_feature,
    measures.coherence,
    measures.frame_potential,
]
EVERY = [*PER_FEATURE, *PER_UNIT, *PER_MODEL, measures.gram]
named = pytest.mark.parametrize


def name(function):
    return function.__name__


def draw(n, m, *run, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*run, n, m, generator=generator, dtype=torch.float64)


def rotation(m, seed=1):
    return torch.linalg.qr(draw(m, m, seed=seed)).Q


def k_gon(k):
    angle = torch.arange(k, dtype=torch.float64) * 2 * np.pi / k
    return torch.stack([angle.cos(), angle.sin()], -1)


def simplex(d):
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    basis = torch.linalg.svd(centred).U[:, :d]
    return centred @ basis


sizes = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(0, 1000))


@named("measure", [*PER_FEATURE, *PER_MODEL, measures.gram], ids=name)
@given(size=sizes)
@settings(max_examples=20, deadline=None)
def test_rotating_the_hidden_space_changes_nothing(measure, size):
    n, m, seed = size
    W = draw(n, m, seed=seed)
    torch.testing.assert_close(measure(W @ rotation(m)), measure(W), atol=1e-9, rtol=1e-7)


@named("measure", PER_FEATURE, ids=name)
def test_relabelling_features_relabels_the_answer(measure):
    W, order = draw(9, 4), torch.randperm(9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(measure(W[order]), measure(W)[order])


@named("measure", [*PER_UNIT, *PER_MODEL], ids=name)
def test_relabelling_features_leaves_units_and_models_alone(measure):
    W = draw(9, 4)
    torch.testing.assert_close(measure(W.flip(0)), measure(W))


@named("measure", EVERY, ids=name)
@named("run", [(), (1,), (3,), (2, 3)], ids=str)
def test_a_stack_equals_its_members(measure, run):
    W = draw(6, 3, *run)
    members = [measure(W[index]) for index in np.ndindex(*run)]
    stacked = torch.stack(members).reshape((*run, *members[0].shape))
    torch.testing.assert_close(measure(W), stacked)


@named("measure", EVERY, ids=name)
@named("dtype", [torch.float32, torch.float64], ids=str)
def test_precision_is_kept(measure, dtype):
    answer = measure(draw(4, 3).to(dtype))
    assert answer.dtype in (dtype, torch.bool, torch.int64)


@named("scale", [1e-30, 1e-3, 7.0, 1e12])
@named(
    "measure",
    [measures.dimensionality, measures.leverage, measures.coherence, *PER_UNIT],
    ids=name,
)
def test_some_measures_do_not_depend_on_scale(measure, scale):
    W = draw(7, 3).to(torch.float32)
    torch.testing.assert_close(measure(scale * W), measure(W), rtol=1e-4, atol=1e-6)


@given(size=sizes)
@settings(max_examples=60, deadline=None)
def test_dimensionality_is_bounded_by_leverage_and_capacity_by_rank(size):
    n, m, seed = size
    W = draw(n, m, seed=seed)
    D, leverage = measures.dimensionality(W), measures.leverage(W)
    assert (D >= 0).all()
    assert (leverage + 1e-9 >= D).all()
    assert (leverage <= 1 + 1e-9).all()
    rank = int(torch.linalg.matrix_rank(W))
    assert measures.capacity(W) <= rank + 1e-9
    assert leverage.sum() == pytest.approx(rank)


@given(size=sizes)
@settings(max_examples=40, deadline=None)
def test_dimensionality_is_scherlis_capacity_and_norm_against_interference(size):
    n, m, seed = size
    W = draw(n, m, seed=seed)
    overlap = measures.gram(W) ** 2
    torch.testing.assert_close(measures.dimensionality(W), overlap.diagonal() / overlap.sum(-1))
    square = measures.feature_norms(W) ** 2
    torch.testing.assert_close(
        measures.dimensionality(W), square / (square + measures.interference(W))
    )


@named("k", [3, 4, 5, 6, 8, 13])
def test_a_k_gon_shares_two_dimensions_equally(k):
    W = 1.3 * k_gon(k)
    torch.testing.assert_close(measures.dimensionality(W), torch.full((k,), 2 / k).double())
    assert measures.capacity(W) == pytest.approx(2)
    assert measures.frame_potential(k_gon(k)) == pytest.approx(k**2 / 2)


@named("d", [1, 2, 3, 4, 9])
def test_a_simplex_has_d_over_d_plus_1_and_meets_the_welch_bound(d):
    W = simplex(d)
    torch.testing.assert_close(
        measures.dimensionality(W), torch.full((d + 1,), d / (d + 1)).double()
    )
    assert measures.coherence(W) == pytest.approx(1 / d)


def test_interference_of_an_antipodal_pair_is_the_square_of_the_other():
    W = torch.tensor([[1.0], [-2.0]])
    torch.testing.assert_close(measures.interference(W), torch.tensor([4.0, 1.0]))


def test_orthogonal_features_are_the_good_end():
    W = rotation(5)[:3]
    torch.testing.assert_close(measures.interference(W), torch.zeros(3).double())
    torch.testing.assert_close(measures.dimensionality(W), torch.ones(3).double())
    assert measures.coherence(W) == pytest.approx(0, abs=1e-9)


@named("measure", [*PER_FEATURE], ids=name)
def test_a_zero_feature_gets_zero_and_disturbs_no_other(measure):
    W = draw(5, 3)
    padded = torch.cat([W, torch.zeros(2, 3).double()])
    torch.testing.assert_close(measure(padded)[:5], measure(W))
    assert not measure(padded)[5:].any()


@named("measure", [measures.coherence, measures.frame_potential, *PER_UNIT], ids=name)
def test_zero_features_change_no_summary(measure):
    W = draw(5, 3)
    torch.testing.assert_close(measure(torch.cat([W, torch.zeros(2, 3).double()])), measure(W))


@named("measure", [m for m in EVERY if m is not measures.dims_per_feature], ids=name)
def test_a_model_that_embeds_nothing_measures_zero(measure):
    assert not measure(torch.zeros(2, 4, 3)).any()


def test_a_model_that_embeds_nothing_has_infinite_room_for_each_feature():
    assert measures.dims_per_feature(torch.zeros(4, 3)) == torch.inf


@named("measure", [measures.interference, measures.dimensionality, measures.coherence], ids=name)
def test_a_diverged_model_does_not_look_like_an_empty_one(measure):
    W = draw(4, 3, 2)
    W[0, 1, 1] = torch.nan
    assert measure(W)[0].isnan().all()
    assert measure(W)[1].isfinite().all()


def test_units_with_one_feature_are_monosemantic_by_all_definitions():
    W = torch.tensor([[1.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    assert measures.polysemanticity(W).tolist() == [1, 1, 0]
    assert measures.participation_ratio(W).tolist() == [1, 1, 0]
    assert measures.response_selectivity(W.abs()).tolist() == [1, 1, 0]


@named("n", [1, 2, 5])
def test_units_that_share_equally_count_all_features(n):
    W = torch.ones(n, 2)
    assert measures.polysemanticity(W).tolist() == [n, n]
    assert measures.participation_ratio(W).tolist() == [n, n]
    torch.testing.assert_close(measures.response_selectivity(W), torch.full((2,), 1 / n))


def test_polysemanticity_counts_above_a_share_of_the_largest():
    W = torch.tensor([[10.0], [2.5], [1.5]])
    counts = [measures.polysemanticity(W, threshold=t).item() for t in (0.1, 0.2, 0.3)]
    assert counts == [3, 2, 1]


@named("threshold", [-0.1, 1.0])
def test_a_threshold_that_counts_nothing_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        measures.polysemanticity(torch.ones(2, 2), threshold)


@given(k=st.integers(1, 20), silent=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_k_equally_active_latents_are_k_effective_features(k, silent):
    z = torch.eye(k, dtype=torch.float64)
    z = torch.cat([-3 * z, torch.zeros(k, silent).double()], -1)
    assert measures.effective_features(z) == pytest.approx(k)


def test_effective_features_of_a_stack_and_of_silence():
    z = torch.rand(3, 50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = torch.stack([measures.effective_features(member) for member in z])
    torch.testing.assert_close(measures.effective_features(z), each)
    assert (each < 6).all()
    assert measures.effective_features(torch.zeros(5, 4)) == 0


def test_dimensionality_has_a_gradient_even_beside_a_zero_feature():
    W = torch.cat([draw(3, 2), torch.zeros(1, 2).double()]).requires_grad_()
    measures.dimensionality(W).sum().backward()
    assert W.grad is not None
    assert W.grad.isfinite().all()
