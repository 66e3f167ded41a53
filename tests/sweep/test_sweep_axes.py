import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpose.sweep.axes import Spaced, dump_axes, parse_axes

ENDS = st.floats(1e-6, 1e6)


@given(ENDS, ENDS, st.integers(2, 50), st.booleans())
def test_a_range_has_its_ends_exactly_and_even_steps(start, stop, count, log):
    values = list(Spaced(start, stop, count, log))
    assert (values[0], values[-1]) == (start, stop)
    scaled = [math.log10(v) for v in values] if log else values
    steps = [b - a for a, b in pairwise(scaled)]
    assert steps == pytest.approx([(scaled[-1] - scaled[0]) / (count - 1)] * (count - 1), abs=1e-6)


@given(ENDS, ENDS, st.integers(2, 50), st.booleans(), st.integers(0, 5))
def test_a_finer_range_has_the_same_values_between_which_it_adds(start, stop, count, log, k):
    coarse = Spaced(start, stop, count, log)
    fine = Spaced(start, stop, (count - 1) * 2**k + 1, log)
    assert [fine[i * 2**k] for i in range(count)] == list(coarse)


@given(st.integers(0, 10**6 - 1), st.booleans())
def test_a_value_of_a_huge_range_is_found_at_its_place(place, log):
    # Of more values than these, neighbours would lie closer than values are told apart.
    spaced = Spaced(1.0, 1e-3, 10**6, log)
    assert spaced.find(spaced[place]) == place


def test_what_is_not_on_a_range_is_not_found():
    for value in (0.5, 2.0, -1.0, 0.0, 0.1001):
        with pytest.raises(ValueError, match=r"^$|math"):
            Spaced(1.0, 0.01, 3, log=True).find(value)


def test_slices_and_ends_as_of_a_list():
    values = Spaced(0.0, 1.0, 5)
    assert values[1:3] == [0.25, 0.5]
    assert values[-1] == 1.0
    with pytest.raises(IndexError):
        values[5]


def test_ranges_of_whole_numbers_are_rounded():
    (axis,) = parse_axes({"training.steps": {"log": [10, 10_000], "count": 7}})
    assert list(axis.series[0]) == [10, 32, 100, 316, 1000, 3162, 10_000]
    assert {type(value) for value in axis.series[0]} == {int}


def test_a_list_has_an_order_that_stays():
    (axis,) = parse_axes({"world.p": [0.5, 0.1, 0.9]})
    assert list(axis.series[0]) == [0.5, 0.1, 0.9]


@pytest.mark.parametrize(
    ("values", "kind", "plain"),
    [
        ([1, 0.5], float, [1.0, 0.5]),
        ([[1, 0.5], [0.5, 1]], str, ["[1.0, 0.5]", "[0.5, 1.0]"]),
        ([0.5, [0.5, 1]], str, ["0.5", "[0.5, 1.0]"]),
    ],
    ids=["numbers", "lists", "both"],
)
def test_a_column_has_one_kind_of_value(values, kind, plain):
    (axis,) = parse_axes({"world.importance": values})
    assert axis.kinds == (kind,)
    assert [axis.plain(place) for place in range(len(axis))] == [[value] for value in plain]


def test_tables_are_their_json_text_and_switches_stay_switches():
    laws, signs = parse_axes({"world.law": ["independent"], "world.signed": [True, False]})
    assert laws.plain(0) == ['{"name": "independent"}']
    assert [signs.plain(0), signs.plain(1)] == [[True], [False]]
    (stops,) = parse_axes({"training.stop": ["never", {}]})
    assert stops.plain(0) == ["never"]


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("world.law", ["independent", {"name": "correlated", "size": 2}, "exactly_one"]),
        ("training.stop", [{"window": 10}, "never", {}]),
        ("training.snapshots", [[], {"log": 3}, [1, 2]]),
        ("model.init", ["xavier", {"name": "normal", "W": 0.1}]),
        ("model.target", ["abs", "identity"]),
        ("world.p", [0.5, [0.1, 0.2], 0.1]),
        ("world.signed", [True, False]),
    ],
)
def test_a_value_is_found_as_it_is_written_kept_or_shown(key, written):
    (axis,) = parse_axes({key: written})
    for place, value in enumerate(written):
        for form in (value, axis.series[0][place], *axis.plain(place)):
            assert list(axis.places({key: form})) == [place]


@pytest.mark.parametrize(
    ("key", "written", "value", "said"),
    [
        ("training.stop", ["never", {}], "nevr", "'nevr' is not on .* 2 values from 'never' to {"),
        ("world.law", ["independent", "exactly_one"], 3, "from {'name': 'independent'} to {'name"),
        ("world.p", {"log": [1, 0.1], "count": 3}, math.inf, "inf is not on the axis"),
    ],
)
def test_what_is_not_on_an_axis_is_said_in_plain_values(key, written, value, said):
    (axis,) = parse_axes({key: written})
    with pytest.raises(ValueError, match=said):
        axis.places({key: value})


def test_an_axis_is_dumped_as_it_is_parsed():
    axes = parse_axes(
        {
            "world.p": {"log": [1, 0.1], "count": 3},
            "zipped": [{"model.n": [2, 4], "world.law": ["independent", "exactly_one"]}],
        }
    )
    assert parse_axes(dump_axes(axes)) == axes


def test_zipped_keys_may_repeat_a_value_but_not_a_pair():
    (axis,) = parse_axes([{"model.n": [5, 5], "model.m": [2, 3]}])
    assert axis.at(1) == {"model.n": 5, "model.m": 3}
    with pytest.raises(ValueError, match=r'"model.n", "model.m" repeats 5, 2'):
        parse_axes([{"model.n": [5, 5], "model.m": [2, 2]}])
