import pytest

from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.pathologies import shrinkage
from superpose.unmix import SAETraining

# The others have kernels.
FAST = {name: code for name, code in shrinkage.codes().items() if name != "MatchingPursuit"}


@pytest.fixture(scope="module")
def measured():
    shorter = SAETraining(samples=128_000, batch=256, lr=1e-2)
    table = shrinkage.shrinkage(FAST, seeds=2, training=shorter)
    rows = over_seeds(table, ["code"]).to_pylist()
    return {(row["code"], row["quantity"]): row for row in rows}


@pytest.mark.parametrize("what", ["output", "latent"])
def test_l1_shrinks_by_what_theory_says(measured, what):
    theory = measured["L1", f"{what}_theory"]["estimate"]
    assert theory > 0.04
    assert measured["L1", what]["estimate"] == pytest.approx(theory, rel=0.01)


@pytest.mark.parametrize("code", [name for name in FAST if name != "L1"])
def test_codes_without_a_price_on_size_do_not_shrink(measured, code):
    assert measured[code, "found"]["estimate"] > 0.95
    assert abs(measured[code, "output"]["estimate"]) < 0.1 * measured["L1", "output"]["estimate"]
