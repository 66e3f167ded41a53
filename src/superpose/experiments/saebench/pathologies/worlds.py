"""What the experiments on pathologies share: orthogonal worlds, and one training a seed."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from superpose.truth import Firing, Mixture, equiangular
from superpose.unmix import SAE, Code, SAETraining, stream, unmix
from superpose.unmix.members import Member
from superpose.unmix.weights import Layout, fold

TRAINING = SAETraining(samples=256_000, batch=256, lr=1e-2)
_DATA = 2**31  # what is trained on is not what is scored
DRAWN = 32_768
"""Samples of a world that a dictionary is trained on, again and again."""


def orthogonal(firing: Firing, d: int, seed: int) -> Mixture:
    """A world of orthogonal unit directions, turned at random: nothing is in superposition."""
    return Mixture(firing, equiangular(firing.n, d, 0.0, seed))


def trained(
    world: Mixture, codes: Sequence[Code], training: SAETraining | None, seed: int
) -> list[SAE]:
    """One dictionary a code, from data and first weights of the seed's own."""
    x = world.sample(DRAWN, _DATA + seed).x
    found = unmix(x, codes, training or TRAINING, seeds=1, seed=seed)
    return [stack[0] for stack in found]


def from_truth(truth: Mixture, code: Code, training: SAETraining | None, seed: int) -> SAE:
    """One dictionary trained from the true directions as its encoder and decoder.

    The decoder's bias begins where no feature is on. The width is the number of features.
    """
    training = training or TRAINING
    x = truth.sample(DRAWN, _DATA + seed).x
    with stream.open(x, training.batch, seed) as batches:
        layout = Layout(batches.d_in, code.d_sae, batches.d_out, code.extras)
        member = Member(code, training, layout, (seed, 0), torch.device("cpu"))
        parts = layout.views(member.theta)
        unit = torch.nn.functional.normalize(truth.directions, dim=-1).numpy()
        parts["E"][:] = parts["W_dec"][:] = unit
        units = batches.units
        parts["b_dec"][:] = (truth.bias.numpy() - units.centre) / units.scale
        for _ in range(training.steps):
            batch = batches.batch()
            member.step(batch.x, batch.target)
        folded = fold(member.weights(), units, units)
    weights = (folded.W_enc, folded.b_enc, folded.W_dec, folded.b_dec)
    return SAE(*weights, code, extra=folded.extra)


def cosines(sae: SAE, world: Mixture) -> Float[np.ndarray, "n d_sae"]:
    """Of each true direction with each latent."""
    unit = torch.nn.functional.normalize(world.directions, dim=-1)
    return (unit @ sae.directions.mT).double().numpy()


def own_latents(cosine: Float[np.ndarray, "n d_sae"]) -> Int[np.ndarray, " n"]:
    """The latent of each feature in the one-to-one matching of the largest total cosine."""
    feature, latent = linear_sum_assignment(cosine, maximize=True)
    own = np.full(len(cosine), -1)
    own[feature] = latent
    return own


def encoder_along(sae: SAE, world: Mixture) -> Float[np.ndarray, "n d_sae"]:
    """How much each latent's pre-activation grows with each feature."""
    return (world.directions @ sae.W_enc).double().numpy()


def scale_of(x: Float[Tensor, "samples d"]) -> float:
    """The unit of training: the root of the mean squared norm about the mean."""
    wide = x.double()
    return float(((wide - wide.mean(0)) ** 2).sum(-1).mean().sqrt())
