"""Samples from iterators and generators: in step, mixed, and each once in a pass."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from superpose.unmix import stream
from superpose.unmix.stream import generators, iterators

ROWS = 500
TABLE = np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)
TABLE[:, 0] = np.arange(ROWS)


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setattr(iterators, "BUFFER", 120)
    monkeypatch.setattr(generators, "MEASURED", 8192)
    monkeypatch.setattr(generators, "HELD_OUT", 4096)


def pieces(size=37, table=TABLE):
    return lambda: (table[begin : begin + size] for begin in range(0, len(table), size))


def drawn(data, count, batch=30, seed=0, target=None):
    with stream.open(data, batch, seed, target) as found:
        return np.concatenate([found.batch().x.copy() for _ in range(count)]), found


def exhaust(data):
    with stream.open(data, 30, 0) as found:
        for _ in range(20):
            found.batch()


def numbers(x, found):
    return np.rint(x[:, 0] * found.units.scale[0] + found.units.centre[0]).astype(int)


@pytest.mark.parametrize("size", [1, 37, 500])
@pytest.mark.parametrize("held_out", [0.0, 0.25])
def test_every_sample_comes_once_in_a_pass(size, held_out):
    source = stream.source(pieces(size), held_out=held_out)
    held = source.held_out()[0][:, 0].numpy().astype(int)
    assert len(held) == round(held_out * 120)
    kept = sorted(set(range(ROWS)) - set(held.tolist()))
    x, found = drawn(source, 3 * ROWS // 30)
    order = numbers(x, found)
    for number in range(2):
        assert sorted(order[number * len(kept) : (number + 1) * len(kept)]) == kept
    assert found.samples is None


def test_the_buffer_is_as_far_as_samples_are_mixed():
    x, found = drawn(pieces(), 16)
    order = numbers(x, found)
    assert "a buffer of 120, refilled at half" in found.shuffling
    # A sample is not there before it is read: at most a buffer ahead of what was given out.
    assert (order < np.arange(len(order)) + 120).all()
    assert (np.diff(order) == 1).mean() < 0.1
    assert found.measured == 120
    assert np.allclose(found.units.centre, TABLE[:120].astype(np.float64).mean(0))


def test_chunks_of_any_size_give_the_same_batches():
    first, _ = drawn(pieces(37), 20)
    assert np.array_equal(first, drawn(pieces(7), 20)[0])
    assert np.array_equal(first, drawn(pieces(37, torch.tensor(TABLE).double()), 20)[0])
    assert np.array_equal(first, drawn(pieces(5, TABLE.reshape(50, 10, 3)), 20)[0])
    assert not np.array_equal(first, drawn(pieces(37), 20, seed=1)[0])


def test_a_loader_of_data_is_gone_through_again_and_again():
    loader = DataLoader(torch.tensor(TABLE), batch_size=50)
    x, found = drawn(loader, 34)
    assert found.resumable
    assert sorted(numbers(x, found)[:ROWS]) == list(range(ROWS))
    assert np.array_equal(x, drawn(pieces(), 34)[0])


def test_chunks_may_be_written_to_the_same_place_and_be_empty():
    def reused():
        place = np.empty((25, 3), np.float32)
        for begin in range(0, ROWS, 25):
            place[:] = TABLE[begin : begin + 25]
            yield place
            yield place[:0]

    assert np.array_equal(drawn(reused, 20)[0], drawn(pieces(), 20)[0])


def test_layers_and_target_stay_in_step_whatever_their_chunks():
    with stream.open([pieces(37), pieces(11, -TABLE)], 30, 0, pieces(5, 2 * TABLE)) as found:
        for _ in range(40):
            x, target = found.batch()
            assert np.allclose(x[:, :3], -x[:, 3:], atol=1e-5)
            assert np.allclose(x[:, :3] * 2**0.5, target, atol=1e-5)


def test_iterators_that_end_apart_are_refused():
    with pytest.raises(ValueError, match="ended after 500, 491 of them"):
        exhaust([pieces(), pieces(37, TABLE[:-9])])


def test_an_iterator_that_comes_once_trains_once_and_says_that_it_cannot_be_resumed():
    with stream.open(pieces()(), 50, 0) as found:
        assert not found.resumable
        assert "it cannot be resumed, since it comes only once" in found.shuffling
        got = np.concatenate([found.batch().x.copy() for _ in range(10)])
        assert sorted(numbers(got, found)) == list(range(ROWS))
        with pytest.raises(ValueError, match="cannot be resumed; pass a function"):
            found.state()
        with pytest.raises(ValueError, match="comes only once; train on fewer samples"):
            found.batch()


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (lambda: iter([]), "the iterator gave no samples"),
        (lambda: iter([TABLE, TABLE[:, :2]]), "gave samples of 2 values after others of 3"),
        (lambda: iter([TABLE[0]]), r"what iterator 1 gave has the shape \[3\]"),
        (lambda: iter([TABLE, np.full((2, 3), np.nan)]), "iterator 1: row 500 has nan in column 0"),
        (lambda: iter(["a"]), "real numbers"),
    ],
    ids=["none", "widths", "line", "nan", "text"],
)
def test_what_cannot_be_samples_is_refused_in_a_sentence(factory, words):
    with pytest.raises(ValueError, match=words):
        exhaust(factory)


def test_an_exception_of_the_iterator_is_that_of_the_caller():
    def failing():
        yield TABLE
        raise OSError("the model is gone")

    with pytest.raises(OSError, match="the model is gone"):
        exhaust(failing)


class World:
    """Samples that tell who asked for them: the batch's number, the seed, and noise."""

    def __init__(self):
        self.asked = []

    def draw(self, batch, number, seed):
        self.asked.append((batch, number, seed))
        rng = np.random.default_rng([number, seed])
        return type("Drawn", (), {"x": torch.tensor(rng.standard_normal((batch, 4)) * 3 + 2)})


def test_batches_of_a_generator_are_those_of_their_numbers():
    world = World()
    with stream.open(world, 16, 7) as found:
        for number in range(3):
            raw = found.batch().x * found.units.scale + found.units.centre
            assert np.allclose(raw, world.draw(16, number, 7).x, atol=1e-5)
        assert found.samples is None
        assert found.measured == 8192
        assert found.units.scale == pytest.approx(np.full(4, 6.0), rel=0.05)


def test_a_generator_holds_out_what_no_training_draws():
    world = World()
    source = stream.source(world, held_out=0.05)
    x, target = source.held_out()
    assert x.shape == (4096, 4)
    assert target is x
    with stream.open(source, 4096, 0) as found:
        found.batch()
    assert len(set(world.asked)) == len(world.asked)


def test_a_generator_that_draws_nonsense_is_named():
    class Broken(World):
        def draw(self, batch, number, seed):
            found = super().draw(batch, number, seed)
            if number == 2:
                found.x[5, 1] = torch.nan
            return found

    with stream.open(Broken(), 16, 0) as found:
        found.batch()
        found.batch()
        with pytest.raises(ValueError, match="generator 1, batch 2: row 5 has nan in column 1"):
            found.batch()
