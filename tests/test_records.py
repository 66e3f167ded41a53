import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from superpose import records
from superpose.records import RecordError

DTYPES = ["float16", "float32", "float64", "int8", "int64", "uint32", "bool"]
ARRAYS = st.dictionaries(
    st.text("abW_b.0", min_size=1, max_size=6),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
    ),
    max_size=4,
)
quick = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def content(scale=1.0):
    return {
        "kind": "run",
        "about": {"seed": 3, "p": [0.1, 0.05], "note": "größe"},
        "arrays": {"W": scale * np.arange(12, dtype=np.float32).reshape(2, 3, 2)},
        "tables": {"models": pa.table({"seed": [0, 1], "loss": [scale, None]})},
    }


def bytes_below(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@quick
@given(arrays=ARRAYS)
def test_arrays_come_back_as_they_went(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("record")
    back = records.load(records.save(folder, kind="run", about={}, arrays=arrays)).arrays
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].flags.writeable
        np.testing.assert_array_equal(back[name], array, strict=True)


def test_views_and_foreign_byte_orders_are_kept_by_value(tmp_path):
    grid = np.arange(24.0).reshape(4, 6)
    arrays = {"T": grid.T, "step": grid[::2, ::-1], "big": grid.astype(">f8")}
    back = records.load(records.save(tmp_path, kind="run", about={}, arrays=arrays)).arrays
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_tables_and_about_come_back(tmp_path):
    wanted = content()
    record = records.load(records.save(tmp_path / "new" / "run", **wanted), kind="run")
    assert record.tables["models"].equals(wanted["tables"]["models"])
    assert record.about == wanted["about"]
    assert record.kind == "run"


def test_about_takes_numpy_and_says_what_it_cannot_take(tmp_path):
    about = {"p": np.float32(0.5), "losses": np.array([1.0, np.nan]), "pair": (1, 2)}
    assert records.load(records.save(tmp_path, kind="run", about=about)).about == {
        "p": 0.5,
        "losses": [1.0, None],
        "pair": [1, 2],
    }
    assert records.is_complete(tmp_path, about)
    with pytest.raises(TypeError, match=r"dataclasses\.asdict"):
        records.save(tmp_path, kind="run", about={"world": object()})


def test_equal_content_makes_equal_bytes(tmp_path):
    one, two = content(), content()
    two["about"] = dict(reversed(two["about"].items()))
    halves = two["tables"]["models"]
    two["tables"]["models"] = pa.concat_tables([halves.slice(0, 1), halves.slice(1)])
    first = records.save(tmp_path / "one", **one)
    second = records.save(tmp_path / "two", **two)
    assert bytes_below(first) == bytes_below(second)


def test_every_flip_and_truncation_is_found(tmp_path):
    sound = records.save(tmp_path / "sound", **content())
    rng = np.random.default_rng(0)
    silent = []
    for name in bytes_below(sound):
        data = (sound / name).read_bytes()
        everywhere = [(at, bit) for at in range(len(data)) for bit in range(8)]
        flips = rng.choice(everywhere, size=min(150, len(everywhere)), replace=False)
        damaged = [data[:at] for at in rng.integers(0, len(data), 20)] + [data + b"\0"]
        for at, bit in flips:
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            damaged.append(bytes(flipped))
        for case in damaged:
            (sound / name).write_bytes(case)
            found = records.verify(sound) and not records.is_complete(sound)
            try:
                records.load(sound)
            except RecordError:
                silent += [] if found else [name]
            else:
                silent.append(name)
        (sound / name).write_bytes(data)
    assert records.verify(sound) == []
    assert not silent


def test_what_is_missing_is_named(tmp_path):
    folder = records.save(tmp_path / "run", **content())
    (folder / "arrays.safetensors").unlink()
    with pytest.raises(RecordError, match=r"arrays\.safetensors: missing"):
        records.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(RecordError, match="no record here"):
        records.load(folder)
    assert len(records.verify(folder)) == 2
    assert not records.is_complete(folder)
    assert "no such folder" in records.verify(tmp_path / "nowhere")[0]


def test_another_kind_or_about_is_not_taken_for_this_one(tmp_path):
    folder = records.save(tmp_path, **content())
    with pytest.raises(RecordError, match="kind 'run', not 'sae'"):
        records.load(folder, kind="sae")
    assert records.is_complete(folder, content()["about"])
    assert not records.is_complete(folder, {"seed": 4})


def forge(folder, **changes):
    """A manifest that someone able to compute digests has rewritten."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    body = {key: value for key, value in manifest.items() if key != "digest"}
    manifest["digest"] = records.documents.digest(body)
    (folder / "manifest.json").write_text(records.files.pretty_json(manifest))


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../b", "a/b/c", "..", ".", "", "a\\b", "C:x", "a\0", ".hidden",
     "manifest.json", "new\nline", "x/"],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    folder = records.save(tmp_path / "run", kind="run", about={})
    (tmp_path / "secret").write_text("")
    empty = {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    forge(folder, files={name: empty})
    with pytest.raises(RecordError, match="not a name for a file"):
        records.load(folder)
    assert records.verify(folder)


@pytest.mark.parametrize(
    "changes", [{"files": []}, {"files": {"a": 1}}, {"about": 1}, {"kind": None}, {"extra": 1}]
)
def test_manifests_of_another_layout_are_refused(tmp_path, changes):
    folder = records.save(tmp_path, kind="run", about={})
    forge(folder, **changes)
    with pytest.raises(RecordError, match="not laid out"):
        records.load(folder)


def test_a_newer_format_is_named(tmp_path):
    folder = records.save(tmp_path, kind="run", about={})
    forge(folder, version=2)
    with pytest.raises(RecordError, match="version 2 of the format"):
        records.load(folder)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "{}", "null", '{"format": "other"}'])
def test_manifests_that_are_not_ours_are_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecordError, match="not a file of superpose"):
        records.load(tmp_path)


def sealed_arrays(folder, data):
    records.write_bytes(folder / "arrays.safetensors", data)
    return records.seal(folder, kind="run", about={})


def test_headers_are_bounded_before_the_parser_sees_them(tmp_path):
    huge = (2**40).to_bytes(8, "little") + b"{}"
    with pytest.raises(RecordError, match="header"):
        records.load(sealed_arrays(tmp_path / "huge", huge))
    crowd = json.dumps({f"{i:x}": 0 for i in range(10_001)}).encode()
    with pytest.raises(RecordError, match="10001 arrays"):
        records.load(sealed_arrays(tmp_path / "crowd", len(crowd).to_bytes(8, "little") + crowd))
    with pytest.raises(RecordError, match="not readable"):
        records.load(sealed_arrays(tmp_path / "lie", (2).to_bytes(8, "little") + b"{}" + b"extra"))
    records.write_bytes(tmp_path / "table" / "x.parquet", b"PAR1 not a table PAR1")
    with pytest.raises(RecordError, match="not readable"):
        records.load(records.seal(tmp_path / "table", kind="run", about={}))


def test_arrays_of_objects_and_texts_are_refused(tmp_path):
    for array in (np.array(["text"]), np.array([None]), np.array([1j])):
        with pytest.raises(RecordError, match="dtype"):
            records.save(tmp_path / "run", kind="run", about={}, arrays={"x": array})
    assert not (tmp_path / "run").exists()


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecordError, match=r"file.*a file is where a folder should be"):
        records.save(tmp_path / "file" / "run", **content())
    with pytest.raises(RecordError, match="a file is where a folder should be"):
        records.save(tmp_path / "file", **content())
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="a folder is where a file should be"):
        records.write_text(tmp_path / "folder", "text")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match=r"No space left on device.*free some space"):
        records.save(tmp_path / "run", **content())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("survived", range(5))
def test_an_interrupted_save_leaves_the_old_record_or_none(
    tmp_path, monkeypatch, survived, before, failure
):
    folder = tmp_path / "run"
    if before:
        records.save(folder, **content(scale=1.0))
    calls = iter(range(survived))
    genuine = records.files.os.replace

    def replace(*paths):
        if next(calls, None) is None:
            raise failure
        genuine(*paths)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        try:
            records.save(folder, **content(scale=2.0))
        except (RecordError, KeyboardInterrupt):
            assert survived < 4
    try:
        found = records.load(folder).arrays["W"].max()
    except RecordError:
        assert records.verify(folder)
    else:
        assert found == (22.0 if survived == 4 else 11.0)
        assert records.verify(folder) == []
    records.save(folder, **content(scale=2.0))
    assert records.load(folder).arrays["W"].max() == 22.0
    assert records.verify(folder) == []


def test_saving_again_replaces_the_whole_record(tmp_path):
    records.save(tmp_path, **content())
    records.save(tmp_path, kind="run", about={}, tables={"other": pa.table({"x": [1]})})
    assert sorted(map(str, bytes_below(tmp_path))) == ["manifest.json", "other.parquet"]


@pytest.mark.parametrize("name", ["arrays.safetensors", "models.parquet", "manifest.json"])
def test_files_of_other_origin_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RecordError, match="in the way"):
        records.save(tmp_path, **content())
    assert (tmp_path / name).read_text() == "mine"


def test_files_of_other_origin_are_kept_and_reported(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".DS_Store").write_text("")
    records.save(tmp_path, **content())
    records.save(tmp_path, kind="run", about={})
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [problem.split(": ")[1] for problem in records.verify(tmp_path)] == [
        "unknown, no manifest lists it"
    ]


def result_folder(folder):
    records.save(folder / "models", **content())
    records.write_text(folder / "report.html", "<!doctype html>")
    records.write_text(folder / "figures" / "phases.svg", "<svg/>")
    return records.seal(folder, kind="result", about={"command": "superpose run"})


def test_a_sealed_folder_answers_for_all_that_is_below_it(tmp_path):
    folder = result_folder(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["files"]) == ["figures/phases.svg", "models/manifest.json", "report.html"]
    assert records.verify(folder) == []
    assert records.is_complete(folder)
    assert records.load(folder, "result").tables == {}
    (folder / "models" / "arrays.safetensors").write_bytes(b"")
    assert not records.is_complete(folder)
    assert len(records.verify(folder)) == 1


def test_sealing_again_is_idempotent_and_follows_changes(tmp_path):
    folder = result_folder(tmp_path)
    before = bytes_below(folder)
    assert bytes_below(result_folder(tmp_path)) == before
    records.write_text(folder / "report.html", "another")
    assert not records.is_complete(folder)
    records.seal(folder, kind="result", about={})
    assert records.is_complete(folder, {})


def test_sealing_refuses_damage_and_depth(tmp_path):
    folder = result_folder(tmp_path)
    (folder / "models" / "models.parquet").write_bytes(b"")
    with pytest.raises(RecordError, match="damaged"):
        records.seal(folder, kind="result", about={})
    shutil.rmtree(folder / "models")
    records.write_text(folder / "a" / "b" / "c.txt", "")
    with pytest.raises(RecordError, match="at most one folder"):
        records.seal(folder, kind="result", about={})
    with pytest.raises(RecordError, match="cannot read"):
        records.seal(folder / "nowhere", kind="result", about={})


def test_sealing_by_name_leaves_what_is_not_ours_alone(tmp_path):
    folder = result_folder(tmp_path)
    records.unseal(folder)
    assert not records.is_complete(folder)
    for stray in ("my notes.txt", "figures/my notes.txt", "models/my notes.txt"):
        (folder / stray).write_text("mine")
    ours = ["report.html", "models", "figures/phases.svg"]
    records.seal(folder, kind="result", about={}, names=ours)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["files"]) == ["figures/phases.svg", "models/manifest.json", "report.html"]
    assert records.is_complete(folder)
    assert len(records.verify(folder)) == 3
    with pytest.raises(RecordError, match="cannot read"):
        records.seal(folder, kind="result", about={}, names=["nothing.txt"])


def test_json_has_sorted_keys_and_no_nan(tmp_path):
    path = records.write_json(tmp_path / "x.json", {"b": np.inf, "a": [np.nan, 1.5, True]})
    assert path.read_text() == '{\n  "a": [\n    null,\n    1.5,\n    true\n  ],\n  "b": null\n}\n'


def test_tables_alone_are_deterministic(tmp_path):
    table = content()["tables"]["models"]
    one, two = (records.write_table(tmp_path / name, table) for name in ("1.parquet", "2.parquet"))
    assert Path(one).read_bytes() == Path(two).read_bytes()
