"""Equal features: which shape is best at each density, exactly, and what training packs.

Shapes in orthogonal dimensions do not disturb each other, so the loss is a sum over them and each
dimension goes to the shape that saves most. The exact optima of single shapes, kept with the
package, predict the dimensions per feature of models with many features; training follows.

    python docs/gallery/ladder.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="two densities, trained for a moment")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

shapes = {(2, 1): "digon", (3, 2): "triangle", (4, 3): "tetrahedron", (5, 2): "pentagon"}
rows = []
for known in sp.theory.known_optima():
    world, shape = known.world, (known.world.n, known.m)
    equal = world == sp.Features(n=world.n, p=world.p)
    if equal and shape in shapes and np.isscalar(world.p) and 1 < 1 / world.p <= 14:
        variance = world.p / 3 - world.p**2 / 4
        gain = (world.n * variance - known.loss) / known.m
        dims = known.m / known.squared_norm
        named = {"factor": shapes[shape], "p": world.p, "gain": gain / variance}
        rows.append({**named, "dims_per_feature": dims})
# Densities at which every shape is known, or the best of them could be one that is not.
common = {each["p"] for each in rows}
for name in shapes.values():
    common &= {each["p"] for each in rows if each["factor"] == name}
factors = pa.Table.from_pylist([each for each in rows if each["p"] in common])

densities, runs, steps, n, m = sorted(common, reverse=True), 4, 10_000, 80, 8
if options.quick:
    densities, runs, steps, n, m = densities[::8], 2, 20, 10, 2
training = sp.Training(steps=steps, lr=5e-3, schedule="cosine")
worlds = [sp.Features(n=n, p=p) for p in densities]
run = sp.train(sp.ToyModel(n=n, m=m), worlds, training, runs=runs)

print("1/p   best shape    predicted  trained (mean of runs)")
for p, found in zip(densities, sp.dims_per_feature(run.W).mean(-1), strict=True):
    best = max((each for each in rows if each["p"] == p), key=lambda each: each["gain"])
    predicted = f"{best['factor']:12}  {best['dims_per_feature']:.3f}"
    print(f"{1 / p:5.2f} {predicted}      {found:.3f}")
picture = figures.render(figures.factor_ladder, factors, run.table())
for file in picture.write(options.out, "ladder"):
    print("  ", file)
