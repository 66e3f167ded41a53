import json
import tracemalloc
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.sweep.configuration import parse
from superpose.sweep.plan import Plan

HUGE = {
    "seeds": 1_000,
    "model": {"m": 2},
    "axes": [
        {"world.p": {"log": [1.0, 0.001], "count": 500}},
        {"world.importance": {"grid": [0.5, 1.0], "count": 1_000}},
        {"model.n": [5, 10]},
    ],
}


VALUES = {
    "world.p": [0.1, 0.2, 0.3, 0.4],
    "world.importance": [0.1, 0.2, 0.3],
    "model.n": [2, 3, 4],
    "training.steps": [10, 20],
}


@st.composite
def drawn(draw):
    """Axes of some lengths in some order, seeds, sizes, and whether p is refined."""
    axes = [
        {key: VALUES[key][:length]}
        for key in draw(st.permutations(list(VALUES)))
        if (length := draw(st.integers(0, len(VALUES[key]))))
    ]
    given = {"seeds": draw(st.integers(1, 7)), "model": {"n": 2, "m": 1}, "axes": axes}
    lengths = [len(v) for axis in axes for key, v in axis.items() if key[0] != "w"]
    sizes = tuple(draw(st.integers(1, 40)) for _ in range(prod(lengths)))
    return given, sizes, draw(st.booleans()), draw(st.lists(st.integers(0, 500), max_size=8))


def made(given, sizes, refined, more):
    """The plan; where refined, with a second round of some of the cells that are left."""
    place = next((i for i, axis in enumerate(given["axes"]) if "world.p" in axis), -1)
    count = len(given["axes"][place]["world.p"]) if place >= 0 else 0
    if count < 2 or not refined:
        return Plan(parse(given), sizes)
    axes = list(given["axes"])
    axes[place] = {"world.p": {"grid": [0.1, 0.9], "count": count}}
    refine = {"measure": "represented", "axes": ["world.p"], "width": 0.11}
    plan = Plan(parse(given | {"axes": axes, "refine": refine}), sizes)
    rest = sorted(set(range(plan.grid)) - set(plan.coarse()))
    chosen = tuple({rest[i % len(rest)] for i in more}) if rest else ()
    return plan.with_rounds([*(plan.rounds or ()), chosen]) if chosen else plan


@settings(max_examples=50, deadline=None)
@given(drawn())
def test_shards_hold_every_model_exactly_once_each_within_one_block(parts):
    plan = made(*parts)
    seeds, seen = plan.configuration.seeds, []
    for number in range(plan.shards):
        shard = plan.shard(number)
        assert shard.number == number
        assert shard.models == len(shard.cells) * len(shard.runs) > 0
        blocks = {cell // plan.block_cells for cell in shard.cells}
        assert len(blocks) == 1
        assert shard.models <= max(plan.sizes[blocks.pop()], 1)
        assert list(shard.cells) == sorted(shard.cells)
        assert shard.runs == range(seeds) or len(shard.cells) == 1
        seen += [cell * seeds + run for cell in shard.cells for run in shard.runs]
    chosen = range(plan.grid) if plan.rounds is None else sorted(sum(plan.rounds, ()))
    assert sorted(seen) == [cell * seeds + run for cell in chosen for run in range(seeds)]
    assert plan.models == len(seen)
    assert plan.cells == len(chosen)


@settings(max_examples=40, deadline=None)
@given(drawn())
def test_the_shards_of_a_cell_are_those_that_hold_it(parts):
    plan = made(*parts)
    holding = {cell: [] for cell in range(plan.grid)}
    for number in range(plan.shards):
        for cell in plan.shard(number).cells:
            holding[cell].append(number)
    assert {cell: list(plan.shards_of(cell)) for cell in holding} == holding


@settings(max_examples=40, deadline=None)
@given(drawn())
def test_cells_coordinates_and_indices_map_one_to_one(parts):
    plan = made(*parts)
    for cell in range(plan.grid):
        places = plan.coordinates(cell)
        assert places == tuple(int(i) for i in np.unravel_index(cell, plan.shape))
        assert plan.cell_at(places) == cell
    seeds = plan.configuration.seeds
    for index in (0, plan.grid * seeds - 1, plan.grid * seeds // 2):
        cell, run = plan.at(index)
        assert cell.number * seeds + run == index
        assert 0 <= run < seeds


@settings(max_examples=20, deadline=None)
@given(drawn())
def test_a_block_is_one_model_and_recipe_and_a_cell_is_its_values(parts):
    plan = made(*parts)
    for block in range(plan.blocks):
        cells = [plan.cell(block * plan.block_cells + i) for i in range(plan.block_cells)]
        assert len({(cell.model, cell.training) for cell in cells}) == 1
        assert len({cell.world for cell in cells}) == len(cells)
        for cell in cells:
            found = {"world.p": cell.world.p, "world.importance": cell.world.importance}
            found |= {"model.n": cell.model.n, "training.steps": cell.training.steps}
            assert {key: found[key] for key in cell.values} == cell.values
            assert cell.world.n == cell.model.n


@settings(max_examples=50, deadline=None)
@given(drawn())
def test_a_described_plan_is_an_equal_plan(parts):
    plan = made(*parts)
    plain = json.loads(json.dumps(plan.describe(), sort_keys=True))
    again = Plan.from_description(plain)
    assert again == plan
    every = range(plan.shards)
    assert [again.shard(i) for i in every] == [plan.shard(i) for i in every]


@settings(max_examples=50, deadline=None)
@given(drawn())
def test_a_new_round_leaves_the_shards_of_the_earlier_ones(parts):
    plan = made(*parts)
    if plan.rounds is not None:
        first = plan.with_rounds(plan.rounds[:1])
        for number in range(first.shards):
            assert first.shard(number) == plan.shard(number)


@settings(max_examples=50, deadline=None)
@given(drawn())
def test_shards_of_a_block_are_as_equal_as_they_can_be(parts):
    plan = made(*parts)
    if plan.rounds is None:
        sizes = {}
        for shard in map(plan.shard, range(plan.shards)):
            block = shard.cells[0] // plan.block_cells
            sizes.setdefault(block, []).append((len(shard.cells), len(shard.runs)))
        for shapes in sizes.values():
            for one in zip(*shapes, strict=True):
                assert max(one) - min(one) <= 1


def test_the_order_in_which_shards_are_asked_for_does_not_matter():
    plan = Plan(parse(HUGE), (100, 1_000_000))
    numbers = [0, plan.shards - 1, 7, 12_345, 7]
    fresh = [Plan(parse(HUGE), (100, 1_000_000)).shard(number) for number in numbers]
    assert [plan.shard(number) for number in numbers] == fresh


def test_a_plan_of_a_thousand_million_models_takes_no_memory():
    configuration = parse(HUGE)
    Plan(configuration, (256, 100_000)).cell(0)
    tracemalloc.start()
    plan = Plan(configuration, (256, 100_000))
    assert plan.models == 10**9
    for index in (0, 123_456_789, 10**9 - 1):
        cell, run = plan.at(index)
        assert cell.number * 1_000 + run == index
    shards = plan.shards
    last = plan.shard(shards - 1)
    assert (last.cells[-1], last.runs[-1]) == (10**6 - 1, 999)
    assert plan.shard(0).cells == range(1)
    assert plan.shards_of(10**6 - 1) == range(shards - 1, shards)
    some = plan.cells_where(n=10, p=1.0)
    assert next(some) == 500_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_columns_are_short_where_that_is_clear():
    def columns(*keys):
        zipped = {"world.p": [0.1], "model.n": [2], "training.steps": [5], "model.init.W": [0.1]}
        zipped |= {"world.law": ["independent"], "world.law.size": [1], "training.stop": ["never"]}
        init = {"name": "normal", "W": 1.0}
        given = {"model": {"n": 2, "m": 1, "init": init}, "axes": [{k: zipped[k]} for k in keys]}
        return Plan(parse(given), (1,)).columns

    assert columns("model.n", "world.p") == ("n", "p")
    assert columns("training.steps", "model.init.W") == ("training_steps", "W")


def test_values_are_found_by_column_in_increasing_order():
    plan = Plan(
        parse(
            {
                "model": {"m": 2},
                "axes": [
                    {"world.p": {"log": [1, 0.01], "count": 5}},
                    {"model.n": [4, 6], "model.m": [2, 3]},
                    {"world.law": ["independent", {"name": "correlated", "size": 2}]},
                ],
            }
        ),
        (8, 8),
    )
    assert list(plan.cells_where(p=0.1)) == [4, 5, 14, 15]
    assert list(plan.cells_where(n=6, p=0.1)) == [14, 15]
    assert list(plan.cells_where(n=6, m=2)) == []
    assert list(plan.cells_where(law={"name": "correlated", "size": 2}, n=4)) == [1, 3, 5, 7, 9]
    assert list(plan.cells_where()) == list(range(20))
    for cell in range(20):
        assert list(plan.cells_where(**plan.row(cell))) == [cell]
    assert plan.row(5) == {"n": 4, "m": 2, "p": 0.1, "law": '{"name": "correlated", "size": 2}'}
    assert (plan.names, plan.columns) == (("n", "p", "law"), ("n", "m", "p", "law"))
    with pytest.raises(ValueError, match="did you mean 'law'"):
        plan.cells_where(lw=1)
    with pytest.raises(ValueError, match=r'0.2 is not on the axis "world.p"'):
        plan.cells_where(p=0.2)


def test_of_a_refined_plan_only_the_chosen_cells_are_looked_at(monkeypatch):
    ends = {"world.p": [1.0, 0.01], "world.importance": [0.1, 1.0]}
    axes = {key: {"log": each, "count": 9} for key, each in ends.items()}
    refine = {"measure": "represented", "axes": [*ends], "width": 0.001}
    given = {"model": {"n": 2, "m": 1}, "axes": axes, "refine": refine}
    plan = Plan(parse(given), (10,))
    plan = plan.with_rounds([plan.coarse(), (1, plan.grid - 2)])
    chosen = sorted(cell for each in plan.rounds or () for cell in each)
    rows = {cell: plan.row(cell) for cell in chosen}
    asked = []
    coordinates = Plan.coordinates

    def counted(self, cell):
        asked.append(cell)
        return coordinates(self, cell)

    monkeypatch.setattr(Plan, "coordinates", counted)
    monkeypatch.setattr(Plan, "cell_at", lambda *_: pytest.fail("walks the grid"))
    assert list(plan.cells_where()) == asked == chosen
    for p in (1.0, 0.01):
        assert list(plan.cells_where(p=p)) == [cell for cell in chosen if rows[cell]["p"] == p]
    monkeypatch.undo()
    for cell, row in rows.items():
        assert list(plan.cells_where(**row)) == [cell]
    assert list(plan.cells_where(**plan.row(2))) == []


def test_a_fine_grid_has_the_coarse_points_and_their_values():
    axes = [{"world.p": {"log": [1, 0.01], "count": 3}}, {"world.signed": [True, False]}]
    refine = {"measure": "represented", "axes": ["world.p"], "width": 0.3}
    given = {"model": {"n": 2, "m": 1}, "axes": axes}
    fine = Plan(parse(given | {"refine": refine}), (4,))
    coarse = Plan(parse(given), (4,))
    assert fine.shape == (9, 2)
    assert fine.steps == (4, 0)
    assert fine.logarithmic == (True, False)
    assert fine.coarse() == (0, 1, 8, 9, 16, 17)
    assert fine.rounds == (fine.coarse(),)
    worlds = [fine.cell(cell).world for cell in fine.coarse()]
    assert worlds == [coarse.cell(cell).world for cell in range(coarse.cells)]
    assert list(fine.values(0))[::4] == [1.0, 0.1, 0.01]


def test_what_no_plan_has_is_said():
    configuration = parse({"model": {"n": 2, "m": 1}, "axes": {"world.p": [0.1, 0.2]}})
    plan = Plan(configuration, (4,))
    for call, count in [(plan.cell, 2), (plan.shard, plan.shards), (plan.at, 16)]:
        for number in (-1, count):
            with pytest.raises(IndexError, match=rf"{number}: this plan has {count}"):
                call(number)
    with pytest.raises(ValueError, match="one place for each"):
        plan.cell_at((0, 0))
    for sizes in ((), (0,), (1, 1)):
        with pytest.raises(ValueError, match="each of the 1 blocks"):
            Plan(configuration, sizes)
    with pytest.raises(ValueError, match="has no rounds"):
        Plan(configuration, (4,), ((0,),))
    axes = {"world.p": {"grid": [0.1, 0.5], "count": 3}}
    refine = {"measure": "represented", "axes": ["world.p"], "width": 0.1}
    fine = Plan(parse({"model": {"n": 2, "m": 1}, "axes": axes, "refine": refine}), (4,))
    for rounds in (((0, 2), (2,)), ((99,),)):
        with pytest.raises(ValueError, match="each cell once"):
            fine.with_rounds(rounds)


def test_a_sweep_without_axes_is_one_cell():
    plan = Plan(parse({"model": {"n": 2, "m": 1}, "seeds": 3}), (2,))
    assert (plan.cells, plan.models, plan.shards, plan.shape) == (1, 3, 2, ())
    assert plan.coordinates(0) == ()
    assert [plan.shard(i).runs for i in range(2)] == [range(1), range(1, 3)]
