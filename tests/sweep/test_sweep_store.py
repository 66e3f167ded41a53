import dataclasses
import errno
import json
import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_sweeps import configuration, filled, made_up, refined, trained

from superpose.records import RecordError
from superpose.records.folders import Folder
from superpose.records.formats import format_table
from superpose.sweep.configuration import ConfigurationError
from superpose.sweep.done import done_name, parse_done
from superpose.sweep.index import INDEX, SWEEP
from superpose.sweep.store import Sweep


@pytest.fixture(params=["disk", "memory"])
def where(request, tmp_path):
    yield str(tmp_path / "sweep") if request.param == "disk" else "memory://sweep"
    if request.param == "memory":
        Folder("memory://sweep")._place.files.store.clear()


def test_a_sweep_comes_back_as_it_went(where):
    given = configuration()
    sweep = Sweep.create(where, given, [6])
    assert list(sweep.missing()) == [0, 1]
    assert sweep.table().num_rows == 0
    assert sweep.table().schema == filled(where, given, [6]).table().schema
    sweep = Sweep.open(where)
    assert sweep.done() == {0, 1}
    assert list(sweep.missing(check=True)) == []
    assert (sweep.verify(), sweep.leftovers()) == ([], [])
    table = sweep.table()
    assert table["index"].to_pylist() == list(range(12))
    assert table["cell"].to_pylist() == [c for c in range(4) for _ in range(3)]
    assert table["run"].to_pylist() == [0, 1, 2] * 4
    assert table["p"].to_pylist() == [p for p in (1.0, 0.5, 0.1, 0.05) for _ in range(3)]
    runs = [made_up(sweep.plan, sweep.plan.shard(number)) for number in (0, 1)]
    losses = torch.cat([run.loss.flatten() for run in runs])
    assert table["loss"].to_pylist() == losses.tolist()
    assert torch.equal(sweep.runs(2).W, runs[1].W[0])
    assert torch.equal(sweep.runs(3).snapshots.W, runs[1].snapshots.W[:, 1])


def test_columns_and_cells_are_chosen(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6])
    whole = sweep.table()
    part = sweep.table(["loss", "p"], cells=[3, 1])
    assert part.column_names == ["loss", "p"]
    assert part == whole.select(["loss", "p"]).take([3, 4, 5, 9, 10, 11])
    assert sweep.table([]).num_columns == 0
    with pytest.raises(ValueError, match=r"\['los'\].*loss"):
        sweep.table(["los"])


@pytest.mark.parametrize("run", [made_up, trained])
def test_equal_results_make_equal_tables_however_shards_are_cut(tmp_path, run):
    given = configuration(axes={"model.n": [2, 3], "world.p": [1.0, 0.1]})
    cuts = {"whole": [6, 6], "cells": [3, 6], "pieces": [2, 1]}
    tables = set()
    for name, sizes in cuts.items():
        sweep = filled(tmp_path / name, given, sizes, run)
        order = sorted(sweep.missing(), reverse=True)
        assert not order
        tables.add(format_table(sweep.table()))
    assert len(tables) == 1


def test_any_order_of_shards_makes_the_same_table(tmp_path):
    given = configuration()
    forward = filled(tmp_path / "forward", given, [1])
    backward = filled(tmp_path / "backward", given, [1], only=range(11, -1, -1))
    assert format_table(forward.table()) == format_table(backward.table())


def test_the_best_of_restarts_says_which_it_is(tmp_path):
    sweep = filled(tmp_path / "s", configuration(restarts=2, seeds=2), [4], trained)
    table = sweep.table()
    assert [number // 2 for number in table["number"].to_pylist()] == table["run"].to_pylist()
    at = 5
    again = sweep.retrain(at)
    assert again.index.tolist() == [table["number"][at].as_py()]
    assert again.loss.item() == table["loss"][at].as_py()


def test_a_model_is_trained_again_to_the_same_bits(tmp_path):
    sweep = filled(tmp_path / "s", configuration(seeds=2), [4], trained)
    for index in (0, 5):
        kept, again = sweep.runs(index // 2), sweep.retrain(index)
        assert torch.equal(again.W[0], kept.W[index % 2])
        assert torch.equal(again.snapshots.W[:, 0], kept.snapshots.W[:, index % 2])


def test_the_first_to_write_a_shard_counts(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6], only=[0])
    shard = sweep.plan.shard(0)
    before = {n: sweep.folder.read(n) for n in sweep.folder.names()}
    other = made_up(sweep.plan, shard)
    other.state.loss[:] = 7.0
    assert not sweep.write(shard, made_up(sweep.plan, shard), 2.0)
    assert not Sweep.open(sweep.folder.where).write(shard, other, 2.0)
    assert {n: sweep.folder.read(n) for n in sweep.folder.names()} == before


def test_many_writers_of_the_same_shards_leave_one_of_each(tmp_path):
    given = configuration()
    sweep = filled(tmp_path / "s", given, [1], only=[])

    def write(writer):
        own, told = Sweep.open(sweep.folder.where), 0
        for number in np.random.default_rng(writer).permutation(own.plan.shards):
            shard = own.plan.shard(int(number))
            run = made_up(own.plan, shard)
            run.state.loss[:] = float(writer)
            told += own.write(shard, run, 1.0)
        return told

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(write, range(8)))
    assert sum(told) == sweep.plan.shards
    assert (sweep.verify(), sweep.leftovers(), list(sweep.missing(check=True))) == ([], [], [])
    losses = np.array(sweep.table()["loss"].to_pylist()).astype(int)
    assert [int((losses == writer).sum()) for writer in range(8)] == told


def test_the_run_of_other_models_is_refused(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6], only=[])
    shards = [sweep.plan.shard(number) for number in (0, 1)]
    other = filled(tmp_path / "other", configuration(seed=1), [6], only=[])
    for run in (made_up(sweep.plan, shards[1]), made_up(other.plan, shards[0])):
        with pytest.raises(ValueError, match="not one of its models"):
            sweep.write(shards[0], run, 1.0)
    assert list(sweep.missing()) == [0, 1]


def test_an_equal_configuration_goes_on_and_another_is_refused(tmp_path):
    where, given = tmp_path / "s", configuration()
    first = filled(where, given, [6])
    again = Sweep.create(where, configuration(), [12])
    assert again.plan == first.plan
    assert (again.digest, again.done()) == (first.digest, {0, 1})
    with pytest.raises(ConfigurationError, match="differs in seed, training"):
        Sweep.create(where, configuration(seed=1, training={"steps": 21}), [12])


def test_of_many_who_make_a_sweep_all_have_the_same(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        sweeps = list(
            pool.map(lambda k: Sweep.create(tmp_path / "s", configuration(), [k]), range(1, 9))
        )
    assert len({sweep.plan.sizes for sweep in sweeps}) == 1


def test_no_sweep_is_said_to_be_there_where_none_is(tmp_path):
    with pytest.raises(RecordError, match="no sweep here"):
        Sweep.open(tmp_path)


def test_a_copy_made_on_the_way_is_a_sweep(tmp_path):
    # In the order of names, files come over while shards are still written.
    sweep = filled(tmp_path / "s", configuration(), [1], only=range(5))
    copy = tmp_path / "copy"
    for number, name in enumerate(sweep.folder.names()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "s" / name, copy / name)
        if number % 3 == 0 and number < 18:
            shard = sweep.plan.shard(5 + number // 3)
            sweep.write(shard, made_up(sweep.plan, shard), 1.0)
    there = Sweep.open(copy)
    assert there.done() == set(range(5))
    assert there.verify() == []
    for number in there.missing():
        shard = there.plan.shard(number)
        there.write(shard, made_up(there.plan, shard), 1.0)
    for number in sweep.missing():
        shard = sweep.plan.shard(number)
        sweep.write(shard, made_up(sweep.plan, shard), 1.0)
    assert format_table(there.table()) == format_table(sweep.table())


def test_a_shard_is_there_wholly_or_not_at_all(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6], only=[0])
    names = sorted(name for name in sweep.folder.names("shards"))
    whole = {name: sweep.folder.read(name) for name in names}
    # The order of writing: data first, DONE last.
    order = [*(name for name in names if "DONE" not in name), done_name(0)]
    for count in range(len(order)):
        shutil.rmtree(tmp_path / "s" / "shards", ignore_errors=True)
        for name in order[:count]:
            sweep.folder.write(name, whole[name])
        seen = Sweep.open(tmp_path / "s")
        assert (seen.done(), seen.table().num_rows, seen.verify()) == (frozenset(), 0, [])
        assert len(seen.leftovers()) == count
        assert not seen.is_done(0)


def test_without_its_index_nothing_is_lost(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [1])
    sweep.reindex()
    table = sweep.table()
    indexed = Sweep.open(tmp_path / "s")
    assert (indexed.table(), indexed.done()) == (table, sweep.done())
    before = sweep.folder.read(INDEX)
    (tmp_path / "s" / INDEX).unlink()
    bare = Sweep.open(tmp_path / "s")
    assert bare.table() == table
    bare.reindex()
    assert bare.folder.read(INDEX) == before


def test_an_old_index_is_no_lie(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6], only=[0])
    sweep.reindex()
    shard = sweep.plan.shard(1)
    sweep.write(shard, made_up(sweep.plan, shard), 1.0)
    shutil.rmtree(tmp_path / "s" / "shards" / "000000")
    assert Sweep.open(tmp_path / "s").done() == {1}


def test_leftovers_go_when_they_are_old_and_nothing_else_does(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6])
    kept = set(sweep.folder.names())
    left = {
        "shards/000001/0123456789ab.parquet",
        "shards/000001/.DONE.json.0123456789abcdef.tmp",
        ".sweep.json.0123456789abcdef.tmp",
    }
    for name in left:
        sweep.folder.write(name, b"torn")
    assert sweep.verify() == []
    assert {path[len(sweep.folder.where) + 1 :] for path in sweep.leftovers()} == left
    assert sweep.table() == filled(tmp_path / "t", configuration(), [6]).table()
    sweep.reindex()
    assert set(sweep.folder.names()) == kept | left | {INDEX}
    sweep.reindex(grace=0.0)
    assert set(sweep.folder.names()) == kept | {INDEX}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ({"weights": "all"}, [0, 1, 2]),
        ({"weights": "sampled", "runs": 2}, [0, 1]),
        ({"weights": "best"}, None),
        ({"weights": "none"}, []),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("sizes", [[12], [1]], ids=["whole", "pieces"])
def test_weights_are_kept_as_asked(tmp_path, keep, kept, sizes):
    sweep = filled(tmp_path / "s", configuration(keep=keep), sizes)
    table = sweep.table(["loss"], cells=[2])["loss"].to_numpy()
    kept = [int(table.argmin())] if kept is None else kept
    if not kept:
        with pytest.raises(RecordError, match=r"retrain\(index\)"):
            sweep.runs(2)
        assert not [name for name in sweep.folder.names() if name.endswith(".safetensors")]
        return
    run = sweep.runs(2)
    assert run.index.tolist() == kept
    assert run.loss.tolist() == table[kept].tolist()
    assert run.snapshots.steps == (5,)
    assert (run.worlds, run.seed) == ((sweep.plan.cell(2).world,), 0)


def test_rounds_of_refinement_are_chosen_once(tmp_path):
    sweep = filled(tmp_path / "s", refined(), [3])
    assert list(sweep.missing()) == []
    later = sweep.begin_round([3, 1])
    assert list(later.missing()) == [2, 3]
    # Another runner that was slower gets what the first one chose.
    assert sweep.begin_round([2]).plan == later.plan == Sweep.open(tmp_path / "s").plan
    with pytest.raises(ValueError, match="rounds"):
        later.begin_round([1])
    for number in later.missing():
        shard = later.plan.shard(number)
        later.write(shard, made_up(later.plan, shard), 1.0)
    assert later.table()["cell"].to_pylist() == [c for c in (0, 1, 3, 4) for _ in range(3)]
    assert later.table(["p"], cells=[3]).num_rows == 3
    assert later.verify() == []
    with pytest.raises(RecordError, match="not chosen cell 2"):
        later.runs(2)


def test_who_made_a_shard_is_on_record(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6])
    table = sweep.provenance()
    run = made_up(sweep.plan, sweep.plan.shard(0))
    assert table["shard"].to_pylist() == [0, 1]
    assert table["models"].to_pylist() == [6, 6]
    assert set(table["kernel"].to_pylist()) == {run.kernel}
    assert set(table["processor"].to_pylist()) == {run.processor}
    name = done_name(0)
    record = parse_done(name, sweep.folder.read(name))
    assert sum(record.sizes.values()) == table["bytes"][0].as_py()
    versions = json.loads((tmp_path / "s" / SWEEP).read_text())["versions"]
    assert {"superpose", "torch", "numpy", "python", "kernel"} <= versions.keys()


def test_duckdb_answers_about_models(where):
    pytest.importorskip("duckdb")
    sweep = filled(where, configuration(), [6])
    answer = sweep.query("select cell, count(*) as n, max(loss) as worst from models group by cell")
    found = {row["cell"]: row for row in answer.to_pylist()}
    losses = sweep.table(["loss"])["loss"].to_numpy().reshape(4, 3)
    assert [found[cell]["worst"] for cell in range(4)] == losses.max(1).tolist()
    assert {row["n"] for row in found.values()} == {3}
    with pytest.raises(ValueError, match="SELECT"):
        sweep.query("")


def test_duckdb_reads_nothing_but_the_models(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    sweep = filled(tmp_path / "s", configuration(), [6])
    (tmp_path / "secret.csv").write_text("a\n1\n")
    canary = sweep.table()
    assert canary.num_rows
    for sql in (f"select * from '{tmp_path / 'secret.csv'}'", "select * from canary"):
        with pytest.raises(duckdb.Error):
            sweep.query(sql)


def test_polars_and_other_engines_read_the_verified_files(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6])
    assert len(sweep.paths()) == 2
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(sweep.paths()).equals(polars.from_arrow(sweep.table()))


def elsewhere(sweep, number):
    """A shard's run as of another processor, whose last bits differ."""
    run = made_up(sweep.plan, sweep.plan.shard(number))
    run.state.loss[:] += 1e-6
    return dataclasses.replace(run, processor="another 00000000")


@pytest.mark.parametrize("kept_index", [False, True])
def test_a_shard_repaired_on_another_processor_counts_and_stays(tmp_path, kept_index):
    where = tmp_path / "s"
    sweep = filled(where, configuration(), [6])
    sweep.reindex()
    index = sweep.folder.read(INDEX)
    early = Sweep.open(where)
    assert early.table().num_rows == 12  # it knows the records of before
    table = where / next(n for n in sweep.folder.names("shards/000000") if "parquet" in n)
    data = bytearray(table.read_bytes())
    data[50] ^= 1
    table.write_bytes(data)
    with pytest.raises(RecordError, match="digest"):
        early.table()
    assert list(sweep.missing(check=True)) == [0]
    assert sweep.write(sweep.plan.shard(0), elsewhere(sweep, 0), 1.0)
    if kept_index:
        sweep.folder.write(INDEX, index)
    live = set(sweep._shards.record(0).sizes)
    for each in (early, sweep, Sweep.open(where)):
        assert each.table()["loss"][0].as_py() == elsewhere(sweep, 0).loss[0, 0].item()
        assert {path[len(str(where)) + 1 :] for path in each.paths()} >= {
            name for name in live if name.endswith("parquet")
        }
    again = Sweep.open(where)
    assert (again.verify(), list(again.missing(check=True))) == ([], [])
    for name in sweep.folder.names("shards"):
        os.utime(where / name, (time.time() - 7200, time.time() - 7200))
    again.reindex()
    last = Sweep.open(where)
    assert (last.verify(), last.leftovers(), list(last.missing(check=True))) == ([], [], [])
    assert live <= set(last.folder.names("shards"))
    assert last.provenance()["processor"][0].as_py() == "another 00000000"


def test_nothing_is_cleaned_that_a_record_names_by_then(tmp_path, monkeypatch):
    sweep = filled(tmp_path / "s", configuration(), [6], only=[1])
    shard, age = sweep.plan.shard(0), Folder.age
    spare = "shards/000000/0123456789ab.parquet"
    sweep.write(shard, made_up(sweep.plan, shard), 1.0)
    record = sweep.folder.read(done_name(0))
    sweep.folder.remove(done_name(0))
    sweep.folder.write(spare, b"torn")

    def late(folder, name):
        folder.write(done_name(0), record)
        return age(folder, name)

    monkeypatch.setattr(Folder, "age", late)
    sweep.reindex(grace=0.0)
    assert Sweep.open(tmp_path / "s").verify() == []
    assert list(sweep.missing(check=True)) == []
    assert not sweep.folder.has(spare)


@pytest.mark.parametrize("instead", ["nothing", "another sweep"])
def test_no_shard_is_written_where_the_sweep_is_gone(tmp_path, instead):
    where = tmp_path / "s"
    sweep = filled(where, configuration(), [6], only=[0])
    where.rename(tmp_path / "moved")
    if instead == "another sweep":
        Sweep.create(where, configuration(seed=1), [6])
    before = sorted(where.rglob("*"))
    shard = sweep.plan.shard(1)
    with pytest.raises(RecordError, match=r"gone|another sweep") as caught:
        sweep.write(shard, made_up(sweep.plan, shard), 1.0)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EIO
    assert sorted(where.rglob("*")) == before
    assert Sweep.open(tmp_path / "moved").done() == {0}


def test_a_model_trained_again_elsewhere_is_said_to_be(tmp_path, caplog):
    sweep = filled(tmp_path / "s", configuration(), [6], only=[])
    with caplog.at_level(logging.WARNING, "superpose"):
        sweep.retrain(1)
        shard = sweep.plan.shard(1)
        sweep.write(shard, made_up(sweep.plan, shard), 1.0)
        sweep.retrain(7)
        assert not caplog.records
        sweep.write(sweep.plan.shard(0), elsewhere(sweep, 0), 1.0)
        sweep.retrain(1)
    (record,) = caplog.records
    assert "another 00000000" in record.getMessage()


def test_a_sweep_is_made_only_in_a_folder_of_its_own(tmp_path):
    with pytest.raises(ConfigurationError, match="empty"):
        Sweep.create("", configuration(), [6])
    (tmp_path / "mine" / "shards").mkdir(parents=True)
    (tmp_path / "mine" / "shards" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"notes\.txt; choose an empty folder"):
        Sweep.create(tmp_path / "mine", configuration(), [6])
    assert not (tmp_path / "mine" / SWEEP).exists()
    killed = Folder(tmp_path / "killed")
    for name in (
        ".sweep.json.0123456789abcdef.tmp",
        ".hidden/notes",
        "claims/host-1-abcdef01.json",
        "shards/000000/0123456789ab.parquet",
        "shards/000000/.DONE.json.0123456789abcdef.tmp",
    ):
        killed.write(name, b"torn")
    assert Sweep.create(tmp_path / "killed", configuration(), [6]).verify() == []
