"""What engine.py lets train: a notebook's loop, occhio in an environment of its own, and ourselves.

Each side is called with a number of units, trains them and returns the seconds it took: processor
time and wall time. `per_unit` says how many steps of one model a unit is.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Protocol

import numpy as np
import torch

import superpose as sp
from superpose.kernels import cpu, streams

MODELS, BATCH, IMPORTANCE = 10, 1024, 0.7
OCCHIO = "0.2.3"
HOME = Path(__file__).parent
OCCHIO_HOME = HOME / ".peers/occhio"


class Side(Protocol):
    """One way to train."""

    per_unit: int

    def __call__(self, units: int) -> np.ndarray:
        """Train, and return seconds of processor time and of wall time."""
        ...


def clocks() -> np.ndarray:
    """Processor time of this process, and wall time."""
    return np.array([process_time(), perf_counter()])


class Notebook:
    """Ten models in one batched product, trained as the notebook does; a unit is a step of all."""

    per_unit = MODELS

    def __init__(self, n: int, m: int, p: float, threads: int = 1) -> None:
        self.threads, self.n, self.p = threads, n, torch.full((MODELS, 1), p)
        self.W = torch.nn.Parameter(torch.nn.init.xavier_normal_(torch.empty(MODELS, n, m)))
        self.b = torch.nn.Parameter(torch.zeros(MODELS, n))
        self.importance = IMPORTANCE ** torch.arange(n)
        self.optimiser = torch.optim.AdamW([self.W, self.b], lr=1e-3)
        self(3)

    def __call__(self, units: int) -> np.ndarray:
        torch.set_num_threads(self.threads)
        start = clocks()
        for _ in range(units):
            self.step()
        return clocks() - start

    def step(self) -> None:
        """One step of plain PyTorch."""
        self.optimiser.zero_grad(set_to_none=True)
        value = torch.rand(BATCH, MODELS, self.n)
        x = torch.where(torch.rand(BATCH, MODELS, self.n) <= self.p, value, torch.zeros(()))
        h = torch.einsum("...if,ifh->...ih", x, self.W)
        out = torch.relu(torch.einsum("...ih,ifh->...if", h, self.W) + self.b)
        loss = (self.importance * (x - out) ** 2).mean((0, 2)).sum()
        loss.backward()
        self.optimiser.step()


class Trained:
    """`sp.train` from the first step to the exact loss, as a user calls it; a unit is a model."""

    def __init__(self, n: int, m: int, p: float, steps: int, threads: int = 1) -> None:
        self.per_unit, self.threads = steps, threads
        self.model = sp.ToyModel(n=n, m=m)
        self.world = sp.Features(n=n, p=p, importance=IMPORTANCE)
        self.recipe = sp.Training(steps=steps, batch=BATCH)
        # One step compiles all that a longer run needs.
        sp.train(self.model, self.world, sp.Training(steps=1, batch=BATCH), runs=1)

    def __call__(self, units: int) -> np.ndarray:
        os.environ["SUPERPOSE_THREADS"] = str(self.threads)
        start = clocks()
        sp.train(self.model, self.world, self.recipe, runs=units)
        return clocks() - start


class Continued:
    """The kernel alone, on models that have trained for `warm` steps; a unit is a step of all.

    How much a step costs depends on how many outputs are on, which is half at the start. What
    `sp.train` adds is the exact loss at the end: `loss_seconds`.
    """

    def __init__(self, shape: tuple[int, int], p: float, warm: int, models: int = 4) -> None:
        n, m = shape
        self.shape, self.per_unit, self.done = shape, models, 0
        self.model = sp.ToyModel(n=n, m=m)
        # Features are as important as each other: at 0.7**i most of 400 would never learn.
        self.world = sp.Features(n=n, p=p)
        self.importance = self.world.importances.astype(np.float32)
        self.law = streams.tables(self.world, BATCH)
        first = [torch.cat([a.flatten() for a in self.model.initial(0, r)]) for r in range(models)]
        theta = torch.stack(first).numpy()
        moments = np.zeros((models, 2, theta.shape[1]), np.float32)
        keys = np.array([streams.stream_key(0, r) for r in range(models)], np.uint64)
        self.stack = (theta, moments, keys)
        self(warm)

    def __call__(self, units: int) -> np.ndarray:
        recipe = cpu.Recipe(self.importance, BATCH, decay=0.01, l1=0.0, first=self.done)
        rates = np.full((1, units), 1e-3, np.float32)
        losses = np.empty((self.per_unit, 0), np.float32)
        start = clocks()
        cpu.train(self.model, self.world, self.law, recipe, self.stack, (rates, losses))
        self.done += units
        return clocks() - start

    def loss_seconds(self) -> float:
        """Processor time of one model's exact loss."""
        (n, m), theta = self.shape, torch.from_numpy(self.stack[0])
        W, b = theta[:1, : n * m].reshape(1, n, m), theta[:1, n * m :]
        if not theta.isfinite().all():
            raise ValueError(f"the models of {self.shape} diverged; their times mean nothing")
        times = []
        for _ in range(2):  # the first may compile
            start = process_time()
            sp.theory.expected_loss(W, b, self.world, output="relu")
            times.append(process_time() - start)
        return min(times)


class OcchioProcess:
    """A process in occhio's environment, which trains one grid after the other."""

    def __init__(self) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")
        self.process = subprocess.Popen(
            [_python(), HOME / "peers/occhio_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | one_thread,
        )

    def ask(self, request: dict) -> dict:
        """The answer to one request."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(
                "occhio's process ended; run benchmarks/peers/occhio_worker.py alone"
            )
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


class Occhio:
    """occhio's stacked grid of ten models; a unit is a step of all."""

    per_unit = MODELS

    def __init__(
        self, process: OcchioProcess, cell: tuple[int, int, float], compiled: bool
    ) -> None:
        self.process = process
        cell_names = dict(zip(("n", "m", "p"), cell, strict=True))
        about = {"models": MODELS, "batch": BATCH, "importance": IMPORTANCE, "compiled": compiled}
        process.ask(cell_names | about)

    def __call__(self, units: int) -> np.ndarray:
        return np.array(self.process.ask({"steps": units})["seconds"])


def _python() -> Path:
    """The interpreter of occhio's environment."""
    return OCCHIO_HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def has_occhio() -> bool:
    """Whether occhio's environment is there."""
    return _python().exists()


def install_occhio() -> None:
    """Make an environment with occhio and the PyTorch that we have; pip's own settings apply."""
    subprocess.run([sys.executable, "-m", "venv", OCCHIO_HOME], check=True)
    torch_here = f"torch=={version('torch').partition('+')[0]}"
    wanted = [torch_here, f"occhio=={OCCHIO}"]
    subprocess.run([_python(), "-m", "pip", "install", "--quiet", *wanted], check=True)
