"""A sweep is a plan, a folder and a table: how many features fit, by density and dimensions.

Ten equal features in one to four dimensions, from dense worlds to sparse ones. With --sweep, stop
it when you like, also by pulling the plug: a second run goes on from what is in the folder.

    python docs/gallery/sweep.py [--quick] [--out FOLDER] [--sweep FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

from superpose import figures
from superpose.sweep import Here, Sweep, parse
from superpose.sweep.run import run

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few densities, trained for a moment")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
parser.add_argument("--sweep", help="keep the sweep here, or go on with it; else it is thrown away")
options = parser.parse_args()

steps, densities, seeds = (50, 3, 2) if options.quick else (5_000, 25, 8)
plan = f"""
seeds = {seeds}
[model]
n = 10
[training]
steps = {steps}
lr = 0.005
schedule = "cosine"
[axes]
"model.m" = [1, 2, 3, 4]
"world.p" = {{ log = [1.0, 0.01], count = {densities} }}
[keep]
weights = "none"  # any model can be trained again from its index
"""
with tempfile.TemporaryDirectory() as folder:
    sweep = Sweep.create(options.sweep or folder, parse(plan))
    outcome = run(sweep, Here())
    table = sweep.table(["m", "p", "represented"])
print(f"{outcome.models:,} models in {outcome.done} shards; {outcome.missing} shards are missing")

fits = table.group_by(["m", "p"]).aggregate([("represented", f) for f in ("mean", "min", "max")])
fits = fits.sort_by([("m", "ascending"), ("p", "ascending")])


def draw(figure, style):
    plot = figure.subplots()
    for m, hue in zip(range(1, 5), style.hues, strict=False):
        line = fits.filter(fits["m"].to_numpy() == m)
        x = 1 / line["p"].to_numpy()
        plot.plot(x, line["represented_mean"], color=hue, label=f"m = {m}")
        plot.fill_between(x, line["represented_min"], line["represented_max"], color=hue, alpha=0.2)
    plot.set(xscale="log", xlabel="sparsity 1/p", ylabel="features represented, of 10")
    figure.legend(loc="outside lower center", ncols=4)


for file in figures.render(draw).write(options.out, "sweep"):
    print("  ", file)
