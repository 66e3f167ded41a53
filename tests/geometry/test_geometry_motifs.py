"""The asymmetric motif does what the paper says, and is found where it is and nowhere else."""

import numpy as np
import pytest
import torch

from superpose.geometry import asymmetric_motifs

# Rows are the features a and b. Neurons: a shared one that answers a > 0 and b < 0, one that
# fires with a > 0 too and can inhibit b, and one each for a < 0 and b > 0.
ASYMMETRIC_IN = np.array([[2.0, 1.0, -1.0, 0.0], [-0.5, 0.0, 0.0, 1.0]])
ASYMMETRIC_OUT = np.array([[0.5, 0.0, 1.0, 0.0], [2.0, -4.0, 0.0, 1.0]])
SYMMETRIC_IN = np.array([[1.0, 1.0, -1.0, 0.0], [-1.0, 0.0, 0.0, 1.0]])
SYMMETRIC_OUT = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, -1.0, 0.0, 1.0]])


def uninhibited(W_out):
    W_out = W_out.copy()
    W_out[1, 1] = 0.0
    return W_out


def loss(W_in, W_out, x):
    """The summed squared error for |x|, mean over samples."""
    output = np.maximum(np.maximum(x @ W_in, 0) @ W_out.T, 0)
    return ((np.abs(x) - output) ** 2).sum(1).mean()


def one_at_a_time():
    """Each of the four sides, on a grid of amplitudes whose mean square is 1/3."""
    a = (np.arange(1000) + 0.5) / 1000
    zero = np.zeros_like(a)
    return np.stack([np.r_[a, -a, zero, zero], np.r_[zero, zero, a, -a]], 1)


def stack(*weights):
    return torch.from_numpy(np.stack(weights))


def test_with_an_inhibitor_asymmetry_costs_a_sixteenth():
    # Of the four sides, a > 0 disturbs b by the product of weights, b < 0 disturbs a; the mean
    # square of x on a side is 1/3 and each side has a quarter of the samples.
    x = one_at_a_time()
    expected = {
        "symmetric": (SYMMETRIC_IN, uninhibited(SYMMETRIC_OUT), (1 + 1) / 12),
        "symmetric, inhibited": (SYMMETRIC_IN, SYMMETRIC_OUT, 1 / 12),
        "asymmetric": (ASYMMETRIC_IN, uninhibited(ASYMMETRIC_OUT), (16 + 1 / 16) / 12),
        "asymmetric, inhibited": (ASYMMETRIC_IN, ASYMMETRIC_OUT, (1 / 16) / 12),
    }
    losses = {name: loss(W_in, W_out, x) for name, (W_in, W_out, _) in expected.items()}
    assert losses == pytest.approx({name: value for name, (*_, value) in expected.items()}, 1e-4)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3])
def test_it_stays_better_while_features_meet_rarely(p):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200_000, 2)) * (rng.random((200_000, 2)) < p)
    asymmetric = loss(ASYMMETRIC_IN, ASYMMETRIC_OUT, x)
    assert asymmetric < loss(SYMMETRIC_IN, SYMMETRIC_OUT, x)
    assert asymmetric < loss(SYMMETRIC_IN, uninhibited(SYMMETRIC_OUT), x)


def test_the_motif_is_found_with_its_parts():
    (motif,) = asymmetric_motifs(*map(torch.from_numpy, (ASYMMETRIC_IN, ASYMMETRIC_OUT)))
    assert (motif.neuron, motif.loud, motif.victim, motif.inhibitors) == (0, 0, 1, (1,))
    assert (motif.asymmetry, motif.inhibition) == pytest.approx((4, 1))


@pytest.mark.parametrize(
    ("W_in", "W_out"),
    [
        pytest.param(ASYMMETRIC_IN, uninhibited(ASYMMETRIC_OUT), id="no inhibitor"),
        pytest.param(SYMMETRIC_IN, SYMMETRIC_OUT, id="symmetric"),
        pytest.param(ASYMMETRIC_IN * [[-1], [1]], ASYMMETRIC_OUT * [1, 0, 1, 1], id="none fires"),
        pytest.param(ASYMMETRIC_IN, SYMMETRIC_OUT, id="ways out that do not match"),
        pytest.param(ASYMMETRIC_IN, -ASYMMETRIC_OUT, id="pushed down"),
        pytest.param(np.eye(4)[:2], np.eye(4)[:2], id="one feature a neuron"),
        pytest.param(np.zeros((2, 4)), np.zeros((2, 4)), id="nothing"),
        pytest.param(np.ones((1, 4)), np.ones((1, 4)), id="one feature"),
    ],
)
def test_it_is_not_found_where_a_part_is_missing(W_in, W_out):
    assert asymmetric_motifs(torch.from_numpy(W_in), torch.from_numpy(W_out)) == []


def test_an_inhibitor_that_fires_on_the_other_side_does_not_count():
    W_in = ASYMMETRIC_IN.copy()
    W_in[0, 1] = -1.0
    assert asymmetric_motifs(torch.from_numpy(W_in), torch.from_numpy(ASYMMETRIC_OUT)) == []


def test_scaling_neurons_and_renaming_change_nothing_but_names():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 10, 4)
    neurons, features = rng.permutation(4), np.array([1, 0])
    W_in = (ASYMMETRIC_IN * scale)[features][:, neurons]
    W_out = (ASYMMETRIC_OUT / scale)[features][:, neurons]
    (motif,) = asymmetric_motifs(torch.from_numpy(W_in), torch.from_numpy(W_out))
    assert (neurons[motif.neuron], motif.loud, motif.victim) == (0, 1, 0)
    assert [neurons[k] for k in motif.inhibitors] == [1]
    assert (motif.asymmetry, motif.inhibition) == pytest.approx((4, 1))


def test_it_is_found_among_other_features_and_small_weights():
    rng = np.random.default_rng(0)
    W_in, W_out = (0.02 * rng.normal(size=(8, 10)) for _ in range(2))
    W_in[2:4, 3:7] += ASYMMETRIC_IN
    W_out[2:4, 3:7] += ASYMMETRIC_OUT
    (motif,) = asymmetric_motifs(torch.from_numpy(W_in), torch.from_numpy(W_out))
    assert (motif.neuron, motif.loud, motif.victim) == (3, 2, 3)
    assert 4 in motif.inhibitors
    assert motif.inhibition == pytest.approx(1, abs=0.1)


def test_a_stack_is_its_members():
    W_in = stack(ASYMMETRIC_IN, SYMMETRIC_IN, ASYMMETRIC_IN).reshape(3, 1, 2, 4)
    W_out = stack(ASYMMETRIC_OUT, SYMMETRIC_OUT, ASYMMETRIC_OUT).reshape(3, 1, 2, 4)
    found = asymmetric_motifs(W_in, W_out)
    assert [[len(motifs) for motifs in row] for row in found] == [[1], [0], [1]]


def test_random_weights_hardly_ever_pass_for_it():
    generator = torch.Generator().manual_seed(0)
    for (n, m), most in {(2, 4): 0.02, (4, 4): 0.005, (10, 10): 0.001}.items():
        W_in, W_out = torch.randn(2, 1000, n, m, generator=generator)
        assert np.mean([bool(motifs) for motifs in asymmetric_motifs(W_in, W_out)]) < most


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"rows are features"):
        asymmetric_motifs(torch.zeros(3, 4), torch.zeros(4, 3))
