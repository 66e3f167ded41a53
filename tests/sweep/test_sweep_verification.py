import json
import shutil

import numpy as np
import pytest
from tiny_sweeps import configuration, filled

from superpose import cli, records
from superpose.records.folders import Folder
from superpose.sweep.index import INDEX
from superpose.sweep.verification import verify


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["superpose", "verify", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_sweeps_and_records_side_by_side_are_all_looked_at(tmp_path):
    records.save(tmp_path / "run", kind="run", about={}, arrays={"W": np.ones(3)})
    for name in ("a", "deeper/b"):
        filled(tmp_path / name, configuration(), [6])
    assert verify(str(tmp_path)).problems == []
    damage(next((tmp_path / "deeper").rglob("*.parquet")))
    damage(tmp_path / "run" / "arrays.safetensors")
    found = verify(str(tmp_path)).problems
    assert len(found) == 2
    assert any("deeper/b/shards" in problem for problem in found)
    (tmp_path / "stray").write_text("")
    assert any("stray: unknown" in problem for problem in verify(str(tmp_path)).problems)


def test_a_folder_of_sweeps_alone_is_sound(tmp_path):
    filled(tmp_path / "a", configuration(), [6])
    assert verify(str(tmp_path)).problems == []
    assert verify(str(tmp_path / "nothing")).problems
    shutil.rmtree(tmp_path / "a" / "shards")
    assert verify(str(tmp_path / "a")).problems == []


def test_claims_are_hints(tmp_path):
    sweep = filled(tmp_path / "a", configuration(), [6])
    sweep.folder.write("claims/host-1-abcdef01.json", b"torn")
    assert (sweep.verify(), sweep.leftovers()) == ([], [])


def test_a_damaged_index_is_mended(tmp_path):
    where = tmp_path / "s"
    sweep = filled(where, configuration(), [6])
    sweep.reindex()
    damage(where / INDEX)
    assert len(verify(str(where)).problems) == 1
    assert verify(str(where), reindex=True).problems == []
    assert verify(str(where)).problems == []


def test_the_command_says_what_it_found(tmp_path, monkeypatch, capsys):
    where = str(tmp_path / "s")
    sweep = filled(where, configuration(), [6])
    code, out, err = command(monkeypatch, capsys, where)
    assert (code, err) == (0, "")
    assert "as it was written" in out
    sweep.folder.write("shards/000001/0123456789ab.parquet", b"torn")
    code, _, err = command(monkeypatch, capsys, where)
    assert code == 0
    assert "0123456789ab.parquet" in err
    code, out, _ = command(monkeypatch, capsys, where, "--reindex", "--json")
    assert code == 0
    assert len(json.loads(out)["leftovers"]) == 1  # younger than an hour
    damage(tmp_path / "s" / "sweep.json")
    code, _, err = command(monkeypatch, capsys, where)
    assert code == 1
    assert "sweep.json: damaged" in err.replace("\n", " ")


def test_object_storage_is_verified_as_a_folder_is():
    sweep = filled("memory://verified", configuration(), [6])
    assert verify("memory://verified").problems == []
    sweep.folder.write(sorted(sweep.folder.names("shards"))[0], b"torn")
    assert verify("memory://verified").problems
    Folder("memory://verified")._place.files.store.clear()


def test_every_byte_is_read_once(tmp_path, monkeypatch):
    sweep = filled(tmp_path / "s", configuration(), [6])
    seen, read = [], Folder.read
    monkeypatch.setattr(Folder, "read", lambda *args: (seen.append(args[1]), read(*args))[1])
    for reindex in (False, True):
        seen.clear()
        assert verify(str(tmp_path / "s"), reindex=reindex).problems == []
        data = [name for name in seen if name.endswith((".parquet", ".safetensors"))]
        assert sorted(data) == sorted(n for n in sweep.folder.names("shards") if "DONE" not in n)


def test_a_file_of_others_is_unknown_and_not_damaged(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6])
    (tmp_path / "s" / "notes.txt").write_text("mine")
    assert sweep.verify() == [f"{tmp_path}/s/notes.txt: unknown, no part of this sweep"]
    assert verify(str(tmp_path / "s")).problems == sweep.verify()
