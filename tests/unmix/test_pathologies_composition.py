import pytest
import torch

from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.pathologies import composition
from superpose.statistics import mean_interval


@pytest.fixture(scope="module")
def measured():
    return composition.composition(seeds=5)


def _intervals(table):
    rows = over_seeds(table, ["paired"]).to_pylist()
    return {(row["paired"], row["quantity"]): row for row in rows}


@pytest.mark.slow
def test_pairs_are_learned_as_pairs(measured):
    found = {(row["paired"], row["seed"]): row["composed"] for row in measured.to_pylist()}
    more = mean_interval([found[True, seed] - found[False, seed] for seed in range(5)])
    assert more.low > 0
    assert _intervals(measured)[True, "single"]["high"] < 0.1


@pytest.mark.slow
def test_the_same_features_on_their_own_are_learned_as_they_are(measured):
    assert _intervals(measured)[False, "single"]["low"] > 0.9


def test_features_are_as_frequent_in_pairs_as_alone():
    pairs, unit = composition.world(True, 0)
    alone, _ = composition.world(False, 0)
    along = pairs.sample(50_000).x @ unit.mT
    assert torch.allclose((along > 0.5).double().mean(0), torch.tensor(1 / 7).double(), atol=0.01)
    assert alone.probability == pytest.approx(1 / 7)
    # One x comes with one y, always.
    on = along > 0.5
    assert torch.equal(on[:, :3].sum(1), on[:, 3:].sum(1))
