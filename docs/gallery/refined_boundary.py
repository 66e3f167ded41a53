"""Two features, one dimension: a boundary found finely with a coarse grid's worth of models.

A sweep starts on a coarse grid and goes on only where models change from two represented features
to one. They end up along the boundary, which the exact optimum confirms.

    python docs/gallery/refined_boundary.py [--quick] [--out FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from superpose import figures, theory
from superpose.sweep import Here, Sweep, boundaries, parse, savings
from superpose.sweep.run import run

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="coarse, and trained for a moment")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()
count, width, steps, restarts = (3, 0.5, 1_000, 4) if options.quick else (9, 1 / 64, 2_000, 8)
ranges = {"world.p": [1, 0.01], "world.importance": [0.1, 10]}
axes = {key: {"log": ends, "count": count} for key, ends in ranges.items()}
configuration = {
    "seeds": 6,
    "restarts": restarts,  # each seed keeps the best of so many, which finds the optimal state
    "model": {"n": 2, "m": 1},
    "training": {"steps": steps},
    "axes": axes,
    "shards": {"models": 96},
    "refine": {"measure": "represented", "axes": list(axes), "width": width},
}
with tempfile.TemporaryDirectory() as folder:
    run(Sweep.create(folder, parse(configuration)), Here())
    sweep = Sweep.open(folder)
    models, found, saved = sweep.table(), boundaries(sweep), str(savings(sweep))

r = np.geomspace(0.1, 10, 5 if options.quick else 60)
exact = np.array([theory.exact_boundary(each, precision=1e-3).p for each in r])
along_p = found.filter(found["axis"].to_numpy() == "p")
there = np.interp(np.log(along_p["importance"]), np.log(r), np.log10(exact))
away = np.median(abs(np.log10(along_p["p"]) - there))
print(f"{saved}; {along_p.num_rows} places along p, {away:.3f} decades off the exact (median)")


def draw(figure, style):
    plot = figure.subplots()
    two = models["represented"].to_numpy() == 2
    for which, hue, label in ((~two, 0, "one feature"), (two, 1, "two, superposed")):
        at = models.filter(which)
        plot.plot(at["importance"], at["p"], ".", color=style.hues[hue], ms=2, label=label)
    plot.loglog(r, exact, "--", color=style.ink, lw=1, label="exact boundary")
    plot.set(xlabel="relative importance r", ylabel="density p", title=saved)
    figure.legend(loc="outside lower center", ncols=3)


for file in figures.render(draw).write(options.out, "refined_boundary"):
    print("  ", file)
