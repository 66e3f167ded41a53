"""Hierarchies: the chance of being the one of exclusive children, and what compensates for it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpose.truth import Firing, Forest
from superpose.truth.forest import winning


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_the_chance_to_be_the_one_is_the_sum_over_all_candidates(own):
    expected = np.zeros(len(own))
    for on in product((False, True), repeat=len(own)):
        chance = np.prod([p if here else 1 - p for p, here in zip(own, on, strict=True)])
        expected += np.array(on) * chance / max(sum(on), 1)
    assert np.allclose(winning(np.array(own)), expected, atol=1e-12)


def test_many_exclusive_children_share_what_there_is():
    own = np.random.default_rng(0).random(200)
    assert winning(own).sum() == pytest.approx(1 - np.prod(1 - own))
    assert winning(np.stack([own, own])).shape == (2, 200)


def test_exact_compensation_gives_the_probabilities_asked_for():
    forest = Forest(
        [-1, 0, 0, 0, 1, 1, -1], exclusive=[True, False, False, False, False, False, False]
    )
    p = np.array([0.5, 0.2, 0.1, 0.1, 0.15, 0.05, 0.3])
    firing = Firing(p=forest.compensated(p), forest=forest)
    assert firing.probability == pytest.approx(p)


def test_compensation_as_published_comes_near_where_children_are_exclusive():
    forest, p = Forest([-1, 0, 0], exclusive=True), np.array([0.5, 0.2, 0.1])
    own = forest.compensated(p, exact=False)
    assert own == pytest.approx([0.5, 0.4 * (1 + 0.2), 0.2 * (1 + 0.4)])
    found = Firing(p=own, forest=forest).probability
    assert found == pytest.approx(p, rel=0.1)
    assert found[1:] != pytest.approx(p[1:], rel=0.02)
    assert Forest([-1, 0]).compensated([0.1, 0.2], exact=False).tolist() == [0.1, 1.0]


@pytest.mark.parametrize(
    ("forest", "p", "law"),
    [
        (Forest([-1, 0]), [0.1, 0.2], "2.0000 times as frequent"),
        (Forest([-1, 0, 0], exclusive=True), [0.5, 0.3, 0.3], "in all 1.2000"),
    ],
    ids=["a child above its parent", "children above it together"],
)
def test_what_no_forest_can_give_is_refused(forest, p, law):
    with pytest.raises(ValueError, match=law):
        forest.compensated(p)


def test_groups_are_always_on():
    forest = Forest([-1, 0, 0, -1], exclusive=[True, False, False, False], feature=[-1, 0, 1, 2])
    assert Firing(p=[1.0, 1.0, 0.3], forest=forest).probability == pytest.approx([0.5, 0.5, 0.3])


def test_parents_come_before_their_children():
    forest = Forest([3, 0, 1, -1, 2, 2], exclusive=True)
    place = np.argsort(forest.order)
    assert all(place[p] < place[c] for c, p in enumerate(forest.parent) if p >= 0)
    assert forest.children(2).tolist() == [4, 5]
    assert not forest.exclusive[4]


def test_trees_of_one_shape_fill_up_level_by_level():
    forest = Forest.regular(13, roots=2, branching=2, depth=2, exclusive=True, scaled=True)
    assert forest.parent.tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert forest.exclusive.tolist() == [True] * 6 + [False] * 7
    full = Forest.regular(20, roots=2, branching=2, depth=2, exclusive=False)
    assert full.parent[14:].tolist() == [-1] * 6


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (([1, 0],), "its own ancestors"),
        (([0],), "its own ancestors"),
        (([-1, 5],), "0 to 1, or -1"),
        (([-2],), "or -1 for a root"),
        (([-1, 0], False, False, [0, 0]), "one of its own"),
    ],
    ids=["circle", "own parent", "no node", "below -1", "twice"],
)
def test_what_is_no_forest_is_refused(arguments, law):
    with pytest.raises(ValueError, match=law):
        Forest(*arguments)


def test_sizes_of_a_regular_forest_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        Forest.regular(4, roots=0, branching=2, depth=1, exclusive=True)
