"""Absorption: a feature that fires only with another takes its place; nested dictionaries less.

Eight features have two children each, which fire only where their parent does. A dictionary may
save active latents by letting the child's speak for both, so that the parent's falls silent where
it should be on. Matryoshka dictionaries, whose first latents have to do alone, do so less.

    python docs/gallery/absorption.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import pyarrow as pa

import superpose as sp
from superpose import figures
from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.pathologies.absorption import relief

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="train for a moment only")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

samples, seeds = (10_000, 2) if options.quick else (256_000, 5)
measured = relief(seeds=seeds, training=sp.SAETraining(samples=samples, batch=256, lr=1e-2))
names = {
    "absorption": "absorbed",
    "parents": "parents found",
    "children": "children found",
    "explained": "variance explained",
}
rows = []
for row in over_seeds(measured, ["code", "k"]).to_pylist():
    score = names[row["quantity"]]
    estimate, low, high = (row[bound] for bound in ("estimate", "low", "high"))
    print(f"{row['code']:10} k={row['k']}  {score:18} {estimate:.3f} [{low:.3f}, {high:.3f}]")
    panel = f"{row['k']} latents for 3 features on" if row["k"] != 3 else "3 latents for 3 on"
    place = {"model": panel, "dictionary": row["code"], "score": score}
    rows.append(place | {"estimate": estimate, "low": low, "high": high})
picture = figures.render(figures.recovery_bars, pa.Table.from_pylist(rows))
for file in picture.write(options.out, "absorption"):
    print("  ", file)
