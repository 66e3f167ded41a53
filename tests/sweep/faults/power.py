"""Loss of power: the steps of a sweep are written down, cut anywhere, and it goes on from there."""

import json
import pickle
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import NamedTemporaryFile

from faults.calls import Event, Watch
from faults.children import Tell, in_child
from faults.disk import Fate, Log, Step, Synced, Tree, after_cut, fates, lay_out, read_in
from faults.kills import Killer, points
from faults.sweeps import Found, carry_out, folder, reference, settle_here
from faults.writers import BROKEN

OMISSIONS: dict[str, Callable[[Step], bool]] = {
    "no fsync of files": lambda step: isinstance(step, Synced) and not step.is_folder,
    "no fsync of folders": lambda step: isinstance(step, Synced) and step.is_folder,
    "no fsync": lambda step: isinstance(step, Synced),
}
"""What a careless writer leaves out: the log it would have made is ours without these steps."""


def recorded(broken: str = "") -> Log:
    """The steps of an uninterrupted sweep, with its promises; `broken` names another writer."""
    reference()
    with folder() as place, ExitStack() as stack:
        log = Log(place)
        if broken:
            stack.enter_context(BROKEN[broken]())
        stack.enter_context(Watch(place, log.see))
        carry_out(place / "sweep", lambda promise: log.tell(json.dumps(promise)))
        stack.close()
        # No step escaped: the log alone makes the very folder.
        assert after_cut(log, len(log.steps), Fate("kept", "kept")) == read_in(place)
    return log


def recorded_after_kill(point: str, count: int) -> tuple[Log, int]:
    """The steps of a sweep that was killed at a point and gone on with; and how many came first.

    What a killed process had not yet made durable, the next one may take for granted.
    """
    with folder() as place, NamedTemporaryFile() as file:
        log = Log(place)

        def work(_: Tell) -> int:
            def save() -> None:
                Path(file.name).write_bytes(pickle.dumps(log))

            killer = Killer(point, count, save)

            def see(event: Event) -> None:
                log.see(event)
                killer(event)

            with Watch(place, see):
                carry_out(place / "sweep", lambda promise: log.tell(json.dumps(promise)))
            save()  # runs differ in their number of calls: the point was not reached
            return 0

        in_child(work)
        log = pickle.loads(Path(file.name).read_bytes())
        first = len(log.steps)
        with Watch(place, log.see):
            carry_out(place / "sweep", lambda promise: log.tell(json.dumps(promise)))
        assert after_cut(log, len(log.steps), Fate("kept", "kept")) == read_in(place)
    return log, first


def cut(log: Log, states: int, seed: int = 0, first: int = 0, found: Found | None = None) -> Found:
    """Cut the power, from step `first` on, in so many ways that leave different states."""
    found, seen = found or Found(), set()
    for at, fate in fates(50 * states, len(log.steps), seed, first):
        tree = after_cut(log, at, fate)
        state = hash(repr((tree, log.promised(at))))
        if state not in seen:
            seen.add(state)
            _go_on(log, at, fate, tree, found)
        if len(seen) == states:
            break
    found.counts["steps"] = len(log.steps)
    return found


def _go_on(log: Log, at: int, fate: Fate, tree: Tree, found: Found) -> None:
    promised = [json.loads(promise) for promise in log.promised(at)]
    with folder() as place:
        lay_out(tree, place)
        name = f"cut before step {at} of {len(log.steps)}, names {fate.names}, data {fate.data}"
        settle_here(place / "sweep", promised, found, name)


def cut_after_kills(states: int, seed: int = 0, only: str = "", without: str = "") -> Found:
    """Kill at every point once, go on to the end, and cut the power then.

    Once when all is promised and nothing is kept that need not be, and in `states` other ways.
    """
    reference()
    found, random = Found(), Random(seed)
    with folder() as place:
        passed = points(place)
    names = [n for n in sorted(passed) if only in n and not (without and without in n)]
    for point in names:
        log, first = recorded_after_kill(point, random.randint(1, passed[point]))
        end, lost = len(log.steps), Fate("lost", "lost")
        _go_on(log, end, lost, after_cut(log, end, lost), found)
        if states:
            cut(log, states, random.getrandbits(32), first, found)
    found.counts["points"] = len(names)
    return found
