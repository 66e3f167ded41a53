"""The shards in a sweep's folder: what is done, reading it verified, committing more."""

import errno
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from superpose.records import RecordError
from superpose.records.documents import format_document, parse_document
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

_VERSION = 1
_DONE_LIMIT = 2**16
_INDEX_LIMIT = 2**25
_OURS = re.compile(r"sweep\.json|index\.json|rounds/\d{4,}\.json")
_HINT = re.compile(r"claims/[^/]+\.json")
_TEMPORARY = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{16}\.tmp")

# A shard that cannot be read for these reasons is as it was.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM}


class Shards:
    """The shards of a sweep: what is done, reading it verified, and committing more.

    `configuration` is the digest of the configuration as sweep.json has it.
    """

    def __init__(self, folder: Folder, plan: Plan, configuration: str) -> None:
        self.folder, self.plan, self.configuration = folder, plan, configuration
        self._known: dict[int, Done] | None = None

    def survey(self) -> tuple[dict[int, Done], dict[int, str]]:
        """The shards that are done, and what is wrong with those that claim to be; by number.

        Done is a shard with a sound record that fits the plan, and whose files have the sizes it
        says. What is in them is for `data` to find out.
        """
        known = self._index() if self._known is None else self._known
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

        What was there damaged is replaced.
        """
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
        if self.folder.create(name, format_done(done)):
            return True
        if self.problem(shard.number):
            self.folder.write(name, format_done(done))
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


def examine(shards: Shards) -> Findings:
    """What is wrong with the shards and the index of a sweep, and which files are none of it."""
    done, damaged = shards.survey()
    names = shards.folder.names()
    numbers = sorted(done.keys() | damaged.keys())
    problems = [damaged.get(number) or shards.problem(number) for number in numbers]
    if INDEX in names:
        try:
            shards.read_index()
        except RecordError as error:
            problems.append(str(error))
    findings = Findings([problem for problem in problems if problem])
    listed = {name for record in done.values() for name in record.sizes}
    for name in names:
        path, number = f"{shards.folder.where}/{name}", number_of(name)
        if name in listed or _is_known(name, number, shards.plan.shards):
            continue
        if _TEMPORARY.fullmatch(name) or (is_data(name) and number not in damaged):
            findings.leftovers.append(path)
        elif not is_data(name) and not _hidden(name):
            findings.problems.append(f"{path}: unknown, no part of this sweep")
    return findings


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
    """Remove leftovers older than `grace` seconds, and write the index anew."""
    start = len(shards.folder.where) + 1
    for path in examine(shards).leftovers:
        name = path[start:]
        if shards.folder.age(name) >= grace:
            shards.folder.remove(name)
    done, _ = shards.survey()
    shards.write_index(done.values())


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
