"""A sweep whose system calls fail says so in one sentence, and can be gone on with."""

import pytest
from faults.batteries import KEPT, battery, broken


def test_every_errno_at_some_calls():
    found = battery("errors", "--times", 7)
    assert broken(found) == KEPT
    assert found["states"] == found["counts"]["cases"] >= 30


@pytest.mark.slow
def test_every_errno_at_every_call():
    found = battery("errors", "--times", 1)
    assert broken(found) == KEPT


@pytest.mark.parametrize("fillings", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_a_full_disk(fillings):
    found = battery("disk", "--times", fillings)
    if found is None:
        pytest.skip("a small file system to fill cannot be mounted here (needs root)")
    assert broken(found) == KEPT
    assert found["states"] == fillings
