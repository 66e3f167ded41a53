"""Batches as docs/sampler.md specifies them, bit for bit, and their laws, by what they come to."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import reference_sampler as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from superpose import features, theory
from superpose.features import Constant, Exponential, Features, HalfNormal, Uniform
from superpose.kernels import cpu
from superpose.kernels.batches import draw_batch
from superpose.kernels.streams import stream_key, tables
from superpose.models import ToyModel

PAGE = Path(__file__).parents[2] / "docs" / "sampler.md"
ROWS = re.findall(r"^\| `([^|]+)` \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
GOLDEN = [(call, values) for call, values in ROWS if not values.startswith("`")]

STEPS, BATCH = 256, 1024
SAMPLES = STEPS * BATCH
WORLDS = {
    "dense": Features(n=5, p=1.0),
    "plain": Features(n=4, p=(0.9, 0.3, 0.05, 0.5)),
    "conditional": Features(n=5, p=0.1),
    "unequal": Features(n=4, p=(0.3, 0.02, 0.2, 0.1)),
    "very sparse": Features(n=20, p=0.004),
    "correlated": Features.correlated(sets=2, size=3, p=(0.2, 0.6)),
    "correlated, plain": Features.correlated(sets=2, size=3, p=(0.5, 0.7)),
    "anticorrelated": Features.anticorrelated(sets=3, size=2, p=(0.1, 0.3, 0.4)),
    "anticorrelated, plain": Features.anticorrelated(sets=2, size=3, p=(0.4, 0.8)),
    "exactly one": Features.exactly_one(n=6),
    "exactly one of one": Features.exactly_one(n=1),
    "anticorrelated, alone": Features.anticorrelated(sets=3, size=1, p=0.2),
    "signed": Features(n=4, p=0.2, signed=True),
    "signed, plain": Features(n=4, p=0.5, signed=True),
    "signed, correlated": Features.correlated(sets=2, size=2, p=0.3, signed=True),
    "signed, exactly one": Features.exactly_one(n=3, signed=True),
    "exponential": Features(n=3, p=0.3, amplitude=Exponential(0.5)),
    "exponential, signed, plain": Features(n=3, p=0.7, amplitude=Exponential(2.0), signed=True),
    "half-normal, correlated": Features.correlated(
        sets=2, size=2, p=(0.2, 0.6), amplitude=HalfNormal(2.0)
    ),
    "half-normal, signed": Features(n=3, p=0.3, amplitude=HalfNormal(0.3), signed=True),
    "half-normal, anticorrelated": Features.anticorrelated(
        sets=2, size=2, p=0.8, amplitude=HalfNormal(1.0)
    ),
    "constant": Features(n=4, p=0.2, amplitude=Constant(0.1)),
    "constant, signed, anticorrelated": Features.anticorrelated(
        sets=2, size=2, p=0.4, amplitude=Constant(3.0), signed=True
    ),
}


def _draw(world, batch, seed=1, run=2, step=0):
    return draw_batch(world, batch, stream_key(seed, run), step)


@pytest.fixture(scope="module", params=WORLDS, ids=list(WORLDS))
def drawn(request):
    """A world and all samples of many steps `[SAMPLES, n]`, empty ones included."""
    world = WORLDS[request.param]
    return world, np.concatenate([_draw(world, BATCH, step=step) for step in range(STEPS)])


def _golden_names():
    worlds = {name: world.strip("`") for name, world in ROWS if world.startswith("`")}
    names = {**vars(features), **vars(reference)}
    names["ratios"] = lambda *ratios: np.array(ratios, np.float32)
    return names | {name: eval(world, names) for name, world in worlds.items()}


def _golden_integers(value):
    value = np.atleast_1d(value)
    if value.dtype.kind == "f":
        value = value.view(f"u{value.itemsize}")
    return value.ravel().tolist()


@pytest.mark.parametrize(("call", "values"), GOLDEN, ids=[call for call, _ in GOLDEN])
def test_the_reference_gives_the_golden_vectors(call, values):
    expected = [int(value, 0) for value in values.split()]
    assert _golden_integers(eval(call, _golden_names())) == expected


def _kernel_count(world, batch, seed, run, step):
    return int((_draw(world, batch, seed, run, step) != 0).any(1).sum())


KERNEL = {"batch": _draw, "count": _kernel_count, "model_key": stream_key}
KERNEL_CALL = re.compile(r"\[?(checksum\()?(batch|count|model_key)\(")
KERNEL_GOLDEN = [row for row in GOLDEN if KERNEL_CALL.match(row[0])]


@pytest.mark.parametrize(("call", "values"), KERNEL_GOLDEN, ids=[call for call, _ in KERNEL_GOLDEN])
def test_the_kernel_gives_the_golden_vectors(call, values):
    expected = [int(value, 0) for value in values.split()]
    assert _golden_integers(eval(call, _golden_names() | KERNEL)) == expected


# From what the thresholds barely resolve to certainty.
PROBABILITY = st.floats(-31.0, 0.0).map(lambda power: 2.0**power) | st.sampled_from(
    [0.01, 0.3, 1.0]
)
AMPLITUDES = [Uniform(), Exponential(0.7), HalfNormal(1.3), Constant(0.1)]


def _assert_same_batches(world, batch, seed, run, step):
    expected = reference.batch(world, batch, seed, run, step)
    drawn = _draw(world, batch, seed, run, step)
    np.testing.assert_array_equal(drawn.view(np.uint32), expected.view(np.uint32))


@settings(max_examples=200, deadline=None)
@given(
    p=st.lists(PROBABILITY, min_size=1, max_size=6),
    size=st.integers(1, 4),
    law=st.sampled_from(["correlated", "anticorrelated"]),
    amplitude=st.sampled_from(AMPLITUDES),
    signed=st.booleans(),
    batch=st.integers(1, 400),
    place=st.tuples(
        st.integers(0, 2**32) | st.just(2**64 - 1),
        st.integers(0, 10**6),
        st.integers(0, 10**6) | st.just(2**40),
    ),
)
def test_the_kernel_draws_what_the_reference_does(p, size, law, amplitude, signed, batch, place):
    options = {"p": p, "amplitude": amplitude, "signed": signed}
    if size > 1:
        world = getattr(Features, law)(sets=len(p), size=size, **options)
    else:
        world = Features(n=len(p), **options)
    _assert_same_batches(world, batch, *place)


@pytest.mark.parametrize("batch", [1, 128, 129, 2_500])
@pytest.mark.parametrize(
    "world",
    [
        Features(n=1, p=1.0),
        Features(n=130, p=0.002),
        Features(n=130, p=0.3, amplitude=Exponential(2.0), signed=True),
        Features.exactly_one(n=70),
        Features.correlated(sets=50, size=3, p=0.01, amplitude=HalfNormal(1.0)),
    ],
    ids=["one feature", "sparse", "plain", "exactly one", "correlated"],
)
def test_the_kernel_draws_large_worlds_and_batches_as_the_reference_does(world, batch):
    _assert_same_batches(world, batch, 3, 4, 5)


TRAINED = {
    "small, plain": ("small", 2, WORLDS["plain"]),
    "small, conditional": ("small", 2, WORLDS["half-normal, correlated"]),
    "dense, plain": ("dense", 4, Features(n=40, p=0.5, amplitude=Exponential(0.5), signed=True)),
    "dense, conditional": ("dense", 20, Features.correlated(sets=1, size=8, p=0.6)),
    "sparse, plain": ("sparse", 20, Features(n=100, p=0.02, amplitude=Constant(0.3))),
    "sparse, conditional": ("sparse", 20, Features.anticorrelated(sets=10, size=10, p=0.05)),
    "points": ("sparse", 2, Features.finite(np.eye(5) + 0.5)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_steps_have_the_loss_of_these_batches_with_their_empty_samples(name):
    way, m, world = TRAINED[name]
    model, batch, first, steps = ToyModel(n=world.n, m=m), 300, 7, 3
    assert cpu.way(model, world) == way
    theta = np.random.default_rng(0).normal(size=(2, world.n * (m + 1))).astype(np.float32)
    keys = [stream_key(1, run) for run in range(2)]
    losses = np.empty((2, steps), np.float32)
    stack = (theta, np.zeros((2, 2, theta.shape[1]), np.float32), np.array(keys, np.uint64))
    recipe = cpu.Recipe(np.ones(world.n, np.float32), batch, 0.0, 0.0, first)
    # At rates of 0 the weights stay, so that each loss is that of its batch alone.
    pace = (np.zeros((1, steps), np.float32), losses)
    cpu.train(model, world, tables(world, batch), recipe, stack, pace)
    for run, step in itertools.product(range(2), range(steps)):
        x = torch.from_numpy(draw_batch(world, batch, keys[run], first + step)).double()
        W, b = torch.from_numpy(theta[run]).double().split([world.n * m, world.n])
        loss = model.loss(x, W.reshape(world.n, m), b, importance=torch.ones(world.n).double())
        assert losses[run, step] == pytest.approx(float(loss), rel=1e-5)


def _raw_moment(amplitude, power):
    if isinstance(amplitude, Exponential):
        return math.factorial(power) * amplitude.scale**power
    if isinstance(amplitude, HalfNormal):
        return float(stats.halfnorm(scale=amplitude.scale).moment(power))
    return amplitude.value**power if isinstance(amplitude, Constant) else 1 / (power + 1)


def _within(seen, expected, variance, bias=2e-6, sigmas=5.0):
    """A mean over the samples is as expected, up to chance and a relative `bias`."""
    spread = sigmas * np.sqrt(np.maximum(variance, 0.0) / SAMPLES)
    np.testing.assert_array_less(np.abs(seen - expected), spread + bias * np.abs(expected) + 1e-12)


def test_moments_follow_the_law(drawn):
    world, x = drawn[0], drawn[1].astype(np.float64)
    p = world.probability
    second, fourth, eighth = (p * _raw_moment(world.amplitude, power) for power in (2, 4, 8))
    _within(x.mean(0), theory.mean(world), second - theory.mean(world) ** 2)
    _within((x**2).mean(0), second, fourth - second**2)
    _within((x**4).mean(0), fourth, eighth - fourth**2, bias=5e-6)


def _joint_activity(world):
    """P(i and j are both active), `[n, n]`."""
    p = world.probability
    joint, sets = np.outer(p, p), np.arange(world.n) // world.law.size
    inside = np.equal.outer(sets, sets)
    joint[inside] = 0.0 if world.law.exclusive else np.repeat(p, world.law.size)
    np.fill_diagonal(joint, p)
    return joint


def test_features_are_active_together_as_often_as_the_law_says(drawn):
    world, on = drawn[0], (drawn[1] != 0).astype(np.float64)
    joint = _joint_activity(world)
    _within(on.T @ on / SAMPLES, joint, joint * (1 - joint))


def test_products_of_features_follow_the_law(drawn):
    world, x = drawn[0], drawn[1].astype(np.float64)
    apart = ~np.eye(world.n, dtype=bool)
    expected = theory.second_moments(world)[apart]
    square = _joint_activity(world)[apart] * world.amplitude.square**2
    _within((x.T @ x / SAMPLES)[apart], expected, square - expected**2)


def _agree(seen, law, least=10.0):
    """Counts follow probabilities, by chi-square over the cells that expect at least ten."""
    expected = np.asarray(law) * seen.sum()
    common = expected >= least
    assert seen[expected == 0].sum() == 0
    cells = np.append(expected[common], expected[~common].sum())
    counts = np.append(seen[common], seen[~common].sum())
    kept = cells > 1
    if kept.sum() > 1:
        statistic = ((counts - cells)[kept] ** 2 / cells[kept]).sum()
        assert stats.chi2.sf(statistic, kept.sum() - 1) > 1e-5


def _poisson_binomial(probability):
    law = np.array([1.0])
    for q in probability:
        law = np.convolve(law, [1 - q, q])
    return law


def test_the_number_of_active_sets_is_poisson_binomial(drawn):
    world, x = drawn
    sets = (x.reshape(SAMPLES, world.sets, world.law.size) != 0).any(-1).sum(-1)
    _agree(np.bincount(sets, minlength=world.sets + 1), _poisson_binomial(world.set_probability))


@pytest.mark.parametrize("name", ["conditional", "unequal", "plain", "correlated", "very sparse"])
def test_the_number_of_samples_that_are_not_empty_is_binomial(name):
    world, batch, steps = WORLDS[name], 48, 2_000
    on = np.stack([(_draw(world, batch, step=step) != 0).any(1) for step in range(steps)])
    counts = on.sum(1)
    some = 1 - np.prod(1 - world.set_probability)
    law = stats.binom.pmf(np.arange(batch + 1), batch, some)
    _agree(np.bincount(counts, minlength=batch + 1), law)
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 5 / np.sqrt(steps)
    if reference.integers(world).conditional:
        assert (on == (np.arange(batch) < counts[:, None])).all()


def _cdf(amplitude):
    if isinstance(amplitude, Uniform):
        return stats.uniform.cdf
    kind = stats.expon if isinstance(amplitude, Exponential) else stats.halfnorm
    return kind(scale=amplitude.scale).cdf


def test_magnitudes_follow_their_law_in_the_first_active_set_and_in_later_ones(drawn):
    world, size = drawn[0], np.abs(drawn[1])
    if isinstance(world.amplitude, Constant):
        assert set(np.unique(size).tolist()) == {0.0, float(np.float32(world.amplitude.value))}
        return
    first = np.argmax(size > 0, axis=1) // world.law.size
    leads = np.arange(world.n) // world.law.size == first[:, None]
    for part in (size[leads & (size > 0)], size[~leads & (size > 0)]):
        # Features of a sample share no draw, so that active entries are independent.
        if part.size:
            assert stats.kstest(part[: 2**16], _cdf(world.amplitude)).pvalue > 1e-5
    if isinstance(world.amplitude, Uniform):
        assert size.max() <= 1.0


def test_signs_are_fair_and_know_nothing_of_magnitudes_and_neighbours(drawn):
    world, x = drawn[0], drawn[1].astype(np.float64)
    if not world.signed:
        assert x.min() >= 0
        return
    sign = np.sign(x)
    others = sign.copy(), np.abs(sign), np.abs(x)
    for index, other in enumerate(others):
        total, square = sign.T @ other, (sign**2).T @ other**2
        if index == 0:
            np.fill_diagonal(total, 0.0)
        np.testing.assert_array_less(np.abs(total), 5 * np.sqrt(square) + 1e-12)


@pytest.mark.parametrize("name", ["dense", "plain", "conditional", "signed, correlated"])
def test_steps_models_seeds_and_neighbouring_samples_are_uncorrelated(name):
    world = WORLDS[name]
    places = [
        (1, 2, 0),
        (1, 2, 1),
        (1, 2, 2),
        (1, 3, 0),
        (1, 3, 1),
        (1, 4, 0),
        (2, 2, 0),
        (3, 1, 0),
    ]
    drawn = [_draw(world, 2**14, *place) for place in places]
    # The samples that are not empty come first in each, which is order and no correlation.
    common = min((x != 0).any(1).sum() if _counts(world) else len(x) for x in drawn)
    columns = [x[:common] for x in drawn]
    columns = np.hstack([*(x[:-1] for x in columns), *(x[1:] for x in columns)])
    which = np.repeat(np.arange(2 * len(drawn)), world.n)
    off = ~np.equal.outer(which, which)
    with np.errstate(invalid="ignore"):
        correlation = np.corrcoef(columns.T)
    assert np.abs(correlation[off]).max() < 5 / np.sqrt(common)


def _counts(world):
    return reference.integers(world).conditional


def test_draws_of_neighbouring_counters_lanes_steps_and_models_are_independent():
    def draws(run=0, step=0, lane=0, start=0):
        key = reference.step_key(reference.model_key(0, run), step, reference.CELL)
        return reference.hash32(np.arange(start, start + 2**18), reference.lane_key(key, lane))

    here = draws()
    for there in (draws(start=1), draws(lane=1), draws(step=1), draws(run=1)):
        for shift in (0, 14, 28):
            digits = [(u >> np.uint32(shift)) & np.uint32(15) for u in (here, there)]
            table = np.bincount(digits[0] * np.uint32(16) + digits[1], minlength=256)
            assert stats.chisquare(table).pvalue > 1e-5


@settings(max_examples=60, deadline=None)
@given(p=st.lists(st.floats(1e-7, 1.0), min_size=1, max_size=5))
def test_thresholds_make_the_probability_of_every_pattern(p):
    world = Features(n=len(p), p=p)
    law = reference.integers(world)
    on = (law.on.astype(np.float64) + 1) / 2**32
    first = np.diff((law.first.astype(np.float64) + 1) / 2**32, prepend=0.0)
    for pattern in itertools.product([False, True], repeat=len(p)):
        expected = np.prod(np.where(pattern, p, 1 - np.array(p)))
        if not any(pattern):
            seen = law.none
        elif law.conditional:
            lead = pattern.index(True)
            later = np.where(pattern, on, 1 - on)[lead + 1 :]
            seen = law.some * first[lead] * np.prod(later)
        else:
            seen = np.prod(np.where(pattern, on, 1 - on))
        assert abs(seen - expected) <= len(p) * 2.0**-31


@pytest.mark.parametrize("batch", [1, 7, 100, 4096])
@pytest.mark.parametrize("p", [2.0**-31, 1e-4, 0.05, 0.5, 0.74])
def test_the_binomial_table_is_the_distribution_of_counts(p, batch):
    table = reference.binomial_table(Features(n=1, p=p), batch)
    rounded = reference.integers(Features(n=1, p=p)).some
    expected = stats.binom.cdf(np.arange(batch), batch, rounded)
    np.testing.assert_allclose(table / 2.0**53, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("amplitude", [Exponential(0.5), HalfNormal(2.0)], ids=str)
def test_lines_between_knots_bias_means_by_less_than_a_part_in_a_million(amplitude):
    # The integral over all ratios, in closed form: more than any number of draws would see.
    knots = reference.knots(amplitude).astype(np.float64)
    bits = np.arange(95 << 8, (127 << 8) + 1, dtype=np.uint32) << np.uint32(15)
    width = np.diff(bits.view(np.float32).astype(np.float64))
    left, right = knots[:-1], knots[1:]
    mean = (width * (left + right) / 2).sum()
    square = (width * (left**2 + left * right + right**2) / 3).sum()
    assert abs(mean / amplitude.mean - 1) < 1e-6
    assert abs(square / amplitude.square - 1) < 1e-6


@pytest.mark.parametrize("amplitude", [Exponential(0.5), HalfNormal(2.0)], ids=str)
def test_every_ratio_has_a_magnitude_near_its_quantile(amplitude):
    random = np.random.default_rng(0)
    ratio = np.exp2(-32 * random.random(2**16)).astype(np.float32)
    ratio = np.append(ratio, np.array([2.0**-32, 1 - 2.0**-24, 1.0], np.float32))
    seen = reference.magnitude(amplitude, ratio)
    exact = amplitude.magnitudes(np.minimum(ratio, 1 - 2.0**-25).astype(np.float64))
    assert seen.min() > 0
    # The chord of a convex curve over a 256th of an octave: at most (1/256)²/8 of its scale.
    np.testing.assert_allclose(seen, exact, rtol=1e-6, atol=2e-6 * amplitude.scale)


@given(values=st.integers(1, 2**31))
def test_ratios_lie_above_0_and_end_at_1(values):
    scale = reference.scale(values)
    last = (np.float32(values - 1) + np.float32(0.5)) * scale
    assert 0 < np.float32(0.5) * scale <= last <= 1
    assert float(last) > 1 - 2.0**-22 - 0.5 / values


def test_the_last_bit_of_a_draw_that_is_on_is_fair():
    for world in WORLDS.values():
        assert (reference.integers(world).on % 2 == 1).all()
