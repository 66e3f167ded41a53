"""Five equally important features in a plane: a pentagon when sparse, two digons when denser.

At p = 0.3 two features are often active together, so the model gives each pair a line of its own
and leaves the fifth out; at p = 0.05 they hardly ever meet, and all five fit at 72 degrees.

    python docs/gallery/pentagon.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="train for a moment only")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

model = sp.ToyModel(n=5, m=2)
recipe = sp.Training(steps=50 if options.quick else 10_000)
for p in (0.05, 0.3):
    best = sp.train(model, sp.Features(n=5, p=p), recipe, runs=8).best()
    (factors,) = sp.geometry.classify(best.W)
    shape = sp.geometry.summary(factors)
    print(f"p = {p}: best of 8 is {shape}, loss {best.loss.item():.6f}")
    picture = figures.render(figures.direction_plot, best.W[0].numpy())
    for file in picture.write(options.out, f"directions-p{p}"):
        print("  ", file)
