"""Two features, one dimension: the phase diagram by hand, exactly, and as training finds it.

Feature 2 weighs r times as much as feature 1 and both are active with probability p. It is ignored,
has the dimension to itself, or shares it with feature 1. `docs/phase-diagram.md` derives the map.

    python docs/gallery/phase_diagram.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few cells, trained for a moment")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

cells, seeds, steps = (4, 2, 300) if options.quick else (40, 10, 10_000)
r, p = np.geomspace(0.1, 10, cells), np.geomspace(1.0, 0.01, cells)

worlds = [sp.Features(n=2, p=each, importance=[1.0, ratio]) for each in p for ratio in r]
run = sp.train(sp.ToyModel(n=2, m=1), worlds, sp.Training(steps=steps), runs=seeds)
trained = sp.phases.plane(run.table("features"), "importance", feature=1)

exact = sp.theory.phase_plane(2, 1, r=r.tolist(), p=p.tolist(), starts=8)
optimal = sp.phases.exact_plane(exact.state.T, r, p, ("importance", "p"))

simple = [[sp.theory.configurations(2, 1, each, ratio)[0].state for ratio in r] for each in p]
by_hand = sp.phases.exact_plane(np.array(simple), r, p, ("importance", "p"))

for name, plane in {"by hand": by_hand, "exact": optimal}.items():
    found = sp.phases.agreement(trained, plane)
    print(f"{found.share:.1%} of the trained boundary is within a cell, or the band of the seeds,")
    print(f"   of the one {name}; {found.unequal.num_rows} cells are in another state")
gap = sp.phases.gap(run.loss.numpy(), exact.loss.T.ravel())
print(f"loss of the best seed above the optimum: at most {max(gap['best'].to_pylist()):.2%}")

panels = {"by hand": by_hand, "exact optimum": optimal, f"trained, best of {seeds}": trained}
picture = figures.render(figures.phase_planes, panels, shares=trained, exact=optimal)
for file in picture.write(options.out, "phase_diagram"):
    print("  ", file)
