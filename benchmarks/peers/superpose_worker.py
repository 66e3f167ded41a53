"""Trains with superpose on request, by `sp.unmix` as a user calls it (serving.py).

The clock is the function that hears of progress, after each step; a stack counts the steps of all
its members. The samples lie in memory, and the batches are superpose's own.
"""

import torch
from serving import Batches, Learned, serve

import superpose as sp


def code_of(settings: dict, k: int):
    """The code in superpose's units of training, in which the mean squared norm is 1."""
    width, scale = settings["width"], settings["scale"]
    match settings["code"]:
        case "topk":
            return sp.unmix.TopK(d_sae=width, k=k)
        case "batchtopk":
            return sp.unmix.BatchTopK(d_sae=width, k=k)
        case "matryoshka":
            return sp.unmix.Matryoshka(d_sae=width, k=k, widths=tuple(settings["widths"]))
        case "l1":
            return sp.unmix.L1(d_sae=width, coefficient=settings["coefficient"] / scale)
        case _:
            return sp.unmix.JumpReLU(
                d_sae=width,
                l0=float(k),
                strength=settings["strength"] / scale**2,
                bandwidth=settings["bandwidth"] / scale,
            )


def train(settings: dict, batches: Batches) -> Learned:
    """One training from the first step to the last; of a stack, what its first member learned."""
    recipe = sp.unmix.SAETraining(
        samples=settings["steps"] * settings["batch"],
        batch=settings["batch"],
        lr=settings["lr"],
        warmup=settings["warmup"],
        decay=settings["decay"],
        dead_after=settings["dead_after"],
    )
    codes = [code_of(settings, k) for k in settings.get("stack", [settings["k"]])]
    saes = sp.unmix(
        sp.Activations(batches.x),
        codes,
        recipe,
        seeds=settings.get("seeds", 1),
        seed=settings["seed"],
        progress=lambda done, _: batches.pace.step(done),
    )
    sae = saes[0][0]

    def apply(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = sae.encode(x)
        return z, sae.decode(z)

    return Learned(sae.directions, apply)


if __name__ == "__main__":
    serve(train)
