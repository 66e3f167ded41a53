"""Training dictionaries: a stack of members on one stream of batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, overload

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.activations import Activations
from superpose.engine.shards import threads
from superpose.unmix import stream
from superpose.unmix.checkpoint import Checkpoints, identity
from superpose.unmix.codes import Code
from superpose.unmix.members import COLUMNS, Member
from superpose.unmix.recipe import SAETraining
from superpose.unmix.sae import SAE
from superpose.unmix.stream import Stream
from superpose.unmix.weights import Layout, aligned, fold

_ROWS = 100
_BLOCK = 1 << 18  # numbers of input that a thread takes through a member at a time

Callback = Callable[[dict[str, Any]], None]
Progress = Callable[[int, int], None]


@overload
def unmix(
    acts: Any,
    code: Code,
    training: SAETraining | None = None,
    *,
    target: Any = None,
    seeds: int | range = 3,
    seed: int = 0,
    progress: Progress | None = None,
    callback: Callback | None = None,
    folder: str | Path | None = None,
) -> SAE: ...
@overload
def unmix(
    acts: Any,
    code: Sequence[Code],
    training: SAETraining | None = None,
    *,
    target: Any = None,
    seeds: int | range = 3,
    seed: int = 0,
    progress: Progress | None = None,
    callback: Callback | None = None,
    folder: str | Path | None = None,
) -> list[SAE]: ...
def unmix(
    acts: Any,
    code: Code | Sequence[Code],
    training: SAETraining | None = None,
    *,
    target: Any = None,
    seeds: int | range = 3,
    seed: int = 0,
    progress: Progress | None = None,
    callback: Callback | None = None,
    folder: str | Path | None = None,
) -> SAE | list[SAE]:
    """Train a stack of dictionaries on `acts`, one for each of `seeds`; of each of several codes.

    All members see one stream of batches, a function of `seed` alone. First weights are a
    function of (`seed`, the member's number) alone, so that codes of one width start equal, and
    `seeds=range(2, 3)` trains member 2 as it is in the stack, bit for bit, on any number of
    threads. Training happens in units in which the samples have mean 0 and mean squared norm 1;
    the weights are given back in the units of `acts`, the same function of the data.

    `acts` is whatever `unmix.stream` reads: Activations, a tensor or array, a file or a folder of
    files, a function that returns an iterator, or a world that draws batches. With a `target` of
    the same samples the result is a transcoder; a sequence of Activations makes a crosscoder,
    whose layers each have units of their own. With a `folder` the training is kept there every
    minute and at an interrupt, and the same call goes on, bit for bit. Other samples are refused,
    told apart by all of a table and its files, by the first 1,024 of an iterator and by 256 drawn
    ones of a world.

    `callback` hears of each row of the history: step, run, code, loss, l0, explained_variance,
    dead, rate. The means are over the steps since the last row; the explained variance is
    1 - Σ‖x - x̂‖² / Σ‖x - x̄‖² with the denominator that of all data, dead the share of latents
    silent for `dead_after` samples, and the rate in samples a second of the whole stack.
    `progress(done, total)` hears of the steps of all members.

    Raises ValueError when all samples are equal. A training that diverged is told in `advice`.
    """
    codes = list(code) if isinstance(code, Sequence) else [code]
    training = SAETraining() if training is None else training
    runs = range(int(seeds)) if isinstance(seeds, int | np.integer) else seeds
    _check(codes, runs, seed)
    seed = int(seed)
    device = acts.x.device if isinstance(acts, Activations) else getattr(acts, "device", "cpu")
    source = stream.source(acts, target)
    # To digest all samples takes a while.
    named = identity(codes, training, runs, seed, source.digest()) if folder else {}
    with _one_thread(), Checkpoints(folder, named) as kept:
        state = kept.load() or {}
        with stream.open(source, training.batch, seed, state=state.get("stream")) as batches:
            stack = _Stack(batches, codes, training, [(seed, run) for run in runs], device)
            if folder:
                batches.state()  # says now what cannot be resumed
            stack.restore(state)
            stack.train(kept, progress, callback)
            trained = stack.finished()
    return trained[0] if isinstance(code, Code) else trained


def _check(codes: Sequence[Code], runs: Sequence[int], seed: int) -> None:
    if not codes or not all(isinstance(each, Code) for each in codes):
        raise ValueError(
            f"unmix(code={codes!r}): give a code such as TopK(d_sae=64, k=3), or a list of them"
        )
    if len(runs) == 0 or min(runs) < 0 or len(set(runs)) < len(runs):
        raise ValueError(
            f"unmix(seeds={runs!r}): train at least one member; seeds are how many, or a range of "
            "their numbers, from 0 on and each once"
        )
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"unmix(seed={seed!r}): it is a whole number from 0 to 2**32 - 1")


class _Stack:
    """Members of several codes and seeds, and how far they have come."""

    def __init__(
        self,
        batches: Stream,
        codes: Sequence[Code],
        training: SAETraining,
        keys: Sequence[tuple[int, int]],
        device: Any,
    ) -> None:
        self.batches, self.codes, self.training, self.keys = batches, codes, training, keys
        self.device, self.done = torch.device(device), 0
        transcodes = batches.target_units is not batches.units
        self.members = []
        for code in codes:
            if code.tied and transcodes:
                raise ValueError(
                    f"unmix({type(code).__name__}, target=…): its encoder is its decoder "
                    "transposed, so it reconstructs its input; choose another code"
                )
            layout = Layout(
                batches.d_in, code.d_sae, batches.d_out, code.extras, subtract=not transcodes
            )
            self.members += [Member(code, training, layout, key, self.device) for key in keys]

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        members = {str(place): member.state() for place, member in enumerate(self.members)}
        return {"done": self.done, "stream": self.batches.state(), "members": members}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`; from the beginning where there is none."""
        if not state:
            return
        self.done = int(state["done"])
        for place, member in enumerate(self.members):
            member.restore(state["members"][str(place)])

    def train(
        self, kept: Checkpoints, progress: Progress | None, callback: Callback | None
    ) -> None:
        """All steps from where it is, a block of batches at a time."""
        steps, count = self.training.steps, len(self.members)
        every = max(1, steps // _ROWS)
        length = max(1, _BLOCK // (self.training.batch * self.batches.d_in))
        clock = _Clock(self.training.batch, self.done)
        with ThreadPoolExecutor(
            min(threads(), count), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            while self.done < steps:
                row = min(steps, (self.done // every + 1) * every)
                ahead = min(length, row - self.done)
                # Where a batch cannot be had the stream is ahead of the members: the block counts
                # as one step, which is not whole then, and so is not saved.
                with kept.step(self.done + ahead, self.state):
                    block = self._block(ahead)
                    list(pool.map(partial(_through, block), self.members))
                    self.done += len(block)
                    rows = self._record(clock.rate(self.done)) if self.done == row else []
                if callback is not None:
                    for found in rows:
                        callback(found)
                if progress is not None:
                    progress(self.done * count, steps * count)
        kept.finish(steps, self.state)

    def _block(self, length: int) -> list[tuple[Any, Any]]:
        """The next batches; a copy of each but the last, as a stream reuses its memory."""
        block = []
        for place in range(length):
            x, target = self.batches.batch()
            if self.done + place == 0:
                first = torch.from_numpy(x), torch.from_numpy(target)
                centre = torch.zeros(self.batches.d_out)
                if self.training.centre == "median":
                    centre = geometric_median(first[1])
                for member in self.members:
                    member.begin(centre, *first)
            if self.device.type != "cpu":
                moved = torch.from_numpy(x).to(self.device)
                same = target is x
                block.append((moved, moved if same else torch.from_numpy(target).to(self.device)))
            elif place < length - 1:
                copy = _copied(x)
                block.append((copy, copy if target is x else _copied(target)))
            else:
                block.append((x, target))
        return block

    def _record(self, rate: float) -> list[dict[str, Any]]:
        return [
            {"run": member.key[1], "code": str(member.code), **member.record(self.done - 1, rate)}
            for member in self.members
        ]

    def finished(self) -> list[SAE]:
        """One dictionary a code, its members along the stack axis, in the units of the data."""
        size = len(self.keys)
        return [
            self._folded(code, self.members[place * size : (place + 1) * size])
            for place, code in enumerate(self.codes)
        ]

    def _folded(self, code: Code, members: Sequence[Member]) -> SAE:
        units = self.batches.units, self.batches.target_units
        folded = [fold(member.weights(), *units) for member in members]
        return SAE(
            W_enc=torch.stack([each.W_enc for each in folded]),
            b_enc=torch.stack([each.b_enc for each in folded]),
            W_dec=torch.stack([each.W_dec for each in folded]),
            b_dec=torch.stack([each.b_dec for each in folded]),
            extra={
                name: torch.stack([each.extra[name] for each in folded]) for name in folded[0].extra
            },
            subtract=folded[0].subtract,
            code=code,
            history=_history(members),
            advice=tuple(f"member {m.key[1]}: {said}" for m in members if (said := m.remark())),
            layers=self.batches.layers,
        )


class _Clock:
    """Samples a second since it was last asked."""

    def __init__(self, batch: int, steps: int) -> None:
        self.batch, self.then, self.steps = batch, monotonic(), steps

    def rate(self, steps: int) -> float:
        now = monotonic()
        rate = (steps - self.steps) * self.batch / max(now - self.then, 1e-9)
        self.then, self.steps = now, steps
        return rate


def _through(block: list[tuple[Any, Any]], member: Member) -> None:
    for x, target in block:
        member.step(x, target)


def _copied(x: Float[np.ndarray, "batch d"]) -> Float[np.ndarray, "batch d"]:
    copy = aligned(x.shape)
    copy[:] = x
    return copy


def geometric_median(x: Float[Tensor, "batch d"], rounds: int = 100) -> Float[Tensor, " d"]:
    r"""The point whose mean distance to the samples is least, by Weiszfeld's iteration.

    The iteration is $m \leftarrow \sum x_i / d_i / \sum 1 / d_i$ with $d_i = \|x_i - m\|$, from
    the mean. Source: Weiszfeld 1937.

    >>> geometric_median(torch.tensor([[0.0], [0.0], [9.0]])).abs() < 1e-3
    tensor([True])
    """
    wide = x.double()
    median = wide.mean(0)
    floor = 1e-9 * torch.linalg.vector_norm(wide - median, dim=-1).mean()
    for _ in range(rounds):
        near = 1 / torch.linalg.vector_norm(wide - median, dim=-1).clamp_min(floor)
        median = near @ wide / near.sum()
    return median.to(x.dtype)


def _history(members: Sequence[Member]) -> pa.Table:
    rows = np.array([row for member in members for row in member.rows]).reshape(-1, len(COLUMNS))
    runs = [member.key[1] for member in members for _ in member.rows]
    step, *others = rows.T
    columns = {"step": step.astype(np.int64), "run": np.array(runs, np.int64)}
    return pa.table(columns | dict(zip(COLUMNS[1:], others, strict=True)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of a sum, and so its bits, may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
