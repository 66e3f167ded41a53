"""Failing system calls: each errno at each call of a sweep, and a disk that is really full."""

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.calls import Event, Watch
from faults.children import Ended, Tell, in_child
from faults.sweeps import (
    Found,
    carry_out,
    folder,
    promises,
    promising,
    reference,
    settle,
    text,
)

AGAIN = 3
"""The exit code that says: not all is done, run the same command again."""

WRITES = ("open", "write", "fsync", "mkdir", "rename", "link")
CALLS = {
    "ENOSPC": WRITES,
    "EDQUOT": WRITES,
    "EIO": (*WRITES, "read", "unlink", "list"),
    "EACCES": ("open", "mkdir", "rename", "link", "unlink", "read", "list"),
    "EMFILE": ("open", "read", "list"),
}
"""Which calls fail with which errno."""


class Failing:
    """From the `count`-th time on that a point is passed, its call fails; or just then (`once`)."""

    def __init__(self, point: str, count: int, code: str, once: bool) -> None:
        self.point, self.left, self.code, self.once = point, count, getattr(errno, code), once
        self.failed = 0

    def __call__(self, event: Event) -> None:
        # A full disk takes half of what is written.
        when = "middle" if event.call == "write" and self.code == errno.ENOSPC else "before"
        if f"{event.call} {event.name.split(' ', 2)[2]}" != self.point or event.when != when:
            return
        self.left -= 1
        if self.left <= 0 and not (self.once and self.failed):
            self.failed += 1
            raise OSError(self.code, os.strerror(self.code), str(event.path))


def command(where: Path) -> int:
    """`superpose sweep` in this process; returns its exit code."""
    from superpose import cli

    config = where.with_name("config.toml")
    sys.argv = ["superpose", "sweep", str(config), "--out", str(where), "--executor", "here"]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def sites(where: Path) -> Counter[str]:
    """The calls of a run that goes on with a sweep, and how often each is made."""
    seen: Counter[str] = Counter()

    def note(event: Event) -> None:
        if event.when == "before":
            seen[f"{event.call} {event.name.split(' ', 2)[2]}"] += 1

    with Watch(where, note):
        carry_out(where / "sweep", lambda _: None)
    return seen


def begun(place: Path) -> list[Any]:
    """A sweep of which two shards are done, with its promises: the old data."""
    (place / "config.toml").write_text(text())

    def work(out: Tell) -> int:
        left = iter(range(3))

        def tell(promise: Any) -> None:
            out(promise)
            if next(left) == 2:
                os._exit(0)

        return carry_out(place / "sweep", tell)

    return promises(in_child(work))


def heard(where: Path, see: Any = None, report: Path | None = None) -> tuple[Ended, str]:
    """The command in a child, with what it wrote; `see` is for a `Watch` of its folder."""
    report = report or where.parent.with_name(f"{where.parent.name}.txt")

    def work(tell: Tell) -> int:
        with report.open("wb") as file:
            os.dup2(file.fileno(), 2)
            os.dup2(file.fileno(), 1)
        with promising(tell):
            if see is None:
                return command(where)
            with Watch(where.parent, see):
                return command(where)

    ended, said = in_child(work), report.read_text()
    report.unlink()
    return ended, said


def injected(stride: int = 1) -> Found:
    """Each errno at every `stride`-th of the calls of a sweep that goes on, for good and once."""
    reference()
    found = Found()
    with folder() as place:
        begun(place)
        passed = sites(place)
    cases = [
        (code, site, once)
        for code, calls in CALLS.items()
        for site in sorted(passed)
        if site.split(" ")[0] in calls
        for once in (False, True)
    ]
    for number, (code, site, once) in enumerate(cases):
        if number % stride == 0:
            count = 1 + (number // stride) % passed[site]
            name = f"{code} at {site}, time {count}, {'once' if once else 'for good'}"
            with folder() as place:
                _fail_once(place, Failing(site, count, code, once), found, name)
    found.counts |= {"sites": len(passed), "cases": -(-len(cases) // stride)}
    return found


def _fail_once(place: Path, failing: Failing, found: Found, name: str) -> None:
    promised = begun(place)
    ended, said = heard(place / "sweep", failing)
    for message in promises(ended):
        if message not in promised:
            promised.append(message)
    judge(ended, said, failing.code, found, name)
    settle(place / "sweep", promised, found, name)


def judge(ended: Ended, said: str, code: int, found: Found, name: str) -> None:
    """Whether the command did all, or said in one line why not, with exit code 3 and the remedy."""
    lines = [line for line in said.splitlines() if line.startswith("superpose: ")]
    reason = [line for line in lines if os.strerror(code) in line]
    found.counts[f"exit {ended.code}"] = found.counts.get(f"exit {ended.code}", 0) + 1
    if ended.code not in (0, AGAIN):
        found.broken("errors", f"{name}: exit code {ended.code}: {said[-800:]} {ended.told[-1:]}")
    elif "Traceback" in said:
        found.broken("errors", f"{name}: a traceback: {said[-800:]}")
    elif ended.code and (len(reason) != 1 or "run the same command again" not in said):
        found.broken("errors", f"{name}: not one line with the reason: {said[-800:]}")


@contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A file system in memory of `size` bytes; None where that is not allowed."""
    with folder() as place:
        (place / "disk").mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place / "disk")]
        if (
            shutil.which("mount") is None
            or subprocess.run(options, capture_output=True, check=False).returncode
        ):
            yield None
            return
        try:
            yield place / "disk"
        finally:
            subprocess.run(["umount", str(place / "disk")], check=True)


def full_disk(fillings: int) -> Found | None:
    """A disk with room for more and more of the sweep, then emptied; None without one."""
    reference()
    found, size = Found(), 4 << 20
    for filling in range(fillings):
        with small_disk(size) as disk:
            if disk is None:
                return None
            promised = begun(disk)
            free = shutil.disk_usage(disk).free
            room = 4096 * (1 + filling)
            (disk / "filler").write_bytes(bytes(max(0, free - room)))
            name = f"a disk with {room} bytes left"
            ended, said = heard(disk / "sweep", report=disk.with_name("stderr.txt"))
            promised += [each for each in promises(ended) if each not in promised]
            judge(ended, said, errno.ENOSPC, found, name)
            (disk / "filler").unlink()
            settle(disk / "sweep", promised, found, name)
    return found
