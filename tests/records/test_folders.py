import os
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from superpose.records import RecordError
from superpose.records.folders import Folder


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    yield Folder(str(tmp_path / "new" / "folder") if request.param == "disk" else "memory://tests")
    if request.param == "memory":
        Folder("memory://tests")._place.files.store.clear()


def test_files_come_back_as_they_went(folder):
    assert folder.names() == {}
    folder.write("a.json", b"one")
    folder.write("b/c/d.json", b"")
    folder.write("a.json", b"two")
    assert folder.read("a.json") == b"two"
    assert folder.names() == {"a.json": 3, "b/c/d.json": 0}
    assert folder.names("b") == {"b/c/d.json": 0}
    assert folder.names("nothing") == {}
    assert Folder(folder.where).read("b/c/d.json") == b""
    assert folder.has("a.json")
    assert not folder.has("b")


def test_a_file_is_created_once(folder):
    assert folder.create("a/b", b"first")
    assert not folder.create("a/b", b"second")
    assert folder.read("a/b") == b"first"
    folder.remove("a/b")
    folder.remove("a/b")
    assert folder.create("a/b", b"third")
    assert folder.names() == {"a/b": 5}


def test_ages_are_small_and_positive(folder):
    folder.write("a", b"1")
    assert -1 < folder.age("a") < 60


def test_what_is_missing_or_too_large_is_an_error(folder):
    folder.write("a", b"12345")
    with pytest.raises(RecordError, match="a: 5 bytes, where at most 4"):
        folder.read("a", 4)
    with pytest.raises(RecordError, match="nothing"):
        folder.read("nothing")


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".", "..", "a\\b", "a\0b", "a\nb"]
)
def test_names_that_leave_the_folder_are_refused(folder, name):
    for act in (folder.read, folder.remove, folder.has, lambda name: folder.write(name, b"")):
        with pytest.raises(RecordError, match="not a name for a file"):
            act(name)


def test_of_many_who_create_a_file_one_is_told_so(tmp_path):
    folder, barrier, told = Folder(str(tmp_path)), Barrier(8), []

    def create(number):
        barrier.wait()
        told.append((folder.create("winner", str(number).encode()), number))

    threads = [Thread(target=create, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    (winner,) = [number for created, number in told if created]
    assert folder.read("winner") == str(winner).encode()
    assert folder.names() == {"winner": 1}


def test_without_hard_links_a_file_is_still_created_whole(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder = Folder(str(tmp_path))
    assert folder.create("a", b"first")
    assert not folder.create("a", b"second")
    assert folder.names() == {"a": 5}
    assert folder.read("a") == b"first"


def test_links_pipes_and_folders_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(secret)
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    folder = Folder(str(root))
    for name in ("link", "away/file", "folder", "pipe"):
        with pytest.raises(RecordError):
            folder.read(name)
        assert not folder.has(name) or name == "away/file"
    with pytest.raises(RecordError, match="a link in place of a folder"):
        folder.write("away/other", b"")
    # They are seen, so that someone can be told.
    assert folder.names().keys() == {"away", "link", "pipe"}


def test_every_folder_on_the_way_is_put_on_disk(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see what is synced")
    monkeypatch.setattr(os, "fsync", fsync)
    root = tmp_path / "a" / "b"
    Folder(str(root)).write("c/d/file", b"1")
    folders = {str(tmp_path / each) for each in ("", "a", "a/b", "a/b/c", "a/b/c/d")}
    assert folders <= set(synced)
    # Made by another process, which may not have come to that yet.
    (root / "x" / "y").mkdir(parents=True)
    synced.clear()
    Folder(str(root)).create("x/y/file", b"1")
    assert {str(root), str(root / "x"), str(root / "x" / "y")} <= set(synced)


def test_a_relative_folder_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Folder("here")
    assert folder.where == str(tmp_path / "here")


def test_an_unknown_storage_is_an_error():
    with pytest.raises(RecordError, match="nosuch"):
        Folder("nosuch://bucket/sweep")


def test_a_write_that_fails_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="a file is where a folder should be"):
        Folder(str(tmp_path / "file")).write("a", b"")
    code = (
        "import resource, sys; from superpose.records.folders import Folder\n"
        "from superpose.records import RecordError\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: Folder(sys.argv[1]).write('large', b'1' * 2000)\n"
        "except RecordError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
