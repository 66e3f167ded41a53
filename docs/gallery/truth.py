"""A feature that is a circle has no direction of its own: dictionaries of rays tile its plane.

The world has one circular feature, at an angle that is uniform in a plane, and ordinary ones. An
autoencoder spends as many latents as it can spare on the circle, spread round it, and one on each
of the others.

    python docs/gallery/truth.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import torch

import superpose as sp
from superpose import figures

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="train for a moment only")
parser.add_argument("--out", type=Path, default=Path(__file__).parent)
options = parser.parse_args()

linear, spare, samples = 12, 8, 50_000 if options.quick else 1_000_000
features = sp.truth.Together(
    sp.truth.Circles(count=1, p=0.3), sp.truth.Firing(n=linear, p=0.1, amplitude=sp.Uniform())
)
# Orthogonal directions, so that the circle is all that is hard about this world.
d = features.n
world = sp.truth.Mixture(features, sp.truth.equiangular(d, d, cosine=0.0, seed=1))

code, training = sp.TopK(d_sae=linear + spare, k=2), sp.SAETraining(samples=samples, lr=1e-2)
sae = sp.unmix(world, code, training, seeds=3)
plane, others = world.directions[:2], world.directions[2:]
found = sp.match(sae, others).interval("recall")
print(f"ordinary features found: {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]")
in_plane = sae.directions @ plane.T  # [seeds, latents, 2]
for seed, shadow in enumerate(in_plane):
    rays = shadow[shadow.norm(dim=1) > 0.7]
    angle = torch.atan2(rays[:, 1], rays[:, 0]).sort().values
    gaps = torch.diff(angle, append=angle[:1] + 2 * torch.pi).rad2deg()
    widest, narrowest = gaps.max().item(), gaps.min().item()
    print(f"seed {seed}: {len(rays)} latents in the plane, {narrowest:.0f} to {widest:.0f}° apart")
picture = figures.render(figures.direction_plot, in_plane[0].numpy())
for file in picture.write(options.out, "truth"):
    print("  ", file)
