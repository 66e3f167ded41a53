import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.features import Features
from superpose.theory import covariance, expected_loss, feature_losses, mean

# --- an oracle in exact rational arithmetic, by inclusion and exclusion ---


def _patterns(world):
    """(probability, active features) for every pattern of activity, exactly."""
    size = world.law.size
    options = []
    for s, p in enumerate(map(Fraction, world.set_probability.tolist())):
        members = list(range(s * size, (s + 1) * size))
        on = [(p / size, [j]) for j in members] if world.law.exclusive else [(p, members)]
        options.append([(1 - p, []), *on])
    for choice in product(*options):
        yield math.prod(q for q, _ in choice), [j for _, members in choice for j in members]


def _corners(b, c):
    for corner in product((0, 1), repeat=len(c)):
        y = b + sum(e * x for e, x in zip(corner, c, strict=True))
        yield (-1) ** (len(c) - sum(corner)), corner, max(y, Fraction(0))


def _square(b, c):
    """E ReLU(b + c·x)², x uniform on the unit cube and no c_j zero."""
    k = len(c)
    total = sum(sign * y ** (k + 2) for sign, _, y in _corners(b, c))
    return 2 * total / (math.factorial(k + 2) * math.prod(c))


def _product(b, c, i):
    """E x_i ReLU(b + c·x)."""
    k = len(c)
    total = sum(sign * e[i] * y ** (k + 1) for sign, e, y in _corners(b, c))
    return total / (math.factorial(k + 1) * math.prod(c)) - _square(b, c) / (2 * c[i])


def _relu_mean(b, c):
    k = len(c)
    total = sum(sign * y ** (k + 1) for sign, _, y in _corners(b, c))
    return total / (math.factorial(k + 1) * math.prod(c))


def exact_feature_losses(W, b, world, W_out=None):
    gram = (W if W_out is None else W_out).double().numpy() @ W.double().numpy().T
    losses = []
    for i in range(world.n):
        loss, offset = Fraction(world.probability[i]) / 3, Fraction(b[i].item())
        for probability, active in _patterns(world):
            support = [j for j in active if gram[i, j] != 0.0]
            c = [Fraction(gram[i, j]) for j in support]
            loss += probability * _square(offset, c)
            if i in support:
                loss -= 2 * probability * _product(offset, c, support.index(i))
            elif i in active:
                loss -= probability * _relu_mean(offset, c)
        losses.append(float(loss))
    return np.array(losses)


# --- worlds and weights of the kinds that occur ---


def _world(law, n, p, rng):
    importance = rng.uniform(0.1, 1, n).tolist()
    if law == "independent":
        return Features(n=n, p=(p * rng.uniform(0.2, 1, n)).tolist(), importance=importance)
    if law == "exactly one":
        return Features.exactly_one(n, importance=importance)
    size = next(k for k in (3, 2, 5, 1) if n % k == 0)
    make = {"correlated": Features.correlated, "anticorrelated": Features.anticorrelated}[law]
    return make(sets=n // size, size=size, p=p, importance=importance)


def _weights(kind, n, m, rng):
    if kind == "random":
        return torch.from_numpy(rng.normal(size=(n, m)) / np.sqrt(m)), torch.from_numpy(
            rng.normal(size=n) * 0.2
        )
    angle = 2 * np.pi * np.arange(n) / 5
    W = np.zeros((n, max(m, 2 * -(-n // 5))))
    for i in range(n):
        W[i, 2 * (i // 5) : 2 * (i // 5) + 2] = 1.13 * np.cos(angle[i]), 1.13 * np.sin(angle[i])
    if kind == "orthogonal":
        W = np.eye(n, max(n - 1, 1))
    b = np.where(np.arange(n) % 2, -0.2, 0.0)
    return torch.from_numpy(W + 1e-5 * rng.normal(size=W.shape)), torch.from_numpy(b)


LAWS = ["independent", "correlated", "anticorrelated", "exactly one"]
KINDS = ["random", "orthogonal", "pentagons"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", LAWS)
def test_agrees_with_inclusion_and_exclusion(law, kind):
    for n, p in ((1, 1.0), (2, 0.05), (3, 0.4), (4, 1.0), (5, 0.1)):
        rng = np.random.default_rng(n)
        world = _world(law, n, p, rng)
        W, b = _weights(kind, n, 2, rng)
        exact = exact_feature_losses(W, b, world)
        scale = world.probability / 3
        for tolerance in (1e-3, 1e-6, 1e-9):
            found = feature_losses(W, b, world, tolerance=tolerance).numpy()
            assert np.all(np.abs(found - exact) <= tolerance * scale + 2e-14)


@pytest.mark.parametrize(("law", "n"), [("independent", 7), ("correlated", 6), ("exactly one", 7)])
def test_agrees_with_inclusion_and_exclusion_of_many_features(law, n):
    rng = np.random.default_rng(n)
    world = _world(law, n, 0.4, rng)
    W, b = _weights("random", n, 3, rng)
    found = feature_losses(W, b, world, tolerance=1e-8).numpy()
    assert found == pytest.approx(exact_feature_losses(W, b, world), abs=1e-8 / 3)


@pytest.mark.parametrize("b", [0.0, 1e-9, -1e-9, 1e-4, -1e-4, -0.3, 0.3])
@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.03])
def test_holds_through_every_scale_of_interference_and_bias(gap, b):
    W = torch.tensor([[1.0, 0.0], [gap, 1.0], [-gap, gap], [0.0, -1.0]], dtype=torch.float64)
    offset = torch.full((4,), b, dtype=torch.float64)
    for world in (Features(n=4, p=0.1), Features.anticorrelated(sets=2, size=2, p=0.3)):
        exact = exact_feature_losses(W, offset, world)
        found = feature_losses(W, offset, world).numpy()
        assert np.all(np.abs(found - exact) <= 1e-6 * world.probability / 3 + 1e-14)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 4),
    m=st.integers(1, 3),
    p=st.floats(0.001, 1.0),
    law=st.sampled_from(LAWS),
    exponents=st.lists(st.integers(-7, 1), min_size=12, max_size=12),
    tied=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_inclusion_and_exclusion_at_any_scale(n, m, p, law, exponents, tied, seed):
    rng = np.random.default_rng(seed)
    world = _world(law, n, p, rng)
    scale = 10.0 ** np.array(exponents)
    W = torch.from_numpy(rng.normal(size=(n, m)) * scale[:n, None])
    b = torch.from_numpy(rng.normal(size=n) * scale[4 : 4 + n])
    W_out = W if tied else torch.from_numpy(rng.normal(size=(n, m)) * scale[8 : 8 + n, None])
    exact = exact_feature_losses(W, b, world, W_out)
    found = feature_losses(W, b, world, W_out=None if tied else W_out).numpy()
    reach = 1 + (W_out @ W.T).abs().sum(1).numpy() + b.abs().numpy()
    assert np.all(np.abs(found - exact) <= 1e-6 * world.probability / 3 + 4e-14 * reach**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("output", ["relu", "linear"])
def test_agrees_with_samples(law, kind, output):
    for n, p in ((2, 1.0), (20, 0.3), (60, 0.05)):
        rng = np.random.default_rng(n)
        world = _world(law, n, p, rng)
        W, b = _weights(kind, n, 5, rng)
        x = world.sample(40_000, seed=n + 1).double()
        y = x @ W @ W.T + b
        error = (x - (y.relu() if output == "relu" else y)) ** 2
        sums = error @ torch.from_numpy(world.importances)
        found = expected_loss(W, b, world, output).item()
        assert abs(found - sums.mean()) <= 4 * sums.std() / np.sqrt(len(sums)) + 1e-12


# --- closed forms ---


@pytest.mark.parametrize("p", [0.05, 0.3, 4 / 7, 1.0])
@pytest.mark.parametrize("a", [0.9, 1.0])
def test_antipodal_pair_without_bias(a, p):
    W = torch.tensor([[math.sqrt(a)], [-math.sqrt(a)]], dtype=torch.float64)
    exact = 2 * (p * (1 - p) * (1 - a) ** 2 / 3 + p**2 * (1 / 3 - a / 4 + a**2 / 12))
    world = Features(n=2, p=p)
    assert expected_loss(W, torch.zeros(2), world).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.3, 1.0])
def test_confused_pair_loses_the_variance_of_one_feature(p):
    W = torch.full((2, 1), math.sqrt(0.5), dtype=torch.float64)
    found = expected_loss(W, torch.zeros(2), Features(n=2, p=p)).item()
    assert found == pytest.approx(p / 3 - p**2 / 4, rel=1e-14)


def test_regular_pentagon():
    angle = 2 * np.pi * torch.arange(5) / 5
    W = 1.1345 * torch.stack([angle.cos(), angle.sin()], 1).double()
    b = torch.full((5,), -0.2462, dtype=torch.float64)
    found = expected_loss(W, b, Features(n=5, p=0.05)).item()
    assert found == pytest.approx(8.9036e-3, abs=1e-8)


def test_dead_features_lose_what_their_bias_does_not_save():
    world = Features.exactly_one(n=4)
    dead = torch.zeros(4, 2)
    assert feature_losses(dead, torch.full((4,), -1.0), world)[0].item() == pytest.approx(1 / 12)
    saved = feature_losses(dead, torch.full((4,), 1 / 8), world)[0].item()
    assert saved == pytest.approx(1 / 12 - 1 / 64)


def test_outputs_above_zero_are_those_of_the_linear_model():
    rng = np.random.default_rng(0)
    for law in LAWS:
        world = _world(law, 6, 0.4, rng)
        W = torch.from_numpy(rng.uniform(0, 1, (6, 3)))
        b = torch.from_numpy(rng.uniform(0, 1, 6))
        linear = feature_losses(W, b, world, "linear")
        torch.testing.assert_close(feature_losses(W, b, world), linear, rtol=1e-12, atol=0)


def test_outputs_below_zero_leave_the_second_moment():
    world = Features.correlated(sets=3, size=2, p=0.4, importance=0.5)
    W = torch.eye(6, 3).double()
    found = expected_loss(W, torch.full((6,), -2.0), world).item()
    moments = np.diag(covariance(world)) + mean(world) ** 2
    assert found == pytest.approx(float(moments @ world.importances), rel=1e-14)


# --- laws ---


@pytest.mark.parametrize("output", ["relu", "linear"])
def test_a_stack_equals_its_members(output):
    rng = np.random.default_rng(0)
    world = _world("correlated", 6, 0.2, rng)
    W = torch.from_numpy(rng.normal(size=(2, 3, 6, 2)))
    b = torch.from_numpy(rng.normal(size=(2, 3, 6)))
    stack = expected_loss(W, b, world, output)
    assert stack.shape == (2, 3)
    for r in range(2):
        for s in range(3):
            alone = expected_loss(W[r, s], b[r, s], world, output)
            torch.testing.assert_close(stack[r, s], alone, rtol=1e-14, atol=0)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 4), p=st.floats(0.01, 1.0), seed=st.integers(0, 999))
def test_rotation_and_relabelling_change_nothing(n, m, p, seed):
    rng = np.random.default_rng(seed)
    world = Features(n=n, p=p)
    W, b = rng.normal(size=(n, m)), torch.from_numpy(rng.normal(size=n))
    rotation, order = np.linalg.qr(rng.normal(size=(m, m)))[0], rng.permutation(n)
    found = feature_losses(torch.from_numpy(W), b, world)
    turned = feature_losses(torch.from_numpy(W @ rotation), b, world)
    torch.testing.assert_close(turned, found, rtol=1e-9, atol=1e-12)
    renamed = feature_losses(torch.from_numpy(W[order]), b[order], world)
    torch.testing.assert_close(renamed, found[order], rtol=1e-9, atol=1e-12)


def test_the_error_keeps_to_its_tolerance_in_many_features():
    rng = np.random.default_rng(0)
    world = Features(n=40, p=0.03)
    W = torch.from_numpy(rng.normal(size=(40, 6)) / np.sqrt(6))
    for b in (torch.zeros(40).double(), torch.from_numpy(rng.normal(size=40) * 0.1)):
        best = feature_losses(W, b, world, tolerance=1e-8)
        for tolerance in (1e-2, 1e-4, 1e-6):
            error = (feature_losses(W, b, world, tolerance=tolerance) - best).abs()
            assert error.max() <= tolerance * 0.01


def test_the_loss_is_the_weighted_sum_of_the_features():
    rng = np.random.default_rng(0)
    world = _world("independent", 7, 0.5, rng)
    W, b = _weights("random", 7, 3, rng)
    weighted = feature_losses(W, b, world) @ torch.from_numpy(world.importances)
    assert expected_loss(W, b, world).item() == pytest.approx(weighted.item())


def test_low_precision_weights_are_read_as_they_are():
    world = Features(n=3, p=0.5)
    W, b = torch.randn(3, 2).bfloat16(), torch.zeros(3).half()
    assert expected_loss(W, b, world) == expected_loss(W.double(), b.double(), world)
    assert expected_loss(W, b, world).dtype == torch.float64


@pytest.mark.parametrize("output", ["relu", "linear"])
def test_a_diverged_model_has_no_loss_and_spoils_no_other(output):
    W, b = torch.eye(2).double().repeat(4, 1, 1), torch.zeros(4, 2).double()
    W[1, 0, 0] = torch.inf
    b[2, 0] = torch.nan
    W[3] = 1e80
    loss = expected_loss(W, b, Features(n=2, p=0.5), output)
    assert loss[0] == pytest.approx(0.0, abs=1e-12)
    assert not loss[1:].isfinite().any()


def test_a_stack_of_no_models_has_no_losses():
    found = expected_loss(torch.zeros(0, 3, 2), torch.zeros(0, 3), Features(n=3))
    assert found.shape == (0,)


@pytest.mark.parametrize(
    ("W", "b", "keywords", "says"),
    [
        ((4, 2), (3,), {}, r"b \[3\].*shape \[4\]"),
        ((2, 3), (2,), {}, r"n=4 features.*transpose"),
        ((4, 2), (4,), {"tolerance": 0.0}, r"tolerance=0.0.*\[1e-10, 1e-2\]"),
    ],
)
def test_bad_input_is_refused_with_advice(W, b, keywords, says):
    with pytest.raises(ValueError, match=says):
        expected_loss(torch.zeros(W), torch.zeros(b), Features(n=4), **keywords)
