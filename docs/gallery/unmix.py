"""Un-mixing a model whose features outnumber its dimensions: a sparse autoencoder against neurons.

Here the truth is known: the rows of W. A TopK autoencoder sees hidden activations alone and finds
those directions; no neuron is one of them.

    python docs/gallery/unmix.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import pyarrow as pa

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="train for a moment only")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

steps, samples = (50, 2_000) if options.quick else (10_000, 300_000)
world = sp.Features(n=20, p=0.03)
best = sp.train(sp.ToyModel(n=20, m=8), world, sp.Training(steps=steps), runs=8).best()
truth = best.W[0][sp.feature_norms(best.W)[0] > 0.5]
h = best.module(0).encoder(world.sample(50_000, seed=1)).detach()

sae = sp.unmix(h, sp.TopK(d_sae=40, k=2), sp.SAETraining(samples=samples, lr=1e-2), seeds=3)
rows = []
for name, dictionary in {"TopK": sae, "neurons": sp.unmix.neurons(8)}.items():
    scores = sp.match(dictionary, truth, activations=h)
    for score in ("mmcs", "recall", "precision"):
        found = scores.interval(score) if len(scores.assignment) > 1 else None
        value = float(getattr(scores, score).mean())
        low, high = (found.low, found.high) if found else (value, value)
        print(f"{name:8} {score:10} {value:.3f} [{low:.3f}, {high:.3f}]")
        row = {"model": f"{len(truth)} features in 8 dimensions", "dictionary": name}
        rows.append(row | {"score": score, "estimate": value, "low": low, "high": high})
for file in figures.render(figures.recovery_bars, pa.Table.from_pylist(rows)).write(
    options.out, "unmix"
):
    print("  ", file)
