"""Equal features: which shape is best at each density, exactly, and what training packs.

Shapes in orthogonal dimensions do not disturb each other, so the loss is a sum over them and each
dimension goes to the shape that saves most. The exact optima of single shapes, kept with the
package, predict the dimensions per feature of models with many features; training follows.

    python docs/gallery/ladder.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import pyarrow as pa

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="two densities, trained for a moment")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

shapes = {(2, 1): "digon", (3, 2): "triangle", (4, 3): "tetrahedron", (5, 2): "pentagon"}
names = shapes | {(8, 3): "8 in 3", (10, 3): "10 in 3"}
rows, searched = [], {key: set() for key in names}
for known in sp.theory.known_optima():
    world, key = known.world, (known.world.n, known.m)
    if key not in names or world != sp.Features(n=world.n, p=world.p) or world.p in (1.0, 0.01):
        continue
    searched[key].add(world.p)
    # Where the optimum of k in d is another shape, that shape has a row of its own.
    if known.shape == shapes.get(key) or (key not in shapes and "digon" not in known.shape):
        variance = world.p / 3 - world.p**2 / 4
        gain = (world.n * variance - known.loss) / known.m / variance
        dims = known.m / known.squared_norm
        rows.append({"factor": names[key], "p": world.p, "gain": gain, "dims_per_feature": dims})
# Densities at which all were searched; sparse ones only with the solids, which win there.
common = set.intersection(*(searched[key] for key in shapes))
common = {p for p in common if 1 / p <= 4.6 or p in searched[8, 3] & searched[10, 3]}
rows = [row for row in rows if row["p"] in common]
factors = pa.Table.from_pylist(rows)

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
