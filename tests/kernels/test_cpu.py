import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from superpose.features import Constant, Exponential, Features, HalfNormal
from superpose.kernels import batches, cpu, streams
from superpose.models import ToyModel

WORLDS = {
    "dense": Features(n=5, p=1.0),
    "sparse": Features(n=5, p=0.1),
    "very sparse": Features(n=20, p=0.004),
    "unequal": Features(n=4, p=(0.9, 0.3, 0.05, 0.5)),
    "correlated": Features.correlated(sets=2, size=3, p=(0.2, 0.6)),
    "anticorrelated": Features.anticorrelated(sets=3, size=2, p=0.4),
    "exactly one": Features.exactly_one(n=6),
}
BATCH = 2**18


@pytest.fixture(scope="module", params=WORLDS, ids=list(WORLDS))
def drawn(request):
    world = WORLDS[request.param]
    return world, batches.draw_batch(world, BATCH, key=streams.stream_key(1, 2), step=3).astype(
        np.float64
    )


def _within(sample_mean, expected, spread, sigmas=5.0):
    assert np.all(np.abs(sample_mean - expected) <= sigmas * spread / np.sqrt(BATCH) + 1e-6)


def test_moments_follow_the_law(drawn):
    world, x = drawn
    p = world.probability
    _within((x > 0).mean(0), p, np.sqrt(p * (1 - p)))
    _within(x.mean(0), p / 2, np.sqrt(p / 3 - p**2 / 4))
    _within((x**2).mean(0), p / 3, np.sqrt(p / 5 - p**2 / 9))


@pytest.mark.parametrize(
    "amplitude", [Exponential(0.5), HalfNormal(2.0), Constant(3.0)], ids=lambda a: str(a)
)
@pytest.mark.parametrize("signed", [False, True])
def test_worlds_that_are_not_uniform_share_the_stream_and_keep_their_moments(amplitude, signed):
    plain = Features.correlated(sets=2, size=2, p=(0.2, 0.6))
    world = Features.correlated(sets=2, size=2, p=(0.2, 0.6), amplitude=amplitude, signed=signed)
    x = batches.draw_batch(world, BATCH, key=7, step=3).astype(np.float64)
    assert np.array_equal(x != 0, batches.draw_batch(plain, BATCH, key=7, step=3) > 0)
    mean = np.zeros(4) if signed else world.probability * amplitude.mean
    square = world.probability * amplitude.square
    _within(x.mean(0), mean, x.std(0))
    _within((x**2).mean(0), square, (x**2).std(0))


def test_joint_activity_follows_the_law(drawn):
    world, x = drawn
    on = (x > 0).astype(np.float64)
    p, size = world.probability, world.law.size
    same_set = np.equal.outer(np.arange(world.n) // size, np.arange(world.n) // size)
    inside = 0.0 if world.law.exclusive else np.repeat(world.set_probability, size)[:, None]
    joint = np.where(same_set, inside, np.outer(p, p))
    np.fill_diagonal(joint, p)
    _within(on.T @ on / BATCH, joint, np.sqrt(joint * (1 - joint)))


def test_active_sets_per_sample_are_poisson_binomial(drawn):
    world, x = drawn
    sets = (x.reshape(BATCH, world.sets, world.law.size) > 0).any(-1).sum(-1)
    law = np.array([1.0])
    for q in world.set_probability:
        law = np.convolve(law, [1 - q, q])
    expected = law * BATCH
    seen = np.bincount(sets, minlength=len(law)).astype(np.float64)
    common = expected > 10
    assert seen[expected == 0].sum() == 0
    if common.sum() > 1:
        expected = np.append(expected[common], expected[~common].sum() + 1e-9)
        seen = np.append(seen[common], seen[~common].sum())
        keep = expected > 1
        statistic = ((seen - expected)[keep] ** 2 / expected[keep]).sum()
        assert stats.chi2.sf(statistic, keep.sum() - 1) > 1e-5


def test_amplitudes_are_uniform_on_the_unit_interval(drawn):
    _, x = drawn
    active = x[x > 0]
    assert active.max() <= 1.0
    # Features of a sample share no draw, so the active entries are independent.
    assert stats.kstest(active[: 2**16], "uniform").pvalue > 1e-5


def test_steps_and_models_draw_differently():
    world = Features(n=5, p=0.5)
    keys = [streams.stream_key(0, run) for run in range(3)]
    drawn = [batches.draw_batch(world, 4096, key, step) for key in keys for step in range(3)]
    flat = np.corrcoef(np.stack(drawn).reshape(len(drawn), -1))
    assert np.abs(flat[~np.eye(len(drawn), dtype=bool)]).max() < 5 / np.sqrt(drawn[0].size)


def _float64_gradient(model, x, W, b, importance):
    W, b = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (W, b))
    x, importance = torch.tensor(x, dtype=torch.float64), torch.tensor(importance)
    model.loss(x, W, b, importance.double()).backward()
    return W.grad.numpy(), b.grad.numpy()


def _assert_gradients_agree(model, x, W, b, importance):
    got = batches.batch_gradient(model, x, W, b, importance)
    for fused, exact in zip(got, _float64_gradient(model, x, W, b, importance), strict=True):
        np.testing.assert_allclose(fused, exact, rtol=2e-4, atol=2e-5)


# Each shape and pair of activations is a compilation of seconds, so they are few and Hypothesis
# draws the rest.
MODELS = [
    ToyModel(n=1, m=1),
    ToyModel(n=2, m=4, hidden="relu"),
    ToyModel(n=3, m=3, output="linear"),
    ToyModel(n=5, m=2, hidden="relu", output="linear"),
    ToyModel(n=21, m=5),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
@settings(max_examples=25, deadline=None)
@given(
    p=st.sampled_from([0.02, 0.4, 1.0]),
    batch=st.sampled_from([1, 127, 128, 300]),
    seed=st.integers(0, 2**16),
)
def test_gradients_equal_autograd_in_float64(model, p, batch, seed):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(model.n, model.m)).astype(np.float32)
    b = rng.normal(size=model.n).astype(np.float32) * 0.3
    importance = rng.random(model.n).astype(np.float32)
    x = Features(n=model.n, p=p).sample(batch, seed=seed).numpy()
    _assert_gradients_agree(model, x, W, b, importance)


@pytest.mark.parametrize("case", ["empty batch", "zero bias", "dead features", "zero weights"])
def test_gradients_at_the_edges(case):
    model, world = ToyModel(n=5, m=2), Features(n=5, p=0.5)
    W, b = (a.numpy() for a in model.initial(0, 0))
    x = world.sample(200, seed=0).numpy()
    if case == "empty batch":
        x, b = x * 0, b + 0.1
    elif case == "zero bias":
        W = np.abs(W)
    elif case == "dead features":
        b = b - 100
    else:
        W = W * 0
    _assert_gradients_agree(model, x, W, b, np.ones(5, np.float32))


def test_thresholds_cover_every_draw():
    law = streams.thresholds(Features(n=3, p=1.0))
    assert law.nonempty == 2**32 - 1
    assert law.first.tolist() == [2**32 - 1] * 3


def test_compiled_kernels_are_found_again_on_disk():
    # Another process must not compile what this one did: its cache key may hold no object whose
    # pickle differs from process to process.
    kernel = cpu.training_kernel(ToyModel(n=5, m=2), Features(n=5).law)
    captured = [cell.cell_contents for cell in kernel.py_func.__closure__]
    numbers = [v for value in captured for v in (value if isinstance(value, tuple) else (value,))]
    assert {type(number) for number in numbers} <= {int, bool}
