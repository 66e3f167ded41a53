"""The shards in a sweep's folder: what is done, reading it verified, committing more."""

import errno
import os
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from superpose.records import RecordError
from superpose.records.documents import digest, format_document, parse_document
from superpose.records.folders import Folder
from superpose.records.manifests import entry_of
from superpose.sweep.done import (
    REMEDY,
    Done,
    done_from,
    done_name,
    format_done,
    identity_of,
    is_data,
    number_of,
    parse_done,
)
from superpose.sweep.plan import Plan, Shard

SWEEP = "sweep.json"
INDEX = "index.json"

FORMAT, ROUND_FORMAT, VERSION = "superpose sweep", "superpose round", 1
"""Of sweep.json and of the rounds of refinement."""

_VERSION = 1
_SWEEP_LIMIT = 2**25
_DONE_LIMIT = 2**16
_INDEX_LIMIT = 2**25
_OURS = re.compile(r"sweep\.json|index\.json|rounds/\d{4,}\.json")
_HINT = re.compile(r"claims/[^/]+\.json")
_TEMPORARY = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{16}\.tmp")

# A shard that cannot be read for these reasons is as it was.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM}


class Shards:
    """The shards of a sweep: what is done, reading it verified, and committing more.

    `sweep` is the digest of sweep.json, and `configuration` that of the configuration in it.
    """

    def __init__(self, folder: Folder, plan: Plan, sweep: str, configuration: str) -> None:
        self.folder, self.plan = folder, plan
        self.sweep, self.configuration = sweep, configuration
        self._known: dict[int, Done] | None = None

    def survey(self, *, anew: bool = False) -> tuple[dict[int, Done], dict[int, str]]:
        """The shards that are done, and what is wrong with those that claim to be; by number.

        Done is a shard with a sound record that fits the plan, and whose files have the sizes it
        says. What is in them is for `data` to find out. With `anew` every DONE record is read;
        else one that is known counts, which another process may have replaced since: `current`.
        """
        known = self._index() if self._known is None else self._known
        known = {} if anew else known
        found: dict[int, dict[str, int]] = {}
        for name, size in self.folder.names("shards").items():
            number = number_of(name)
            if number is not None and number < self.plan.shards:
                found.setdefault(number, {})[name] = size
        done, damaged = {}, {}
        for number, files in sorted(found.items()):
            if done_name(number) not in files:
                continue
            try:
                record = known.get(number)
                if record is None or not record.sizes.items() <= files.items():
                    record = self.record(number)
                self._check_sizes(record, files)
            except RecordError as error:
                damaged[number] = _damage(error)
            else:
                done[number] = record
        self._known = done
        return done, damaged

    def record(self, number: int) -> Done:
        """The DONE record of a shard; raises RecordError where it is missing or unsound."""
        name = done_name(number)
        return self._fitting(parse_done(self.folder.path(name), self._read(name, _DONE_LIMIT)))

    def data(self, done: Done, ending: str) -> bytes:
        """The bytes of one file of a shard; raises RecordError where they are not as written."""
        name, entry = done.name(ending), done.files[ending]
        data = self._read(name, entry["bytes"])
        if entry_of(data) != entry:
            raise RecordError(
                f"{self.folder.path(name)}: damaged, its digest does not match; {REMEDY}"
            )
        return data

    def current(self, done: Done, ending: str) -> tuple[Done, bytes]:
        """As `data`, with the record that counts: that on the disk where `done` is not sound."""
        try:
            return done, self.data(done, ending)
        except RecordError:
            there = self.record(done.shard)
            if there == done or ending not in there.files:
                raise
        self._forget(done.shard)
        return there, self.data(there, ending)

    def maker(self, index: int) -> Done | None:
        """The record of the shard with a model, where a sound one is there."""
        cell, run = divmod(index, self.plan.configuration.seeds)
        for number in self.plan.shards_of(cell):
            if run in self.plan.shard(number).runs:
                with suppress(RecordError):
                    return self.record(number)
        return None

    def require_sweep(self) -> None:
        """Raise RecordError unless the folder still holds this sweep.

        It may have been moved or unmounted: to write there would begin another in its place.
        """
        where = self.folder.where
        try:
            data = self.folder.read(SWEEP, _SWEEP_LIMIT)
        except RecordError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise
            said = f"{where}: the folder of the sweep is gone ({SWEEP} is missing); put it back"
            raise RecordError(said) from OSError(errno.EIO, said)
        with suppress(RecordError):
            if digest(_parse_sweep(self.folder, data)) == self.sweep:
                return
        said = f"{where}: here is another sweep by now, or {SWEEP} is damaged; put this one back"
        raise RecordError(said) from OSError(errno.EIO, said)

    def problem(self, number: int) -> str:
        """What is wrong with a shard of which a DONE record is there, after reading every byte."""
        try:
            done = self.record(number)
            for ending in done.files:
                self.data(done, ending)
        except RecordError as error:
            return _damage(error)
        return ""

    def commit(
        self, shard: Shard, files: Mapping[str, bytes], kernel: str, processor: str, seconds: float
    ) -> bool:
        """Write the files of a shard, and its DONE record last; False where it was done already.

        What was there damaged is replaced. Raises RecordError where the sweep is not there.
        """
        self.require_sweep()
        done = Done(
            shard=shard.number,
            identity=identity_of(self.configuration, shard, kernel, processor),
            files={ending: entry_of(data) for ending, data in files.items()},
            kernel=kernel,
            processor=processor,
            attempt=secrets.token_hex(8),
            host=socket.gethostname(),
            seconds=round(seconds, 3),
        )
        for ending, data in files.items():
            self.folder.write(done.name(ending), data)
        name = done_name(shard.number)
        self._forget(shard.number)
        if self.folder.create(name, format_done(done)):
            return True
        if self.problem(shard.number):
            self.folder.write(name, format_done(done))
            self._forget(shard.number)
            # It may have the record that was replaced. That one's files stay for `clean`: another
            # process may be writing the same ones just now.
            self.folder.remove(INDEX)
            return True
        for spare in done.sizes.keys() - self.record(shard.number).sizes.keys():
            self.folder.remove(spare)
        return False

    def write_index(self, done: Iterable[Done]) -> None:
        """Write the index anew: the DONE records in one file, for opening without reading each.

        Of more shards than fit there is none, and everything works without.
        """
        records = {f"{each.shard:06d}": asdict(each) for each in done}
        data = format_document({"format": "superpose index", "version": _VERSION, "done": records})
        if len(data) <= _INDEX_LIMIT:
            self.folder.write(INDEX, data)
        else:
            self.folder.remove(INDEX)

    def read_index(self) -> dict[int, Done]:
        """The records in the index; raises RecordError where it is missing or unsound."""
        where = self.folder.path(INDEX)
        data = self.folder.read(INDEX, _INDEX_LIMIT)
        content = parse_document(where, data, "superpose index", _VERSION, "reindex the folder")
        if not isinstance(content.get("done"), dict):
            raise RecordError(f"{where}: not laid out as an index; reindex the folder")
        records = [self._fitting(done_from(where, each)) for each in content["done"].values()]
        return {each.shard: each for each in records}

    def _forget(self, number: int) -> None:
        if self._known is not None:
            self._known.pop(number, None)

    def _index(self) -> dict[int, Done]:
        try:
            return self.read_index()
        except RecordError:  # it is a cache
            return {}

    def _read(self, name: str, at_most: int) -> bytes:
        try:
            return self.folder.read(name, at_most)
        except RecordError as error:
            # What is wrong with this process, not with the file, is no damage.
            if getattr(error.__cause__, "errno", None) in _PASSING:
                raise
            raise RecordError(f"{error}; {REMEDY}") from error

    def _fitting(self, done: Done) -> Done:
        """The record, if it is one of the plan's."""
        if done.shard < self.plan.shards:
            shard = self.plan.shard(done.shard)
            wanted = identity_of(self.configuration, shard, done.kernel, done.processor)
            if done.identity == wanted:
                return done
        where = self.folder.path(done_name(done.shard))
        raise RecordError(f"{where}: the record of another sweep's shard; {REMEDY}")

    def _check_sizes(self, done: Done, files: Mapping[str, int]) -> None:
        for name, size in done.sizes.items():
            if files.get(name) != size:
                state = "missing" if name not in files else f"{files[name]} bytes, not {size}"
                raise RecordError(f"{self.folder.path(name)}: {state}; {REMEDY}")


@dataclass(frozen=True, slots=True)
class Findings:
    """`problems` are damage; `leftovers` are files of killed attempts, which nothing reads."""

    problems: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def read_sweep(folder: Folder) -> dict[str, Any]:
    """What is in sweep.json; raises RecordError where none is, or it is damaged."""
    if not folder.has(SWEEP):
        raise RecordError(f"{folder.where}: there is no sweep here ({SWEEP} is missing)")
    return _parse_sweep(folder, folder.read(SWEEP, _SWEEP_LIMIT))


def with_rounds(folder: Folder, plan: Plan, configuration: str) -> tuple[Plan, str]:
    """The plan with the rounds of refinement in the folder, and what is wrong with the next."""
    names = folder.names("rounds") if plan.rounds is not None else {}
    while (name := round_name(number := len(plan.rounds or ()))) in names:
        path = folder.path(name)
        remedy = "`superpose sweep --out` with this folder works the round out again"
        try:
            content = parse_document(
                path, folder.read(name, _SWEEP_LIMIT), ROUND_FORMAT, VERSION, remedy
            )
            if (content.get("round"), content.get("configuration")) != (number, configuration):
                raise RecordError(f"{path}: a round of another sweep; {remedy}")
            plan = plan.with_rounds([*(plan.rounds or ()), content["cells"]])
        except RecordError as error:
            return plan, str(error)
        except (KeyError, TypeError, ValueError) as error:
            return plan, f"{path}: not laid out as a round ({error}); {remedy}"
    return plan, ""


def round_name(number: int) -> str:
    """The name of the file of a round of refinement, of which the first is 1."""
    return f"rounds/{number:04d}.json"


def foreign(folder: Folder) -> str:
    """The path of a file in a folder on a disk that is no sweep's; "" where none is."""
    if "://" in folder.where:
        return ""
    for above, folders, names in os.walk(folder.where):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(above, name)  # noqa: PTH118 - of os.walk
            inside = os.path.relpath(path, folder.where).replace(os.sep, "/")
            ours = _OURS.fullmatch(inside) or _HINT.fullmatch(inside)
            if not (ours or _hidden(inside) or number_of(inside) is not None):
                return path
    return ""


def examine(shards: Shards) -> Findings:
    """What is wrong with the shards and the index of a sweep, and which files are none of it."""
    done, damaged = shards.survey(anew=True)
    names = shards.folder.names()
    numbers = sorted(done.keys() | damaged.keys())
    problems = [damaged.get(number) or shards.problem(number) for number in numbers]
    if INDEX in names:
        try:
            shards.read_index()
        except RecordError as error:
            problems.append(str(error))
    left = _leftovers(shards, names, done, damaged)
    listed = {name for record in done.values() for name in record.sizes}.union(left)
    for name in names:
        if name in listed or _is_known(name, number_of(name), shards.plan.shards):
            continue
        if not is_data(name) and not _hidden(name):
            problems.append(f"{shards.folder.where}/{name}: unknown, no part of this sweep")
    where = shards.folder.where
    return Findings([each for each in problems if each], [f"{where}/{name}" for name in left])


def _leftovers(
    shards: Shards, names: Iterable[str], done: Mapping[int, Done], damaged: Mapping[int, str]
) -> list[str]:
    listed = {name for record in done.values() for name in record.sizes}
    return [
        name
        for name in names
        if name not in listed
        and not _is_known(name, number_of(name), shards.plan.shards)
        and (_TEMPORARY.fullmatch(name) or (is_data(name) and number_of(name) not in damaged))
    ]


def _parse_sweep(folder: Folder, data: bytes) -> dict[str, Any]:
    return parse_document(folder.path(SWEEP), data, FORMAT, VERSION, "put a copy of it back")


def _damage(error: RecordError) -> str:
    """What is wrong with a file; raises the error again where it is not the file's fault."""
    if getattr(error.__cause__, "errno", None) in _PASSING:
        raise error
    return str(error)


def _is_known(name: str, number: int | None, shards: int) -> bool:
    """Whether a file that no record lists belongs to a sweep all the same."""
    if number is not None:
        return number < shards and name == done_name(number)
    return bool(_OURS.fullmatch(name) or _HINT.fullmatch(name))


def clean(shards: Shards, grace: float) -> None:
    """Remove leftovers and claims older than `grace` seconds, and write the index anew."""
    folder = shards.folder
    done, damaged = shards.survey(anew=True)
    names = folder.names()
    old = [*_leftovers(shards, names, done, damaged), *filter(_HINT.fullmatch, names)]
    for name in old:
        if folder.age(name) >= grace and not _is_named(shards, name):
            folder.remove(name)
    done, _ = shards.survey(anew=True)
    shards.write_index(done.values())


def _is_named(shards: Shards, name: str) -> bool:
    """Whether a DONE record, as it is now, names a file of data, or may do so."""
    number = number_of(name)
    if number is None or not is_data(name) or not shards.folder.has(done_name(number)):
        return False
    try:
        return name in shards.record(number).sizes
    except RecordError:
        return True


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
