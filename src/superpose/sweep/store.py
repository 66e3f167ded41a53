"""`Sweep`: a folder that holds a plan and the shards done so far, and gives them back verified."""

import logging
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from superpose.engine import Run, train
from superpose.kernels import cpu
from superpose.records import RecordError
from superpose.records.documents import digest, format_document
from superpose.records.files import PathLike
from superpose.records.folders import Folder
from superpose.records.formats import format_arrays, format_table, parse_arrays, parse_table
from superpose.sweep import calibration, contents
from superpose.sweep.configuration import ConfigurationError, SweepConfiguration, parse
from superpose.sweep.done import REMEDY, Done, done_name
from superpose.sweep.index import (
    FORMAT,
    ROUND_FORMAT,
    SWEEP,
    VERSION,
    Findings,
    Shards,
    clean,
    examine,
    foreign,
    read_sweep,
    round_name,
    with_rounds,
)
from superpose.sweep.plan import Plan, Shard

_log = logging.getLogger("superpose")


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """A sweep's folder, on a disk or in object storage ("s3://bucket/sweep").

    It holds the plan and the shards done so far. Whatever is read is verified against its digest,
    and a RecordError where a byte has changed. `digest` is that of sweep.json, and `kernel` the
    version of the kernel it was begun with. `damage` says what is wrong with the rounds of
    refinement, of which the plan has those that are sound.

    >>> import tempfile
    >>> from superpose.sweep.configuration import parse
    >>> sweep = Sweep.create(tempfile.mkdtemp() + "/sweep", parse({
    ...     "model": {"n": 2, "m": 1}, "training": {"steps": 10}, "seeds": 2,
    ...     "axes": {"world.p": [1.0, 0.1]},
    ... }), sizes=(2,))
    >>> for number in sweep.missing():
    ...     shard = sweep.plan.shard(number)
    ...     cells = [sweep.plan.cell(cell) for cell in shard.cells]
    ...     run = train(cells[0].model, [cell.world for cell in cells], cells[0].training, runs=2)
    ...     _ = sweep.write(shard, run, seconds=1.0)
    >>> sweep.table(["index", "p"]).to_pydict()
    {'index': [0, 1, 2, 3], 'p': [1.0, 1.0, 0.1, 0.1]}
    """

    plan: Plan
    folder: Folder
    digest: str
    kernel: str
    damage: str
    _shards: Shards

    @classmethod
    def create(
        cls,
        where: PathLike,
        configuration: SweepConfiguration,
        sizes: Sequence[int] | None = None,
        *,
        cores: int | None = None,
    ) -> "Sweep":
        """Make a sweep in a folder, or open the one of an equal configuration that is there.

        `sizes` are the models in a shard of each block; not given, they follow from a calibration
        of some seconds, for as many `cores` (those of this machine where not given). Of a sweep
        that is there, its own count. Raises ConfigurationError where another configuration is or
        files that are no sweep's, and RecordError where the folder cannot be read or written.
        """
        if where == "":
            raise ConfigurationError("the name of the folder is empty; choose an empty folder")
        folder, described = Folder(where), configuration.model_dump(mode="json")
        if not folder.has(SWEEP):
            if other := foreign(folder):
                raise ConfigurationError(
                    f"{folder.where}: here are files that are no sweep's, such as {other}; choose "
                    "an empty folder"
                )
            if sizes is None:
                sizes = calibration.sizes(configuration, cores=cores)
            plan = Plan(configuration, tuple(sizes))
            about = {
                "format": FORMAT,
                "version": VERSION,
                "configuration": described,
                "sizes": plan.sizes,
                "versions": _versions(),
            }
            # Where another process was faster, its sizes count.
            folder.create(SWEEP, format_document(about))
        sweep = cls.open(where)
        found = sweep.plan.configuration.model_dump(mode="json")
        if found != described:
            names = [name for name in described if described[name] != found[name]]
            raise ConfigurationError(
                f"{folder.where}: here is the sweep of another configuration (it differs in "
                f"{', '.join(names)}); choose another folder, or go on with it by leaving the "
                "configuration out"
            )
        return sweep

    @classmethod
    def open(cls, where: PathLike) -> "Sweep":
        """Open the sweep in a folder; raises RecordError where none is, or its plan is damaged."""
        folder = Folder(where)
        content = read_sweep(folder)
        try:
            plan = Plan(parse(content["configuration"]), tuple(content["sizes"]))
            kernel = str(content["versions"]["kernel"])
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{folder.path(SWEEP)}: not the plan of a sweep ({error}); put a copy of it back"
            ) from error
        configuration = digest(content["configuration"])
        plan, damage = with_rounds(folder, plan, configuration)
        shards = Shards(folder, plan, digest(content), configuration)
        return cls(plan, folder, shards.sweep, kernel, damage, shards)

    def done(self) -> frozenset[int]:
        """The numbers of the shards that are there, by their records and the sizes of files."""
        return frozenset(self._shards.survey()[0])

    def is_done(self, number: int) -> bool:
        """Whether a shard is there to stay, and every byte of it is as it was written."""
        there = self.folder.has(done_name(number)) and not self._shards.problem(number)
        if there:
            self.folder.settle(done_name(number))
        return there

    def missing(self, *, check: bool = False) -> Iterable[int]:
        """The numbers of the planned shards that are not there.

        A shard with a damaged record counts as missing. With `check` every byte of all is read,
        and a shard with any that has changed is missing as well, so that it is trained again.
        """
        done = self.done()
        if check:
            # Whoever wrote a round may have been killed before it was on disk.
            for number in range(1, len(self.plan.rounds or ())):
                self.folder.settle(round_name(number))
            done = {number for number in done if self.is_done(number)}
        return (number for number in range(self.plan.shards) if number not in done)

    def write(self, shard: Shard, run: Run, seconds: float) -> bool:
        """Write what `train` made of a shard; once this returns, it is there to stay.

        False where it was done already: the first one counts. A damaged one is replaced. Raises
        ValueError for a run of other models, and RecordError where it cannot be written.
        """
        cells = [self.plan.cell(cell) for cell in shard.cells]
        restarts = self.plan.configuration.restarts
        given = (run.model, run.training, run.worlds, run.seed, run.index.shape)
        wanted = (
            *(cells[0].model, cells[0].training, tuple(cell.world for cell in cells)),
            *(self.plan.configuration.seed, (len(cells), len(shard.runs))),
        )
        if given != wanted or (run.index // restarts != np.asarray(shard.runs)).any():
            raise ValueError(f"write(shard {shard.number}): the run is not one of its models")
        arrays = contents.arrays_of(self.plan, run)
        files = {"parquet": format_table(contents.table_of(self.plan, shard, run))}
        if arrays:
            files["safetensors"] = format_arrays(f"shard {shard.number}", arrays)
        return self._shards.commit(shard, files, run.kernel, run.processor, seconds)

    def begin_round(self, cells: Iterable[int]) -> "Sweep":
        """Plan another round of refinement; returns the sweep with it.

        Where another process has begun the round, its cells count. Raises ValueError for cells
        that are none of the grid or were chosen before.
        """
        self._shards.require_sweep()
        number = len(self.plan.rounds or ())
        chosen = sorted(cells)
        self.plan.with_rounds([*(self.plan.rounds or ()), chosen])
        data = format_document(
            {
                "format": ROUND_FORMAT,
                "version": VERSION,
                "round": number,
                "cells": chosen,
                "configuration": self._shards.configuration,
            }
        )
        if not self.folder.create(round_name(number), data):
            there = self.open(self.folder.where)
            if len(there.plan.rounds or ()) > number:
                return there
            self.folder.write(round_name(number), data)  # what is there is damaged
        return self.open(self.folder.where)

    def table(
        self, columns: Sequence[str] | None = None, *, cells: Iterable[int] | None = None
    ) -> pa.Table:
        """One row a model of the shards that are done, in order of index.

        Columns are `index`, `cell`, those of the axes, `run` and what `Run.table` has; of
        restarts `number` tells which is kept. Equal results make equal tables, however shards
        were cut and whoever trained them. Raises ValueError for columns that are not there, and
        RecordError where a shard is damaged.
        """
        schema = contents.schema_of(self.plan)
        names = schema.names if columns is None else list(columns)
        unknown = [name for name in names if name not in schema.names]
        if unknown:
            raise ValueError(
                f"table(columns={unknown!r}): not there; there are {', '.join(schema.names)}"
            )
        wanted = pa.schema([schema.field(name) for name in dict.fromkeys(["index", *names])])
        within = None if cells is None else sorted(set(cells))
        parts = [self._part(done, wanted) for done in self._records(within)]
        table = pa.concat_tables([wanted.empty_table(), *parts])
        index = table["index"].to_numpy()
        if within is not None:
            inside = np.isin(index // self.plan.configuration.seeds, within)
            table, index = table.filter(pa.array(inside)), index[inside]
        if (np.diff(index) < 0).any():  # rounds of refinement are not in order
            table = table.take(pa.array(np.argsort(index)))
        return table.select(names).combine_chunks()

    def runs(self, cell: int) -> Run:
        """The models of a cell whose weights were kept, with their snapshots, as a `[runs]` stack.

        Raises RecordError where the cell is not done or is damaged, or none was kept.
        """
        records = [self._shards.record(number) for number in self.plan.shards_of(cell)]
        if not records:
            raise RecordError(
                self.damage or f"{self.folder.where}: refinement has not chosen cell {cell}"
            )
        found = [self._kept(done, cell) for done in records if "safetensors" in done.files]
        if not found:
            raise RecordError(
                f"{self.folder.where}: no weights of cell {cell} were kept; retrain(index) makes "
                "any model again"
            )
        run = contents.joined(found)
        return run.best() if self.plan.configuration.keep.weights == "best" else run

    def retrain(self, index: int) -> Run:
        """Train the model of an index again, as a `[runs]` stack of one.

        On the processor and with the kernel that `provenance` names, to the same bits; with
        another, a warning on the logger "superpose".
        """
        cell, run = self.plan.at(index)
        settings = self.plan.configuration
        again = train(
            cell.model,
            cell.world,
            cell.training,
            runs=range(run, run + 1),
            seed=settings.seed,
            restarts=settings.restarts,
        )
        done, here = self._shards.maker(index), (again.kernel, again.processor)
        if done and (done.kernel, done.processor) != here:
            _log.warning(
                f"retrain({index}): with kernel {here[0]} on {here[1]}, but the model in the sweep "
                f"is of kernel {done.kernel} on {done.processor}: their bits may differ"
            )
        return again

    def query(self, sql: str) -> pa.Table:
        """The answer of DuckDB to a question about the table `models`.

        It reads nothing but bytes that were verified. Needs the extra superpose[query]. Raises
        RecordError where a shard is damaged, and duckdb.Error for SQL that it does not take.
        """
        try:
            import duckdb
        except ImportError as error:
            raise ImportError("query needs DuckDB: pip install superpose[query]") from error
        schema, form = contents.schema_of(self.plan), ds.ParquetFileFormat()
        verified = [self._shards.current(done, "parquet")[1] for done in self._records()]
        fragments = [form.make_fragment(pa.BufferReader(data)) for data in verified]
        models = ds.FileSystemDataset(fragments, schema, form)
        # So that no SQL reads a file, or a variable of the caller.
        alone: dict[str, Any] = {
            "enable_external_access": False,
            "python_enable_replacements": False,
        }
        with duckdb.connect(config=alone) as connection:
            connection.register("models", models)
            answer = connection.sql(sql)
            if answer is None:
                raise ValueError(f"query({sql!r}): give a SELECT, which has an answer")
            return answer.to_arrow_table()

    def paths(self) -> list[str]:
        """The Parquet files of the shards that are done, verified just now; for other engines."""
        found = []
        for done in self._records():
            current, _ = self._shards.current(done, "parquet")
            found.append(self.folder.path(current.name("parquet")))
        return found

    def provenance(self) -> pa.Table:
        """One row a shard that is done: by which kernel, on which processor and host, how fast."""
        records = self._records()
        columns: dict[str, Any] = {
            "shard": pa.array([done.shard for done in records], pa.int64()),
            "models": pa.array([self.plan.shard(d.shard).models for d in records], pa.int64()),
            "bytes": pa.array([sum(done.sizes.values()) for done in records], pa.int64()),
            "seconds": pa.array([float(done.seconds) for done in records], pa.float64()),
        }
        for name in ("kernel", "processor", "host", "attempt"):
            columns[name] = pa.array([getattr(done, name) for done in records], pa.string())
        return pa.table(columns)

    def findings(self) -> Findings:
        """`verify` and `leftovers` at once: every byte of the shards is read one time."""
        found = examine(self._shards)
        return Findings([*filter(None, [self.damage]), *found.problems], found.leftovers)

    def verify(self) -> list[str]:
        """Everything that is wrong with the files of the sweep, after reading every byte."""
        return self.findings().problems

    def leftovers(self) -> list[str]:
        """The files that attempts left when they were killed: no damage, and never read."""
        return self.findings().leftovers

    def reindex(self, grace: float = 3600.0) -> None:
        """Write the index anew from the shards, and remove leftovers older than `grace` seconds.

        Younger ones may be those of an attempt that is still at work. So with runners' claims.
        """
        clean(self._shards, grace)

    def _records(self, cells: Iterable[int] | None = None) -> list[Done]:
        """The records of the shards done, all or of some cells; RecordError for a damaged one."""
        if self.damage:
            raise RecordError(self.damage)
        done, damaged = self._shards.survey()
        wanted = sorted(done.keys() | damaged.keys())
        if cells is not None:
            within = {number for cell in cells for number in self.plan.shards_of(cell)}
            wanted = [number for number in wanted if number in within]
        for number in wanted:
            if number in damaged:
                raise RecordError(damaged[number])
        return [done[number] for number in wanted]

    def _part(self, done: Done, wanted: pa.Schema) -> pa.Table:
        """Some columns of the table of one shard, of which the first is the index."""
        done, data = self._shards.current(done, "parquet")
        shard, path = self.plan.shard(done.shard), self.folder.path(done.name("parquet"))
        table = parse_table(path, data, wanted.names, shard.models)
        known = set(wanted.names) <= set(table.column_names)
        table = table.select(wanted.names) if known else table
        if table.schema != wanted or (
            not np.array_equal(table["index"].to_numpy(), contents.indices(self.plan, shard))
        ):
            raise RecordError(f"{path}: not the table of this shard's models; {REMEDY}")
        return table

    def _kept(self, done: Done, cell: int) -> Run:
        """The models of a cell that one shard keeps."""
        shard, path = self.plan.shard(done.shard), self.folder.path(done.name("safetensors"))
        arrays = parse_arrays(path, self._shards.data(done, "safetensors"))
        cells = [self.plan.cell(each) for each in shard.cells]
        about = {
            "seed": self.plan.configuration.seed,
            "kernel": done.kernel,
            "processor": done.processor,
        }
        run = contents.run_from(path, arrays, cells, about)
        return contents.of_cell(run, shard.cells.index(cell))


def _versions() -> dict[str, str]:
    packages = ("superpose", "torch", "numpy", "numba", "pyarrow")
    found = {name: version(name) for name in packages}
    return found | {"python": platform.python_version(), "kernel": cpu.VERSION}
