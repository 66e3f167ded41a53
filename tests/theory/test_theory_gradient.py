import numpy as np
import pytest
import torch

from superpose.features import Constant, Exponential, Features, HalfNormal, Uniform
from superpose.theory import expected_loss, loss_and_gradient

AMPLITUDES = [Uniform(), Exponential(0.7), HalfNormal(1.6)]


def _worlds(amplitude=AMPLITUDES[0], signed=False):
    importance = [0.9, 0.3, 1.0, 0.5, 0.7, 0.2]
    given = {"importance": importance, "amplitude": amplitude, "signed": signed}
    return [
        Features(n=6, p=[0.1, 0.9, 0.4, 0.2, 1.0, 0.05], **given),
        Features.correlated(sets=2, size=3, p=[0.3, 0.8], **given),
        Features.anticorrelated(sets=3, size=2, p=[0.2, 0.6, 1.0], **given),
        Features.exactly_one(6, **given),
    ]


def _model(seed, n=6, m=3):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.normal(size=(n, m)) / np.sqrt(m))
    return W, torch.from_numpy(rng.normal(size=n) * 0.3)


def _differences(loss, at, step=1e-5):
    """Central differences of fourth order, whose own error is far below 1e-6."""
    found = torch.zeros_like(at)
    for k in range(at.numel()):
        move = torch.zeros_like(at)
        move.view(-1)[k] = step
        near = loss(at + move) - loss(at - move)
        far = loss(at + 2 * move) - loss(at - 2 * move)
        found.view(-1)[k] = (8 * near - far) / (12 * step)
    return found


@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("amplitude", AMPLITUDES, ids=lambda law: type(law).__name__)
def test_the_gradient_is_that_of_finite_differences(amplitude, signed, output):
    for seed, world in enumerate(_worlds(amplitude, signed)):
        W, b = _model(seed)
        found = loss_and_gradient(W, b, world, output, tolerance=1e-6)
        of_W = _differences(lambda W: expected_loss(W, b, world, output, tolerance=1e-6), W)  # noqa: B023
        of_b = _differences(lambda b: expected_loss(W, b, world, output, tolerance=1e-6), b)  # noqa: B023
        torch.testing.assert_close(found.W, of_W, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.b, of_b, rtol=0, atol=1e-6)
        assert found.loss.item() == expected_loss(W, b, world, output, tolerance=1e-6).item()


def test_the_gradient_at_any_tolerance_is_near_the_exact_one():
    for seed, world in enumerate(_worlds()):
        W, b = _model(seed)
        exact = loss_and_gradient(W, b, world, tolerance=1e-10)
        for tolerance in (1e-3, 1e-4, 1e-6):
            found = loss_and_gradient(W, b, world, tolerance=tolerance)
            # Not a theorem, as for the loss: a share of the square root is what is observed.
            assert (found.W - exact.W).abs().max() <= tolerance**0.5 / 10
            assert (found.b - exact.b).abs().max() <= tolerance**0.5 / 10


def test_slopes_of_one_feature_in_closed_form():
    # L = p/3 − 2p E[x ReLU(ax + b)] + p E[ReLU(ax + b)²] + (1 − p) ReLU(b)² with b < 0 < a + b.
    a, b, p = 0.8, -0.3, 0.4
    t = -b / a
    x_y = [(1 - t**k) / k for k in range(1, 5)]
    of_b = 2 * p * (a * x_y[1] + b * x_y[0] - x_y[1])
    of_a = 2 * p * (a * x_y[2] + b * x_y[1] - x_y[2])
    W = torch.tensor([[a**0.5]], dtype=torch.float64)
    found = loss_and_gradient(W, torch.tensor([b]).double(), Features(n=1, p=p), tolerance=1e-10)
    assert found.b.item() == pytest.approx(of_b, abs=1e-5)
    assert found.W.item() == pytest.approx(of_a * 2 * a**0.5, abs=1e-5)


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_the_slope_vanishes_at_the_best_antipodal_pair_without_bias(p):
    a = (8 - 5 * p) / (8 - 6 * p)
    W = torch.tensor([[a**0.5], [-(a**0.5)]], dtype=torch.float64)
    found = loss_and_gradient(W, torch.zeros(2), Features(n=2, p=p), tolerance=1e-10)
    assert found.W.abs().max() <= 1e-8


def test_a_rotation_of_the_hidden_space_rotates_the_gradient():
    W, b = _model(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.manual_seed(0)).double())[0]
    for world in _worlds():
        plain, turned = loss_and_gradient(W, b, world), loss_and_gradient(W @ rotation, b, world)
        torch.testing.assert_close(turned.W, plain.W @ rotation, rtol=0, atol=1e-7)
        # W Ω with Ω antisymmetric is a rotation, along which nothing changes.
        across = plain.W.T @ W
        torch.testing.assert_close(across, across.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("output", ["relu", "linear"])
def test_a_model_is_the_same_bits_alone_in_a_stack_and_with_worlds_of_its_own(output):
    rng = np.random.default_rng(0)
    worlds = [
        Features(n=7, p=p, importance=r, amplitude=HalfNormal(0.6), signed=True)
        for p, r in ((0.1, 0.7), (0.4, 1.0), ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0], 0.9))
    ]
    W, b = (
        torch.from_numpy(rng.normal(size=(3, 4, 7, 2))),
        torch.from_numpy(rng.normal(size=(3, 4, 7))),
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = loss_and_gradient(W, b, worlds, output)
    finally:
        torch.set_num_threads(threads)
    for s, world in enumerate(worlds):
        row = loss_and_gradient(W[s], b[s], world, output)
        for r in range(4):
            alone = loss_and_gradient(W[s, r], b[s, r], world, output)
            for whole, part, one in zip(together, row, alone, strict=True):
                if output == "relu":
                    assert torch.equal(whole[s, r], one)
                    assert torch.equal(part[r], one)
                torch.testing.assert_close(whole[s, r], one, rtol=1e-13, atol=1e-13)


def test_a_diverged_model_has_no_gradient_and_spoils_no_other():
    W, b = torch.eye(2).double().repeat(2, 1, 1), torch.full((2, 2), 0.1).double()
    W[1, 0, 0] = torch.inf
    found = loss_and_gradient(W, b, Features(n=2, p=0.5))
    assert found.W[0].isfinite().all()
    assert found.b[0].isfinite().all()
    assert found.loss[1].isnan()
    assert not found.W[1].isfinite().any()


def test_no_output_above_zero_has_no_slope():
    found = loss_and_gradient(torch.eye(3, 2), torch.full((3,), -2.0), Features(n=3, p=0.3))
    assert not found.W.any()
    assert not found.b.any()


def test_the_gradient_of_binary_features_between_their_atoms():
    # y takes finitely many values, none of them near 0 here.
    world = Features(n=2, p=0.3, amplitude=Constant(1.5))
    W, b = torch.tensor([[0.9], [-0.5]]).double(), torch.tensor([-0.2, 0.4]).double()
    found = loss_and_gradient(W, b, world, tolerance=1e-4)
    x = torch.tensor([[0, 0], [0, 1.5], [1.5, 0], [1.5, 1.5]]).double()
    weight = torch.tensor([0.49, 0.21, 0.21, 0.09]).double()
    W.requires_grad_()
    b.requires_grad_()
    errors = ((x - (x @ W @ W.T + b).relu()) ** 2).sum(1)
    loss = errors @ weight
    loss.backward()
    assert found.loss.item() == pytest.approx(loss.item(), abs=1e-4)
    torch.testing.assert_close(found.W, W.grad, rtol=0, atol=1e-2)
    torch.testing.assert_close(found.b, b.grad, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "worlds", "says"),
    [
        ((2, 3, 1), [Features(n=3)] * 3, r"loss_and_gradient: .*3 worlds.*first axis"),
        ((3, 1), [Features(n=3)] * 3, r"3 worlds"),
        ((2, 3, 1), [Features(n=3), Features(n=3, signed=True)], r"differ in n, law, amplitude"),
        ((4, 3, 1), Features(n=4), r"loss_and_gradient: .*n=4"),
    ],
)
def test_bad_worlds_are_refused_with_advice(shape, worlds, says):
    with pytest.raises(ValueError, match=says):
        loss_and_gradient(torch.zeros(shape), torch.zeros(shape[:-1]), worlds)


@pytest.mark.parametrize("output", ["relu", "linear"])
def test_infinite_weights_have_no_gradient(output):
    W = torch.ones(2, 3, 2)
    W[0, 0, 0] = torch.inf
    loss, W_slope, b_slope = loss_and_gradient(W, torch.zeros(2, 3), Features(n=3), output)
    assert loss.isnan().tolist() == [True, False]
    assert W_slope[0].isnan().any()
    assert W_slope[1].isfinite().all()
    assert b_slope[1].isfinite().all()
