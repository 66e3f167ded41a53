"""Is there superposition? Six clouds that look alike, and a test that tells them apart.

All are sparse and arbitrarily rotated, and all but one reject a Gaussian. Only two have more
features than dimensions, and of these the digons hide: two features that point opposite ways look
like one feature with both signs, so the test counts such axes instead of claiming them.

    python docs/gallery/presence.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ortho_group

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="fewer samples")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()
samples, m = 400 if options.quick else 2_000, 2

rotation = torch.from_numpy(ortho_group.rvs(m, random_state=0)).float()
angle = 2 * np.pi * torch.arange(5) / 5
pentagon = torch.stack([angle.cos(), angle.sin()], 1).float()
digons = torch.cat([torch.eye(m), -torch.eye(m)])
worlds = {
    "two features": (sp.Features(n=2, p=0.1), torch.eye(m)),
    "two correlated features": (sp.Features.correlated(sets=1, size=2, p=0.2), torch.eye(m)),
    "two signed features": (sp.Features(n=2, p=0.1, signed=True), torch.eye(m)),
    "two digons": (sp.Features(n=4, p=0.05), digons),
    "a pentagon": (sp.Features(n=5, p=0.05), pentagon),
}
data = {"a Gaussian": torch.randn(samples, m, generator=torch.Generator().manual_seed(0))}
for name, (world, W) in worlds.items():
    noise = 0.01 * torch.randn(samples, m, generator=torch.Generator().manual_seed(1))
    data[name] = world.sample(samples, seed=1) @ W @ rotation + noise

for name, x in data.items():
    found = sp.superposition_test(x)
    verdict = "superposition" if found.present else "not shown"
    print(f"{name:24} p = {found.p_value:.2f}  gain {found.gain:4.2f}  {verdict:13}", end="")
    print(f"  {found.two_sided} two-sided axes")
picture = figures.render(figures.clouds, {name: x.numpy() for name, x in data.items()})
for file in picture.write(options.out, "presence"):
    print("  ", file)
