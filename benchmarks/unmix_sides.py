"""What unmix.py lets train, on which data: a process a package, in environments of their own.

The protocol is that of peers/serving.py. All sides get the same file of samples, and what they
learned is scored here, by one definition for all.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from peers import make

HOME = Path(__file__).parent
OURS, PLAIN = "superpose", "PyTorch"
ALL = (OURS, PLAIN, *make.PEERS)
PEERS_OF = {
    "topk": ("saelens", "dictionary_learning", "overcomplete", "sparsify"),
    "batchtopk": ("saelens", "dictionary_learning", "overcomplete"),
    "jumprelu": ("saelens", "dictionary_learning", "overcomplete"),
    "matryoshka": ("saelens", "dictionary_learning"),
    "l1": ("saelens", "dictionary_learning", "overcomplete"),
}
ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR")
} | {"SUPERPOSE_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a training is."""

    d: int = 128
    width: int = 1024
    k: int = 10
    batch: int = 4096

    @property
    def floor(self) -> float:
        """Floating operations of a sample that no way is without: the encoder's product."""
        return 2.0 * self.d * self.width

    def __str__(self) -> str:
        return f"{self.d} → {self.width:,}, k={self.k}, batch {self.batch:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Files of samples, what made them, and the root of their mean squared norm."""

    train: Path
    held: Path
    directions: np.ndarray
    scale: float


def data(folder: Path, shape: Shape, samples: int, seed: int, held: int = 32_768) -> Data:
    """As many features as latents, in random directions, k of them active in the mean.

    The amplitudes are uniform in (0, 1] and there is no noise.
    """
    rng = np.random.default_rng([seed, shape.d, shape.width])
    W = rng.standard_normal((shape.width, shape.d), np.float32)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    # 1,024 features at p = 0.01 and k = 10.
    p = 0.01 if shape.width == 1024 else shape.k / shape.width
    files, scale = [], 0.0
    for name, count in (("train", samples), ("held", held)):
        x = np.concatenate(
            [drawn(rng, W, p, min(2048, count - begin)) for begin in range(0, count, 2048)]
        )
        files.append(folder / f"{name}-{shape.d}-{shape.width}-{seed}.npy")
        np.save(files[-1], x)
        scale = scale or float(np.sqrt(x.var(0, dtype=np.float64).sum()))
    return Data(train=files[0], held=files[1], directions=W, scale=scale)


def drawn(rng: np.random.Generator, W: np.ndarray, p: float, count: int) -> np.ndarray:
    """Samples of a sparse world."""
    on = rng.random((count, len(W)), np.float32) < p
    f = np.zeros(on.shape, np.float32)
    f[on] = 1 - rng.random(int(on.sum()), np.float32)
    return f @ W


TUNED: dict[tuple[str, str], dict[str, float]] = {
    ("l1", OURS): {"lr": 4e-2, "warmup": 0.8},
    ("jumprelu", OURS): {"lr": 5e-3},
    ("jumprelu", "dictionary_learning"): {"strength": 1.0, "bandwidth": 0.001},
    ("jumprelu", "saelens"): {"lr": 5e-3, "strength": 0.3, "bandwidth": 0.1, "threshold": 0.05},
}
"""What served a side better than the settings that all share, which are superpose's defaults."""


def settings(code: str, side: str, shape: Shape, found: Data, steps: int, seed: int = 0) -> dict:
    """What a worker is told, in the units of the data."""
    return {
        "code": code,
        "d": shape.d,
        "width": shape.width,
        "k": shape.k,
        "batch": shape.batch,
        "steps": steps,
        "seed": seed,
        "lr": 1e-2,
        "warmup": 0.05,
        "decay": 0.2,
        "dead_after": 25_000,
        "data": str(found.train),
        "scale": found.scale,
        "widths": [shape.width // 16, shape.width // 4, shape.width],
        "coefficient": 0.3,
        "strength": found.scale**2,
        "bandwidth": 0.1 * found.scale,
        "threshold": 0.1 * found.scale,
    } | TUNED.get((code, side), {})


class Worker:
    """A process that trains with one package."""

    def __init__(self, side: str, threads: int = 1) -> None:
        name = {PLAIN: "plain"}.get(side, side)
        python = make.python(side) if side in make.PEERS else Path(sys.executable)
        self.side, self.errors = side, TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", str(HOME / f"peers/{name}_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | ONE_THREAD | {"SUPERPOSE_THREADS": str(threads)},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request, wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        # A package may print before its worker can hear of it.
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.errors.seek(0)
        raise RuntimeError(f"{self.side}'s worker ended:\n{self.errors.read()[-2000:]}")

    def train(self, steps: int) -> np.ndarray:
        """Processor and wall seconds a step, over about so many steps."""
        found = self.ask(steps=steps)
        return np.array(found["seconds"]) / found["steps"]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self.errors.close()


def sides(code: str) -> list[str]:
    """Ourselves, the plain loop, and the packages that know the code and are installed."""
    return [OURS, PLAIN, *(peer for peer in PEERS_OF[code] if make.python(peer).exists())]


def scores(found: Data, folder: Path) -> dict[str, float]:
    """Explained variance of samples held out, and how near some latent comes to each feature."""
    x, x_hat = np.load(found.held), np.load(folder / "reconstruction.npy")
    error = np.square(x - x_hat, dtype=np.float64).sum()
    spread = np.square(x - x.mean(0, dtype=np.float64), dtype=np.float64).sum()
    nearest = (found.directions @ np.load(folder / "directions.npy").T).max(1)
    return {
        "fve": float(1 - error / spread),
        "mmcs": float(nearest.mean()),
        "recovered": float((nearest > 0.9).mean()),
    }
