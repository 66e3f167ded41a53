"""The digits network: it reads, repeats itself, and what it says has content."""

import numpy as np
import pytest
import torch

from superpose.activations import Activations
from superpose.experiments.digits import look, train_digits
from superpose.unmix import SAETraining, TopK

QUICK = SAETraining(samples=30_000, dead_after=10_000)


@pytest.fixture(scope="module")
def digits():
    return train_digits()


def test_the_network_reads_digits(digits):
    assert digits.accuracy > 0.9
    assert digits.images.shape == (1797, 8, 8)
    assert digits.images.max() == 1.0
    assert digits.activations.x.shape == (1797, 32)
    assert (digits.activations.x >= 0).all()
    assert np.array_equal(digits.activations.labels, digits.labels)
    assert len(digits.held_out) == 450


def test_the_same_seed_gives_the_same_network_and_leaves_randomness_alone(digits):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = train_digits()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.activations.x, digits.activations.x)
    assert again.accuracy == digits.accuracy


def test_findings(digits):
    heard = []
    found = look(
        digits.activations,
        training=QUICK,
        progress=lambda done, total: heard.append(done / total),
    )
    assert found.measurement.verdict in ("superposition", "not shown")
    assert found.explained_variance > 0.8
    assert found.names.named_share > 0.5
    assert max(each.score.estimate for each in found.names.named) > 0.95
    mixed = found.neurons.polysemantic
    assert len(mixed) > 10
    assert all(len(neuron.latents) == 3 for neuron in mixed)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    tables = found.tables
    assert tables["measurement"].num_rows == 4
    assert tables["names"].num_rows == found.sae.code.d_sae == 64
    assert tables["neurons"].num_rows == 32


def test_arrays_without_labels_are_measured_but_not_named():
    rng = np.random.default_rng(0)
    x = rng.random((200, 4)) * (rng.random((200, 4)) < 0.3) - 0.2
    found = look(
        Activations(x), code=TopK(d_sae=8, k=2), training=SAETraining(samples=2_000), seed=1
    )
    assert not found.names.named
    assert any("no labels" in note for note in found.advice)
    assert found.neurons.table()["sign"].to_pylist().count(-1) == 4
