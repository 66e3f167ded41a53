"""The stream goes on bit for bit from any state, and its thread neither shows nor stays."""

import threading
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from superpose.unmix import stream
from superpose.unmix.stream import iterators, tables

TABLE = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
BATCH, STEPS = 48, 20


class World:
    """Draws batches, and takes its time."""

    def __init__(self, pause=0.0):
        self.pause, self.threads = pause, set()

    def draw(self, batch, number, seed):
        self.threads.add(threading.current_thread().name)
        time.sleep(self.pause)
        rng = np.random.default_rng([number, seed])
        return type("Drawn", (), {"x": rng.standard_normal((batch, 4))})


def chunks(table=TABLE):
    return lambda: iter(np.array_split(table, 23))


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Of every kind, what opens it anew: data, target, share held out."""
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(folder / "0.npy", TABLE[:150])
    save_file({"activations": TABLE[150:]}, folder / "1.safetensors")
    monkeypatch.setattr(tables, "BLOCK", 16 * 10)
    monkeypatch.setattr(tables, "POOL", 16 * 60)
    monkeypatch.setattr(iterators, "BUFFER", 100)
    return {
        "memory": lambda: (TABLE, None, 0.0),
        "mapped": lambda: (folder, None, 0.0),
        "held out": lambda: (folder, None, 0.1),
        "pair": lambda: (folder, 2 * TABLE[:, :3], 0.0),
        "layers": lambda: ([TABLE, folder], None, 0.0),
        "iterator": lambda: (chunks(), None, 0.0),
        "iterator held out": lambda: (chunks(), None, 0.2),
        "iterator pair": lambda: (chunks(), chunks(-TABLE), 0.0),
        "generator": lambda: (World(), None, 0.0),
    }


KINDS = ["memory", "mapped", "held out", "pair", "layers", "iterator", "iterator held out"]
KINDS += ["iterator pair", "generator"]


def run(opened, count, state=None, pause=0.0):
    """Some batches of a stream, what they were, and the state it was left in."""
    source = stream.source(*opened)
    with stream.open(source, BATCH, 3, state=state) as found:
        batches = []
        for _ in range(count):
            batches.append([part.copy() for part in found.batch()])
            time.sleep(pause)
        return batches, found.state()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_goes_on_where_it_was_left(sources, kind):
    whole, end = run(sources[kind](), STEPS)
    for cut in (0, 1, 8, 17, STEPS):
        before, state = run(sources[kind](), cut)
        # As it comes back from a file.
        state = {key: np.array(value) for key, value in state.items()}
        after, last = run(sources[kind](), STEPS - cut, state)
        assert len(before + after) == STEPS
        for expected, got in zip(whole, before + after, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(expected, got, strict=True)), cut
        assert last.keys() >= end.keys() or cut == STEPS
        assert all(np.array_equal(last[key], end[key]) for key in end if key in last)


def test_a_state_is_the_same_whatever_was_prepared_meanwhile(sources):
    slow = run(sources["iterator"](), 9, pause=0.003)[1]
    quick = run(sources["iterator"](), 9)[1]
    assert slow.keys() == quick.keys()
    assert all(np.array_equal(slow[key], quick[key]) for key in slow)


def test_a_state_may_be_taken_of_a_stream_that_was_closed(sources):
    for kind in ("memory", "iterator pair", "generator"):
        with stream.open(stream.source(*sources[kind]()), BATCH, 3) as found:
            whole = [[part.copy() for part in found.batch()] for _ in range(6)]
        for cut in range(1, 5):
            with stream.open(stream.source(*sources[kind]()), BATCH, 3) as found:
                for _ in range(cut):
                    found.batch()
            (after, *_), _ = run(sources[kind](), 1, found.state())
            assert all(np.array_equal(*pair) for pair in zip(after, whole[cut], strict=True))


def test_batches_do_not_depend_on_who_is_faster():
    quick = run((World(),), 12)[0]
    slow_draws = run((World(pause=0.002),), 12)[0]
    slow_training = run((World(),), 12, pause=0.002)[0]
    for one, *others in zip(quick, slow_draws, slow_training, strict=True):
        assert all(np.array_equal(one[0], other[0]) for other in others)


def test_one_thread_prepares_one_batch_ahead_and_ends_with_the_stream():
    world = World()
    before = set(threading.enumerate())
    with stream.open(world, BATCH, 0) as found:
        world.threads.clear()
        first, second, third = (found.batch().x for _ in range(3))
        assert first is third
        assert second is not first
        assert all(x.ctypes.data % 64 == 0 and x.flags.c_contiguous for x in (first, second))
        assert len(world.threads) == 1
        assert threading.current_thread().name not in world.threads
    assert set(threading.enumerate()) == before


def test_an_exception_in_the_thread_is_raised_every_time_and_leaves_a_state(tmp_path):
    path = tmp_path / "acts.npy"
    np.save(path, TABLE)
    source = stream.source(path)
    source.origin.block, source.origin.mixed = 100, 1
    with stream.open(source, 100, 0) as found:
        found.batch()
        found.state()  # the second batch is there
        path.unlink()
        second = found.batch().x.copy()
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                found.batch()
        state = found.state()
    np.save(path, TABLE)
    again = stream.source(path)
    again.origin.block, again.origin.mixed = 100, 1
    with stream.open(again, 100, 0) as whole, stream.open(again, 100, 0, state=state) as rest:
        batches = [whole.batch().x.copy() for _ in range(4)]
        assert np.array_equal(batches[1], second)
        assert np.array_equal(batches[2], rest.batch().x)


def test_an_iterator_that_has_become_shorter_cannot_go_on(sources):
    _, state = run((chunks(),), 5)
    with pytest.raises(ValueError, match=r"ended after 60 samples where it gave \d+ before"):
        run((chunks(TABLE[:60]),), 1, state)


def test_a_state_of_one_that_came_once_is_refused():
    _, state = run((chunks(),), 2)
    with pytest.raises(ValueError, match="cannot be resumed"):
        stream.open(chunks()(), BATCH, 3, state=state)
