"""Where superposition begins: a sweep from dense to sparse, its phases, and how sure they are.

Ten features, each 0.7 times as important as the one before, share three dimensions. Dense worlds
give the top three a dimension each; sparser ones pack more and more features.

    python docs/gallery/phases.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few densities, trained for a moment")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

densities, runs, steps = (4, 2, 50) if options.quick else (20, 8, 10_000)
axis = np.geomspace(1.0, 0.01, densities).tolist()
worlds = [sp.Features(n=10, p=p, importance=0.7) for p in axis]
run = sp.train(sp.ToyModel(n=10, m=3), worlds, sp.Training(steps=steps), runs=runs)
found = sp.phases.find(run.table("features"))

print(f"superposition begins at 1/p = {found.onset}")
print("from 1/p    to   dedicated  superposed  ignored")
for row in found.ranges.to_pylist():
    counts = f"{row['dedicated']:>9} {row['superposed']:>11} {row['ignored']:>8}"
    print(f"{row['sparsity_from']:8.1f} {row['sparsity_to']:5.1f} {counts}")
for note in found.notes:
    print("note:", note)
picture = figures.render(figures.phase_map, found.states, [found.onset])
for file in picture.write(options.out, "phases"):
    print("  ", file)
