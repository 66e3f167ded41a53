"""How fast samples with a known truth are drawn: superpose, dense PyTorch and SAELens.

    python benchmarks/truth.py [results.json] [--full]

One thread, batches of 4,096 (1,024 at full size), sides in turns, medians of the processor's time.
Dense PyTorch draws a uniform number for every feature of every sample and multiplies dense
matrices; it knows independent features only. SAELens draws the same worlds, from folders written
for it, with dense and with sparse tensors; `python benchmarks/peers/make.py saelens` makes its
environment. With --full the world of SynthSAEBench at full size as well, which takes minutes.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from engine import machine
from superpose.truth import Firing, Mixture, random_directions, synthsaebench, write_saelens

PEERS = Path(__file__).parent
PEER = PEERS / ".peers" / "saelens" / "bin" / "python"
ROUNDS = 9


class Peer:
    """SAELens in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [PEER, PEERS / "peers" / "saelens_synthetic_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def seconds(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def dense(world, batch):
    """Independent features, by uniform numbers for all of them."""
    p = torch.from_numpy(world.probability).float()
    f = (torch.rand(batch, world.n) < p).float()
    return f @ world.directions + world.bias


def timed(call):
    began = time.process_time()
    call()
    return time.process_time() - began


def rates(world, batch, peer, folder):
    """Samples a second of each side."""
    number = iter(range(1_000))
    sides = {"superpose": lambda first: timed(lambda: world.draw(batch, next(number), 0))}
    if isinstance(world.features, Firing) and world.features.forest is None:
        sides["dense PyTorch"] = lambda first: timed(lambda: dense(world, batch))
    if peer is not None:
        where = str(write_saelens(world, folder))
        for kind, sparse in (("dense", False), ("sparse", True)):
            sides[f"SAELens, {kind}"] = lambda first, sparse=sparse: peer.seconds(
                folder=where, batch=batch, sparse=sparse, first=first
            )
    for side in sides.values():
        side(True)
    times = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            times[name].append(side(False))
    return {name: batch / statistics.median(each) for name, each in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    worlds = {
        "1,024 features, d = 128, p = .01": (
            Mixture(Firing(n=1024, p=0.01), random_directions(1024, 128)),
            4096,
        ),
        "16,384 features, d = 768, p = .002": (
            Mixture(Firing(n=16_384, p=0.002), random_directions(16_384, 768)),
            1024,
        ),
        "SynthSAEBench, 1/16": (synthsaebench(scale=1 / 16), 4096),
    }
    if options.full:
        worlds["SynthSAEBench"] = (synthsaebench(), 1024)
    peer, found = Peer() if PEER.exists() else None, machine()
    with tempfile.TemporaryDirectory() as home:
        for place, (name, (world, batch)) in enumerate(worlds.items()):
            found[name] = rates(world, batch, peer, Path(home) / str(place))
            for side, rate in found[name].items():
                ratio = found[name]["superpose"] / rate
                print(f"{name:<36} {side:<16} {rate:>12,.0f} samples/s  {ratio:6.1f}", flush=True)
    if peer is not None:
        peer.close()
    if options.results:
        options.results.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
