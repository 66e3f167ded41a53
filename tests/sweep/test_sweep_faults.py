"""A sweep that is killed anywhere, and gone on with, loses nothing and equals one that was not."""

import pytest
from faults.batteries import KEPT, battery, broken


def _check_points(found, times):
    assert broken(found) == KEPT
    assert found["counts"]["points"] >= 18
    assert found["counts"]["kills"] == times * found["counts"]["points"] == found["states"]


def test_killed_at_every_point():
    # Nothing on the disk changes from "after" one call to "before" the next.
    _check_points(battery("points", "--times", 3, "--without", "before"), 3)


def test_killed_at_random_times():
    found = battery("random", "--times", 50)
    assert broken(found) == KEPT
    assert found["counts"]["kills"] == 50


@pytest.mark.slow
def test_killed_at_every_point_often():
    _check_points(battery("points", "--times", 50), 50)


@pytest.mark.slow
def test_killed_at_random_times_often():
    found = battery("random", "--times", 1000, "--seed", 1)
    assert broken(found) == KEPT


@pytest.mark.parametrize("writer", ["in place", "promises early"])
def test_a_careless_writer_is_found_out(writer):
    found = battery("points", "--times", 1, "--broken", writer, "--only", "write middle")
    assert broken(found) != KEPT
