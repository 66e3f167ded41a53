"""Measuring superposition: verdicts on planted truth, both ways, and input that cannot be."""

import numpy as np
import pytest
import torch

from superpose.activations import Activations
from superpose.engine import Training, train
from superpose.features import Features
from superpose.models import ToyModel
from superpose.networks import measure
from superpose.networks.measure import ratio_interval
from superpose.unmix import SAETraining, TopK

QUICK = SAETraining(samples=30_000, dead_after=10_000)
TINY = SAETraining(samples=2_000)


def toy(n, m, p):
    world = Features(n=n, p=p)
    run = train(ToyModel(n=n, m=m), world, Training(steps=3_000, lr=3e-3), runs=4).best()
    return world.sample(3_000, seed=9) @ run.W.reshape(-1, n, m)[0]


def test_superposition_is_seen_in_a_toy_model_that_has_it():
    # Shorter trainings end in local minima that differ by more than the margins allow.
    found = measure(toy(40, 10, 0.01), training=SAETraining(samples=80_000, dead_after=10_000))
    assert found.verdict == "superposition"
    assert found.gain().low > 1.5
    assert found.excess().low > 1.25
    assert found.psi().estimate > 2
    assert "more features than dimensions" in found.reason


@pytest.mark.parametrize(("n", "m", "p"), [(5, 5, 0.1), (20, 5, 1.0)])
def test_no_superposition_is_claimed_where_there_is_none(n, m, p):
    assert measure(toy(n, m, p), training=QUICK).verdict != "superposition"


def test_clusters_in_many_dimensions_are_not_taken_for_superposition():
    # Five exclusive features in 10 dimensions: dependent, so that they exceed the complete null,
    # but a dictionary with one latent a dimension follows them as well as a wider one.
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 10))[rng.integers(0, 5, 400)]
    x = x + 0.3 * rng.standard_normal(x.shape)
    assert measure(torch.from_numpy(x.astype(np.float32)), training=QUICK).verdict == "not shown"


def test_a_poor_reconstruction_is_marked():
    noise = torch.from_numpy(np.random.default_rng(0).laplace(size=(400, 8)).astype(np.float32))
    found = measure(noise, training=TINY, seeds=2)
    assert found.verdict == "not trustworthy"
    assert "too poor" in found.advice[0]


def test_table_constant_units_progress_and_repetition():
    rng = np.random.default_rng(0)
    x = np.zeros((300, 6), np.float32)
    x[:, :5] = rng.standard_normal((300, 5)) ** 3
    heard = []
    found = measure(
        Activations(x), training=TINY, seeds=2, progress=lambda done, total: heard.append(done)
    )
    assert found.d == 5
    assert found.advice[0] == "1 of 6 units never vary and were left out"
    assert heard == list(range(1, 13))
    table = found.table()
    assert table["source"].to_pylist() == ["data", "gaussian", "shuffled", "complete"]
    assert table["ratio"].to_pylist()[0] == pytest.approx(1.0)
    assert np.isnan(table["gain"].to_pylist()[1])
    assert found.psi().estimate == pytest.approx(found.effective().estimate / 5)
    assert found.code == TopK(d_sae=20, k=1)
    again = measure(Activations(x), training=TINY, seeds=2)
    assert again.table().equals(table) or str(again.table()) == str(table)


def test_one_seed_claims_nothing():
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.random((200, 3)) * (rng.random((200, 3)) < 0.3)).astype(np.float32))
    assert measure(x, training=TINY, seeds=1).verdict != "superposition"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(200, 3), "all samples are equal"),
        (torch.eye(20), "160 are the least"),
        (torch.full((200, 3), torch.nan), "NaN"),
    ],
)
def test_input_that_cannot_be_measured(x, message):
    with pytest.raises(ValueError, match=message):
        measure(x)


def test_ratio_interval_is_scale_free_and_covers():
    rng, covered = np.random.default_rng(0), 0
    a, b = rng.random(4) + 1, rng.random(4) + 1
    assert ratio_interval(3 * a, b).low == pytest.approx(3 * ratio_interval(a, b).low)
    for _ in range(400):
        draw = np.exp(rng.normal(size=(2, 3)) * [[0.1], [0.3]])
        interval = ratio_interval(2 * draw[0], draw[1])
        covered += interval.low <= 2.0 <= interval.high
    assert 0.92 < covered / 400 < 0.995
    assert ratio_interval(np.array([2.0]), np.array([1.0])).high == np.inf
