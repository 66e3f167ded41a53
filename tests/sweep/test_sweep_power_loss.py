"""A sweep whose disk forgets, at any moment, what it was not made to keep, loses nothing."""

import pytest
from faults.batteries import KEPT, battery, broken
from faults.calls import Watch
from faults.disk import Fate, Log, after_cut, fates, lay_out, read_in

from superpose.records import write_bytes


def test_no_shard_is_lost():
    found = battery("power", "--times", 200)
    assert broken(found) == KEPT
    assert found["states"] == 200
    assert found["promises"] > 200


def test_no_shard_is_lost_that_an_earlier_process_left_unsynced():
    """Killed at every point, gone on with by another process, and then the power is cut."""
    found = battery("kills and power", "--times", 0, "--without", "before")
    assert broken(found) == KEPT
    assert found["states"] == found["counts"]["points"] >= 18


def test_no_round_of_refinement_is_lost_that_an_earlier_process_left_unsynced():
    words = ["--refined", "--only", "after round", "--without", "before"]
    found = battery("kills and power", "--times", 0, *words)
    assert broken(found) == KEPT
    assert found["states"] >= 5


@pytest.mark.slow
def test_no_shard_is_lost_in_many_states():
    found = battery("power", "--times", 20_000, "--seed", 1)
    assert broken(found) == KEPT


@pytest.mark.slow
def test_no_shard_is_lost_after_kills_in_many_states():
    found = battery("kills and power", "--times", 100, "--seed", 1)
    assert broken(found) == KEPT


@pytest.mark.parametrize("omitted", ["no fsync of files", "no fsync of folders"])
def test_a_writer_that_does_not_sync_is_found_out(omitted):
    found = battery("power", "--times", 15, "--omit", omitted)
    assert broken(found) != KEPT


def _logged(folder, write):
    log = Log(folder)
    with Watch(folder, log.see):
        write()
    return log


def _contents(folder, log, name, **fate):
    """What a file may hold after a cut at any step."""
    trees = (after_cut(log, cut, Fate(**fate)) for cut in range(len(log.steps) + 1))
    return {tree.get(name) for tree in trees}


@pytest.mark.parametrize("names", ["kept", "lost", "any", "ordered"])
@pytest.mark.parametrize("data", ["kept", "lost", "any"])
def test_a_file_is_old_or_new(tmp_path, names, data):
    def write():
        write_bytes(tmp_path / "a", b"old")
        write_bytes(tmp_path / "a", b"new")

    log = _logged(tmp_path, write)
    assert _contents(tmp_path, log, "a", names=names, data=data) <= {None, b"old", b"new"}
    assert after_cut(log, len(log.steps), Fate(names, data))["a"] == b"new"


def test_what_is_not_synced_may_be_gone_in_part(tmp_path):
    log = _logged(tmp_path, lambda: (tmp_path / "a").write_bytes(b"12345678"))
    found = [after_cut(log, len(log.steps), fate) for _, fate in fates(400, len(log.steps), 0)]
    assert {} in found  # its name
    assert {"a": b""} in found  # its bytes
    assert {"a": bytes(8)} in found
    assert {"a": b"1234"} in found
    assert {"a": b"12345678"} in found


def test_a_name_in_a_folder_that_is_not_synced_is_lost_with_it(tmp_path):
    def write():
        (tmp_path / "b").mkdir()
        write_bytes(tmp_path / "b" / "a", b"1")

    log = _logged(tmp_path, write)
    assert after_cut(log, len(log.steps), Fate("lost", "lost")) == {}
    assert after_cut(log, len(log.steps), Fate("kept", "lost")) == {"b": {"a": b"1"}}


def test_later_renames_may_be_there_without_earlier_ones(tmp_path):
    def write():
        for name in "ab":
            (tmp_path / "new").write_bytes(name.encode())
            (tmp_path / "new").rename(tmp_path / name)

    log = _logged(tmp_path, write)
    states = fates(500, len(log.steps), 0)
    assert any(set(after_cut(log, len(log.steps), fate)) == {"b"} for _, fate in states)


def test_the_log_alone_makes_the_folder(tmp_path):
    (tmp_path / "real").mkdir()

    def write():
        write_bytes(tmp_path / "real" / "a" / "b", b"1" * 1000)
        with (tmp_path / "real" / "c").open("w") as file:
            file.write("text")
        with (tmp_path / "real" / "c").open("ab") as file:
            file.write(b" and more")
        (tmp_path / "real" / "d").hardlink_to(tmp_path / "real" / "c")
        (tmp_path / "real" / "c").unlink()
        (tmp_path / "real" / "d").write_bytes(b"anew")

    log = _logged(tmp_path / "real", write)
    tree = after_cut(log, len(log.steps), Fate("kept", "kept"))
    assert tree == read_in(tmp_path / "real")
    (tmp_path / "again").mkdir()
    lay_out(tree, tmp_path / "again")
    assert read_in(tmp_path / "again") == tree
