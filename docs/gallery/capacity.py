"""How many features fit: exponentially many at a fixed number active, linearly at a fixed p.

Random directions whose features are read by a threshold hold a number n of them whose logarithm
rises in proportion to the dimensions m, as long as the number k of active features stays the same;
at a fixed density p, where k grows with n, it is n itself that does. Trained ReLU models with one
feature active hold as many as the best sphere packings in up to six dimensions.

    python docs/gallery/capacity.py [--quick] [--out FOLDER] [--models FOLDER]

In full it takes some minutes, and as many again the first time, to compile a kernel for each size.
With --models the trained models are kept there: after Ctrl-C, the same command trains the rest.
"""

import argparse
from pathlib import Path

from superpose import figures
from superpose.experiments.capacity import RandomCodes, TrainedModels, capacity

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few dimensions, one size of model")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
parser.add_argument("--models", type=Path, help="keep the trained models here, to go on from")
options = parser.parse_args()

codes, trained = RandomCodes(), TrainedModels()
if options.quick:
    codes = RandomCodes(
        dims=(32, 48, 64), active=(1, 2), densities=(0.01,), samples=60, limit=2_000, seeds=2
    )
    trained = TrainedModels(one=(2,), expected=(), linear=(), runs=2, limit=8)
found = capacity(codes, trained, folder=options.models)

print("source   law          value  form         slope [95 %]                 residual   m")
for row in found.growth.to_pylist():
    slope = f"{row['slope']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
    series = f"{row['source']:8} {row['law']:12} {row['value']:5g}  {row['form']:12}"
    print(f"{series} {slope:28} {row['residual']:.3f}      {row['m_from']}-{row['m_to']}")
picture = figures.render(figures.capacity_regimes, found.points, found.predicted)
for file in picture.write(options.out, "capacity"):
    print("  ", file)
