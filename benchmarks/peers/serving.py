"""What the workers of unmix.py share: data in memory, and a clock that paces a trainer's own loop.

Every package trains by its own call, which lasts from the first step to the last. The batches that
it is given come from here, one permutation of all samples after another, and the next one waits
until more steps are asked for; so a training can be timed in pieces, in turns with others. A line
of JSON in, a line of JSON out:

- {"make": settings}: make a trainer and take its first steps, untimed; {"ready": true}.
- {"steps": n}: train on; {"seconds": [processor, wall], "peak": bytes}.
- {"finish": {"held": file, "folder": folder}}: train to the end, then write `directions.npy` and
  `reconstruction.npy` of the samples held out; {"seconds", "steps", "peak", "l0"}.
- {"whole": [settings, ...]}: these trainings, one after another, from their calls to what they give
  back; {"seconds", "steps", "peak"}.

A worker keeps to one thread and to one core, or to as many as SUPERPOSE_THREADS says.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np
import torch

UNTIMED = 3
"""Steps before the first timed one: they make the optimiser's state and compile."""


class Left(Exception):  # noqa: N818
    """The training was left before its end, for the sake of another request."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self.request = request


class Learned(NamedTuple):
    """What a training has learned: unit directions `[width, d]`, and (latents, x̂) of samples."""

    directions: torch.Tensor
    apply: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Desk:
    """Requests in, answers out; whatever a package prints goes to the standard error instead."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def request(self) -> dict[str, Any]:
        """The next request, {} at the end of the input."""
        return json.loads(sys.stdin.readline() or "{}")

    def answer(self, **found: Any) -> None:
        """Answer the last request."""
        self.answers.write(json.dumps(found) + "\n")
        self.answers.flush()


class Pace:
    """Lets a training take as many steps as are asked for."""

    def __init__(self, desk: Desk, steps: int, until: int) -> None:
        self.desk, self.steps, self.done = desk, steps, 0
        self.until = until
        self.begin: tuple[float, float] | None = None
        self.first = 0
        self.held: dict[str, str] = {}

    def step(self, done: int) -> None:
        """At the beginning of a step, `done` behind it: wait unless it was asked for."""
        self.done = done
        if done >= self.until:
            self.answer()
            self.wait()

    def answer(self) -> None:
        """Tell what the last request took."""
        if self.begin is None:
            self.desk.answer(ready=True)
        else:
            steps = self.done - self.first
            self.desk.answer(seconds=since(self.begin), steps=steps, peak=most_memory())

    def wait(self) -> None:
        """Until steps are asked for, or the end of the training."""
        request = self.desk.request()
        if "steps" in request:
            self.until = self.done + request["steps"]
            if self.until >= self.steps:
                raise ValueError(f"{request}: {self.done} of {self.steps} steps are done; finish")
        elif "finish" in request:
            self.held, self.until = request["finish"], self.steps + 1
        else:
            raise Left(request)
        self.first = self.done
        self.begin = clocks()


class Batches:
    """Batches of one size, cut from one permutation of all samples after another."""

    def __init__(self, settings: dict[str, Any], pace: Pace) -> None:
        self.pace, self.batch, self.steps = pace, settings["batch"], settings["steps"]
        self.x = samples(settings["data"])
        self.random = torch.Generator().manual_seed(settings["seed"])

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = torch.empty(0, dtype=torch.int64)
        for step in range(self.steps):
            self.pace.step(step)
            while len(order) < self.batch:
                order = torch.cat([order, torch.randperm(len(self.x), generator=self.random)])
            index, order = order[: self.batch], order[self.batch :]
            yield self.x[index]


@cache
def samples(file: str) -> torch.Tensor:
    """The samples of a file, in memory from the first time on."""
    return torch.from_numpy(np.load(file))


Train = Callable[[dict[str, Any], Batches], Learned]


def serve(train: Train) -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[-int(os.environ.get("SUPERPOSE_THREADS", "1")) :]
        os.sched_setaffinity(0, cores)
    desk = Desk()
    request = desk.request()
    while request:
        if "whole" in request:
            desk.answer(**whole(train, desk, request["whole"]))
            request = desk.request()
        else:
            request = in_pieces(train, desk, request["make"])


def in_pieces(train: Train, desk: Desk, settings: dict[str, Any]) -> dict[str, Any]:
    """A training as it is asked for; the request that it leaves open is given back."""
    pace = Pace(desk, members(settings) * settings["steps"], UNTIMED * members(settings))
    torch.manual_seed(settings["seed"])
    try:
        learned = train(settings, Batches(settings, pace))
    except Left as left:
        return left.request
    found = {"seconds": since(pace.begin or clocks()), "steps": pace.steps - pace.first}
    desk.answer(peak=most_memory(), l0=write(learned, **pace.held), **found)
    return desk.request()


def whole(train: Train, desk: Desk, asked: list[dict[str, Any]]) -> dict[str, Any]:
    """What trainings take that are never held up."""
    for settings in asked:
        samples(settings["data"])
    begin, steps = clocks(), 0
    for settings in asked:
        own = members(settings) * settings["steps"]
        torch.manual_seed(settings["seed"])
        train(settings, Batches(settings, Pace(desk, own, own + 1)))
        steps += own
    return {"seconds": since(begin), "steps": steps, "peak": most_memory()}


def members(settings: dict[str, Any]) -> int:
    """How many autoencoders train at once."""
    return len(settings.get("stack", [0])) * settings.get("seeds", 1)


def clocks() -> tuple[float, float]:
    """Processor time of this process, and wall time."""
    return process_time(), perf_counter()


def since(begin: tuple[float, float]) -> list[float]:
    """Seconds of both."""
    return [now - then for now, then in zip(clocks(), begin, strict=True)]


@torch.no_grad()
def write(learned: Learned, held: str, folder: str) -> float:
    """Write directions and reconstructions; the mean number of active latents is given back."""
    found, active = [], 0
    x = torch.from_numpy(np.load(held))
    for part in x.split(4096):
        z, reconstruction = learned.apply(part)
        found.append(reconstruction.float().numpy())
        active += int((z != 0).sum())
    unit = torch.nn.functional.normalize(learned.directions.detach().float(), dim=-1)
    np.save(Path(folder) / "directions.npy", unit.numpy())
    np.save(Path(folder) / "reconstruction.npy", np.concatenate(found))
    return active / len(x)


def rate(settings: dict[str, Any], step: int) -> float:
    """The factor of the learning rate: a linear rise, a plateau, and a linear fall to 0."""
    steps = settings["steps"]
    rise = (step + 1) / max(settings["warmup"] * steps, 1.0)
    fall = (steps - step) / max(settings["decay"] * steps, 1.0)
    return min(1.0, rise, fall)


def most_memory() -> int:
    """The most bytes that this process has held; on Linux, else 0."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
