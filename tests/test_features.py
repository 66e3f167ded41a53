import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import coo_matrix, csr_array

from superpose.features import Constant, Exponential, Features, HalfNormal
from superpose.theory import covariance, mean, second_moments

BATCH = 200_000
WORLDS = {
    "dense": Features(n=3, p=1.0),
    "sparse": Features(n=4, p=0.03),
    "unequal": Features(n=4, p=[0.9, 0.3, 0.05, 0.3]),
    "correlated": Features.correlated(sets=2, size=3, p=[0.2, 0.6]),
    "anticorrelated": Features.anticorrelated(sets=2, size=2, p=0.4),
    "exactly one": Features.exactly_one(n=5),
    "exponential": Features(n=3, p=0.3, amplitude=Exponential(0.5)),
    "signed half-normal": Features.correlated(
        sets=2, size=2, p=0.4, amplitude=HalfNormal(2.0), signed=True
    ),
    "constant": Features.anticorrelated(sets=2, size=2, p=0.8, amplitude=Constant(3.0)),
    "signed uniform": Features(n=3, p=0.5, signed=True),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_samples_have_the_moments_of_their_law(world):
    x = world.sample(BATCH, seed=1).double().numpy()
    second = second_moments(world)
    spread = np.sqrt(covariance(world).diagonal() / BATCH)
    assert np.all(np.abs(x.mean(0) - mean(world)) <= 5 * spread + 1e-9)
    products = np.einsum("ti,tj->ij", x, x) / BATCH
    fourth = np.einsum("ti,tj->ij", x**2, x**2) / BATCH
    assert np.all(np.abs(products - second) <= 5 * np.sqrt(fourth / BATCH) + 1e-6)
    active = (x != 0).mean(0)
    p = world.probability
    assert np.all(np.abs(active - p) <= 5 * np.sqrt(p * (1 - p) / BATCH) + 1e-9)


def test_correlated_members_go_together_and_anticorrelated_ones_never_do():
    together = WORLDS["correlated"].sample(5_000).reshape(-1, 2, 3) > 0
    assert (together.all(-1) == together.any(-1)).all()
    alone = WORLDS["anticorrelated"].sample(5_000).reshape(-1, 2, 2) > 0
    assert alone.sum(-1).max() == 1
    assert ((WORLDS["exactly one"].sample(5_000) > 0).sum(-1) == 1).all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 30),
    p=st.floats(1e-3, 1.0),
    batch=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
)
def test_dense_and_sparse_batches_are_the_same_numbers(n, p, batch, seed):
    world = Features(n=n, p=p)
    sparse = world.sample_sparse(batch, seed)
    assert sparse.has_canonical_format
    assert torch.equal(world.sample(batch, seed), torch.from_numpy(sparse.toarray()))
    assert torch.equal(world.sample(batch, seed), world.sample(batch, seed))
    assert sparse.data.size == 0 or (sparse.data.min() > 0 and sparse.data.max() <= 1)


def test_the_cost_of_a_sparse_batch_follows_its_active_entries():
    # A dense draw of this batch would need 400 GB.
    batch = Features(n=100_000, p=1e-6).sample_sparse(1_000_000, seed=0)
    assert abs(batch.nnz - 100_000) < 5 * np.sqrt(100_000)


@pytest.mark.parametrize(
    ("amplitude", "law"),
    [(Exponential(0.5), stats.expon(scale=0.5)), (HalfNormal(2.0), stats.halfnorm(scale=2.0))],
    ids=["exponential", "half-normal"],
)
def test_magnitudes_follow_their_law(amplitude, law):
    x = Features(n=2, p=0.7, amplitude=amplitude).sample_sparse(20_000, seed=3).data
    assert x.dtype == np.float32
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    assert amplitude.mean == pytest.approx(law.mean())
    assert amplitude.square == pytest.approx(law.var() + law.mean() ** 2)


def test_signed_features_are_negative_half_of_the_time_and_their_sizes_do_not_know_it():
    x = Features(n=1, p=1.0, signed=True).sample(20_000, seed=4)[:, 0].numpy()
    assert stats.binomtest(int((x < 0).sum()), x.size).pvalue > 1e-3
    assert stats.ks_2samp(x[x > 0], -x[x < 0]).pvalue > 1e-3


def test_worlds_are_values():
    a, b = Features(n=2, p=[0.1, 0.2]), Features(n=2, p=(0.1, 0.2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != Features(n=2, p=[0.1, 0.3])
    assert Features(n=2) != Features(n=2, signed=True)
    assert Features(n=2, amplitude=Exponential()) != Features(n=2, amplitude=HalfNormal())
    assert Features(n=3, importance=0.5).importances.tolist() == [1.0, 0.5, 0.25]
    assert Features(n=2, importance=[2.0, 0.0]).importances.tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n": 2, "p": 1.5}, "lies in .0, 1."),
        ({"n": 2, "p": 0.0}, "lies in .0, 1."),
        ({"n": 2, "p": -0.1}, "lies in"),
        ({"n": 2, "p": float("nan")}, "lies in"),
        ({"n": 2, "p": 95.0}, "for 95 % pass p=0.95"),
        ({"n": 3, "p": [0.1, 0.2]}, "there are 3 to give one each"),
        ({"n": 3, "importance": [1.0]}, "importance has shape .1."),
        ({"n": 2, "importance": -1.0}, "at least 0"),
        ({"n": 0}, "whole number of at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_names_the_value_and_the_law(arguments, says):
    with pytest.raises(ValueError, match=says):
        Features(**arguments)
    with pytest.raises(ValueError, match="batch"):
        Features(n=2).sample(0)
    with pytest.raises(ValueError, match="seed"):
        Features(n=2).sample(1, seed=-1)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("amplitude", [Exponential, HalfNormal, Constant])
def test_a_scale_that_is_not_positive_is_refused(amplitude, wrong):
    with pytest.raises(ValueError, match="positive and finite"):
        amplitude(wrong)


X = np.array([[0.0, 2.0, 0.0], [-1.0, 0.5, 0.0]])


@pytest.mark.parametrize(
    "form", [np.asarray, np.ndarray.tolist, torch.from_numpy, csr_array, coo_matrix]
)
def test_points_are_the_same_in_every_form(form):
    world, plain = Features.finite(form(X)), Features.finite(X)
    assert world == plain
    assert hash(world) == hash(plain)
    assert world.points.toarray().tolist() == X.tolist()
    assert world.points.dtype == np.float32


def test_a_finite_world_reads_its_law_from_the_points():
    world = Features.finite(X, importance=0.5)
    assert (world.n, world.p) == (3, (0.5, 1.0, 0.0))
    assert world.probability.tolist() == world.set_probability.tolist() == [0.5, 1.0, 0.0]
    assert world.importances.tolist() == [1.0, 0.5, 0.25]
    assert world != Features.finite(X)
    assert world != Features.finite(X[::-1], importance=0.5)
    assert replace(world, importance=1.0) == Features.finite(X)
    assert Features(n=3).points is None


def test_a_finite_world_draws_its_points_each_as_often():
    world = Features.finite(np.arange(1.0, 5.0)[:, None])
    drawn = world.sample(8_000, seed=1)[:, 0]
    counts = np.bincount(drawn.long())[1:]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert torch.equal(drawn, world.sample(8_000, seed=1)[:, 0])
    assert not torch.equal(drawn, world.sample(8_000, seed=2)[:, 0])
    assert torch.equal(drawn, torch.from_numpy(world.sample_sparse(8_000, 1).toarray())[:, 0])


def test_points_are_copies_that_stay():
    x = csr_array(X)
    world = Features.finite(x)
    x.data[:] = 9.0
    assert world == Features.finite(X)
    with pytest.raises(ValueError, match="read-only"):
        world.points.data[:] = 0
    zeros = csr_array((np.zeros(2), ([0, 1], [1, 1])), shape=(2, 3))
    assert Features.finite(zeros).points.nnz == 0
    assert pickle.loads(pickle.dumps(world)) == world


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([1.0, 2.0], r"shape \[2\]"),
        (np.zeros((0, 3)), r"shape \[0, 3\]"),
        (np.zeros((2, 2, 2)), "matrix of numbers"),
        ([[1.0], [1.0, 2.0]], "matrix of numbers"),
        ([["a"]], "matrix of numbers"),
        ([[np.nan]], "NaN or infinite"),
        (csr_array([[np.inf]]), "NaN or infinite"),
        ([[1e300]], "too large for float32"),
    ],
    ids=["one axis", "none", "three axes", "ragged", "text", "nan", "infinite", "large"],
)
def test_what_is_no_data_set_is_refused(points, says):
    with pytest.raises(ValueError, match=says):
        Features.finite(points)


@pytest.mark.parametrize("change", [{"p": 0.3}, {"n": 4}, {"signed": True}], ids=str)
def test_a_finite_world_says_nothing_but_its_points(change):
    with pytest.raises(ValueError, match=r"Features.finite\(points"):
        replace(Features.finite(X), **change)
    with pytest.raises(ValueError, match="those of its points"):
        Features.finite(X).active_values(np.ones(2))
