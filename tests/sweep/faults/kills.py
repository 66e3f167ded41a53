"""SIGKILL: at each named point of a sweep, and at random times."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from faults.calls import Event, Watch
from faults.children import Tell, in_child
from faults.sweeps import Found, carry_out, folder, promises, reference, settle
from faults.writers import BROKEN


def points(where: Path) -> Counter[str]:
    """The points at which an uninterrupted run can be killed, and how often it passes each."""
    seen: Counter[str] = Counter()

    def note(event: Event) -> None:
        if event.call not in ("read", "list"):
            seen[event.name] += 1

    with Watch(where, note):
        carry_out(where / "sweep", lambda _: None)
    return seen


class Killer:
    """Kills the process at the `count`-th time that it passes a point, and calls `first` before."""

    def __init__(self, point: str, count: int, first: Callable[[], None] | None = None) -> None:
        self.point, self.left, self.first = point, count, first

    def __call__(self, event: Event) -> None:
        if event.name == self.point:
            self.left -= 1
            if not self.left:
                if self.first:
                    self.first()
                os.kill(os.getpid(), signal.SIGKILL)


def at_points(times: int, *, broken: str = "", without: str = "", only: str = "") -> Found:
    """Kill at every named point, `times` times each: the first, the last and those between.

    `broken` names a writer to put in place of ours; `only` and `without` are parts of the names of
    points. Nothing on the disk changes from "after" one call to "before" the next.
    """
    reference()
    found = Found()
    with folder() as place:
        passed = points(place)
    names = sorted(name for name in passed if only in name and not (without and without in name))
    for name in names:
        for time in range(times):
            count = 1 + round(time * (passed[name] - 1) / max(times - 1, 1))
            with folder() as place:
                _kill_once(place, name, count, found, broken)
    found.counts |= {"points": len(names)}
    return found


def _kill_once(place: Path, name: str, count: int, found: Found, broken: str) -> None:
    def work(tell: Tell) -> int:
        with ExitStack() as stack:
            if broken and broken != "promises early":
                stack.enter_context(BROKEN[broken]())
            stack.enter_context(Watch(place, Killer(name, count)))
            return carry_out(place / "sweep", tell, early=broken == "promises early")

    ended = in_child(work)
    if ended.killed:
        found.counts["kills"] = found.counts.get("kills", 0) + 1
        settle(place / "sweep", promises(ended), found, f"killed at {name}, time {count}")
    elif not broken:  # a writer other than ours need not pass all of our points
        found.broken("errors", f"{name}, time {count}: it was not killed: {ended.told[-1:]}")


def at_random(kills: int, seed: int = 0) -> Found:
    """Kill so often at random times, each sweep again and again until it is complete."""
    random, found = Random(seed), Found()
    length = reference().seconds
    done = sweeps = 0
    while done < kills:
        with folder() as place:
            sweeps += 1
            promised: list[Any] = []
            while done < kills:
                ended = in_child(
                    lambda tell, place=place: carry_out(place / "sweep", tell),
                    kill_after=random.uniform(0, length),
                )
                promised += [each for each in promises(ended) if each not in promised]
                if not ended.killed:
                    break
                done += 1
            settle(place / "sweep", promised, found, f"killed at random, sweep {sweeps}")
    found.counts |= {"kills": done, "sweeps": sweeps}
    return found
