"""`run`: train what a sweep lacks, with whichever executor, and lose nothing on the way."""

import logging
import random
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType

from superpose.kernels import cpu
from superpose.records import RecordError
from superpose.sweep import refinement
from superpose.sweep.claims import Claims
from superpose.sweep.store import Sweep
from superpose.sweep.work import Broken, Dropped, Event, Executor, Failed, Pool, Ticked

_log = logging.getLogger("superpose")

ATTEMPTS = 3
"""How often a shard is tried that failed for a reason that may pass."""

# How long an interruption waits to be heard, at most.
_PATIENCE = 0.2

Progress = Callable[[int, int, int], None]
"""Called with (models done, models in all, shards that failed)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of a sweep ended.

    `done` and `missing` count shards, `models` those in the store of the `planned` ones. `failed`
    has the shards given up, with the reason, and `hopeless` those of them that would fail again.
    `broken` says why no shard could be written, such as that the disk is full. `unrefined` is a
    sweep that is not refined to the end: all planned may be there, and more will be planned.
    `rounds` are those of refinement planned so far, with the models of the whole fine grid, of
    which `planned` were needed; None where nothing is refined.
    """

    done: int
    missing: int
    models: int
    planned: int
    failed: dict[int, str]
    hopeless: frozenset[int]
    interrupted: bool
    broken: str = ""
    unrefined: bool = False
    rounds: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether every model is there that there will be."""
        return not self.missing and not self.unrefined

    @property
    def resumable(self) -> bool:
        """Whether to run the sweep again may do more of it."""
        return self.missing > len(self.hopeless) or (not self.missing and self.unrefined)


def run(sweep: Sweep, executor: Executor, progress: Progress | None = None) -> Outcome:
    """Train the shards that are missing, round by round where the sweep is refined.

    Whatever ends it, what is in the store stays, and another `run` does the rest. SIGINT (Ctrl-C)
    or SIGTERM lets the shards in training finish, a second one leaves them (when called from the
    main thread). A shard whose worker is killed, or which fails for another reason that may pass,
    is tried three times; then, or where it would fail again, it is named in the outcome and the
    others go on. Several runs of one sweep may go on at once, on one machine or many.
    Raises RecordError where the sweep cannot be read, ValueError for an executor that does not fit
    and for a sweep begun with another version of the kernel: all its models come from one.
    """
    with _interruptions() as interruptions, _claims(sweep) as claims:
        pool = executor.start(sweep.folder.where)
        driver = _Driver(sweep, pool, claims, interruptions, progress or (lambda *_: None))
        try:
            driver.carry_on()
        finally:
            pool.close(now=True)
    return driver.outcome()


def _require_kernel(sweep: Sweep) -> None:
    if sweep.kernel != cpu.VERSION:
        raise ValueError(
            f"{sweep.folder.where}: begun with kernel {sweep.kernel}, but this superpose has "
            f"{cpu.VERSION}, whose models are others; finish it with the version that began it, or "
            "begin it anew in another folder"
        )


@dataclass(slots=True)
class _Interruptions:
    count: int = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Count a signal; the loop below looks at the count."""
        self.count += 1
        if self.count > 2:  # it does not: some call takes long
            raise KeyboardInterrupt


@contextmanager
def _interruptions() -> Iterator[_Interruptions]:
    """Signals that ask to stop, counted while within."""
    heard = _Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, heard.hear)
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _claims(sweep: Sweep) -> Iterator[Claims]:
    claims = Claims(sweep.folder)
    try:
        yield claims
    finally:
        claims.end()


@dataclass(slots=True, eq=False)
class _Driver:
    """The state of a run: what waits, what is in flight, what failed."""

    sweep: Sweep
    pool: Pool
    claims: Claims
    interruptions: _Interruptions
    progress: Progress
    waiting: deque[int] = field(default_factory=deque)  # the next at the right
    flying: dict[int, int] = field(default_factory=dict)  # shard to its models done so far
    attempts: Counter[int] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    hopeless: set[int] = field(default_factory=set)
    models: int = 0  # of the shards done
    broken: str = ""
    unrefined: bool = False

    def carry_on(self) -> None:
        """Round after round until nothing is left, or no more can be done."""
        # Damage counts as missing, so that a run repairs it.
        missing = self.sweep.missing(check=True)
        self.unrefined = self.sweep.plan.rounds is not None
        while True:
            self._begin(list(missing))
            self._work_off()
            missing = self.sweep.missing()
            refined = self.sweep.plan.rounds is not None
            if not refined or self._is_over() or self.failed or any(True for _ in missing):
                return
            # Where the file of the next round is damaged, those before are all it follows from.
            cells = refinement.next_round(replace(self.sweep, damage=""))
            if not cells:
                self.unrefined = False
                return
            _require_kernel(self.sweep)
            self.sweep = self.sweep.begin_round(cells)
            missing = self.sweep.missing()

    def outcome(self) -> Outcome:
        """What there is in the end, as the store has it."""
        self._index()
        missing, plan = set(self.sweep.missing()), self.sweep.plan
        failed = {shard: why for shard, why in self.failed.items() if shard in missing}
        return Outcome(
            done=plan.shards - len(missing),
            missing=len(missing),
            models=plan.models - sum(self.sweep.plan.shard(shard).models for shard in missing),
            planned=plan.models,
            failed=failed,
            hopeless=frozenset(self.hopeless & failed.keys()),
            interrupted=self.interruptions.count > 0,
            broken=self.broken,
            unrefined=self.unrefined,
            rounds=(len(plan.rounds), plan.grid * plan.configuration.seeds)
            if plan.rounds
            else None,
        )

    def _index(self) -> None:
        """Write the index of a sweep that is complete."""
        if self.broken or any(True for _ in self.sweep.missing()):
            return
        try:
            self.sweep.reindex()
        except RecordError as error:
            _log.warning("everything is there, but its index could not be written: %s", error)

    def _is_over(self) -> bool:
        return bool(self.interruptions.count or self.broken)

    def _begin(self, missing: list[int]) -> None:
        if missing:
            _require_kernel(self.sweep)
        # Two runners that start together should not go through the shards side by side.
        random.SystemRandom().shuffle(missing)
        self.waiting = deque(missing)
        plan = self.sweep.plan
        self.models = plan.models - sum(self.sweep.plan.shard(shard).models for shard in missing)
        self.progress(self.models, plan.models, len(self.failed))

    def _work_off(self) -> None:
        told = False
        while (self.waiting and not self._is_over()) or self.flying:
            if self._is_over():
                if self.broken or self.interruptions.count > 1:
                    return
                if not told:
                    _log.warning("finishing the shards in training; again to stop at once")
                    self.pool.drain()
                    told = True
            else:
                self._submit()
            for event in self.pool.hear(_PATIENCE):
                self._take_in(event)
            self.claims.beat(self.flying)

    def _submit(self) -> None:
        """Fill the pool, with what others have in training last."""
        passed = 0
        while self.waiting and len(self.flying) < self.pool.window:
            shard = self.waiting.pop()
            if passed < len(self.waiting) and shard in self.claims.others():
                self.waiting.appendleft(shard)
                passed += 1
                continue
            self.attempts[shard] += 1
            self.flying[shard] = 0
            self.pool.submit(shard)

    def _take_in(self, event: Event) -> None:
        if isinstance(event, Broken):
            self.broken = self.broken or event.sentence
        elif event.shard not in self.flying:
            return  # told twice
        elif isinstance(event, Ticked):
            self.flying[event.shard] = event.models
        else:
            del self.flying[event.shard]
            if isinstance(event, Failed):
                self._fail(event)
            elif isinstance(event, Dropped):
                self.attempts[event.shard] -= 1
                self.waiting.append(event.shard)
            else:
                self.models += self.sweep.plan.shard(event.shard).models
        done = self.models + sum(self.flying.values())
        self.progress(done, self.sweep.plan.models, len(self.failed))

    def _fail(self, event: Failed) -> None:
        last = not event.again or self.attempts[event.shard] >= ATTEMPTS
        end = "given up" if last else "tried again"
        _log.warning("shard %d failed: %s (%s)", event.shard, event.sentence, end)
        if last:
            self.failed[event.shard] = event.sentence
            if not event.again:
                self.hopeless.add(event.shard)
        else:
            self.waiting.appendleft(event.shard)
