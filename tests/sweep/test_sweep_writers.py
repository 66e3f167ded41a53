"""Eight processes on one sweep: each shard has one valid result, and no process has an error."""

import pytest
from faults.batteries import KEPT, battery, broken


@pytest.mark.parametrize("every", ["each shard once", "all shards each"])
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_eight_at_once(every, seconds):
    words = ["--each-shard"] if every == "all shards each" else []
    found = battery("writers", "--seconds", seconds, *words)
    assert broken(found) == KEPT
    assert found["counts"]["rows"] == found["counts"]["models"]
