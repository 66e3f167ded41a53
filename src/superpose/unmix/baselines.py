"""What a sparse autoencoder has to beat: neurons, random directions, and independent components.

A neuron or a component is a line, but a feature is a ray: it is active or not. Each line is given
to the scores as its two rays, ReLU of plus and of minus. That favours the baseline: no line can
recover two features that point opposite ways, its rays recover both; the reconstruction is exact;
and as at most one ray of a pair is active, a budget of k units buys as many rays as lines.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superpose.activations import Activations
from superpose.unmix.codes import L1
from superpose.unmix.sae import SAE


def neurons(d: int) -> SAE:
    """The basis as it stands: 2d rays, plus and minus each neuron.

    >>> neurons(2).encode(torch.tensor([[3.0, -1.0]]))
    tensor([[[3., 0., 0., 1.]]])
    """
    return _rays(torch.eye(d), torch.eye(d), torch.zeros(d))


def ica(acts: Activations | Float[Tensor, "samples d_in"], seed: int = 0) -> SAE:
    """Independent components (FastICA) of the activations: 2r rays, r the rank of their spread.

    Components that did not converge are told in `advice`. Raises ValueError when all samples are
    equal. Source: Hyvärinen & Oja 2000.
    """
    # scikit-learn takes longer to import than the rest of the package, and only this needs it.
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    x = (acts if isinstance(acts, Activations) else Activations(acts)).x.cpu().double().numpy()
    centre = x.mean(0)
    strength = np.linalg.svd(x - centre, compute_uv=False)
    rank = int((strength > 1e-5 * strength[0]).sum()) if strength[0] > 0 else 0
    if rank == 0:
        raise ValueError("ica: all samples are equal, so there is nothing to un-mix")
    # scikit-learn takes 32 bits.
    state = seed % 2**32
    model = FastICA(rank, whiten="unit-variance", random_state=state, max_iter=1000, tol=1e-4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x)
    stuck = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    length = np.linalg.norm(model.mixing_, axis=0)
    directions = torch.from_numpy((model.mixing_ / length).T.astype(np.float32))
    encoder = torch.from_numpy((model.components_.T * length).astype(np.float32))
    advice = f"ICA did not converge in {model.max_iter} iterations: give it more samples"
    return _rays(
        encoder,
        directions,
        torch.from_numpy(centre.astype(np.float32)),
        advice=(advice,) if stuck else (),
    )


def random_dictionary(d_in: int, d_sae: int, seed: int = 0) -> "Pursuit":
    """`d_sae` directions, uniform on the sphere, encoded by matching pursuit."""
    rows = np.random.default_rng(seed).standard_normal((1, d_sae, d_in), np.float32)
    return Pursuit(torch.nn.functional.normalize(torch.from_numpy(rows), dim=-1))


@dataclass(frozen=True, slots=True, eq=False)
class Pursuit:
    """A fixed dictionary that encodes greedily: the best direction, then the best of what is left.

    Untrained directions have no encoder of their own, and products with overlapping directions
    would count the same part many times; greedy pursuit makes the most of each unit. It takes as
    many rounds as there are dimensions.
    """

    directions: Float[Tensor, "*run d_sae d_in"]

    def encode(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "*run batch d_sae"]:
        """Non-negative amplitudes of at most d_in directions."""
        gram = self.directions @ self.directions.mT
        left = x @ self.directions.mT
        z = torch.zeros_like(left)
        for _ in range(self.directions.shape[-1]):
            amplitude, place = left.max(-1, keepdim=True)
            amplitude = amplitude.relu()
            z = z.scatter_add(-1, place, amplitude)
            chosen = place.expand(*place.shape[:-1], gram.shape[-1])
            left = left - amplitude * gram.gather(-2, chosen)
        return z

    def decode(self, z: Float[Tensor, "*run batch d_sae"]) -> Float[Tensor, "*run batch d_in"]:
        """The sum of the directions by their amplitudes."""
        return z @ self.directions


def _rays(
    W_enc: Float[Tensor, "d_in lines"],
    W_dec: Float[Tensor, "lines d_in"],
    b_dec: Float[Tensor, " d_in"],
    advice: tuple[str, ...] = (),
) -> SAE:
    """Both rays of each line, as a stack of one."""
    latents = 2 * len(W_dec)
    return SAE(
        torch.cat([W_enc, -W_enc], 1)[None],
        torch.zeros(1, latents),
        torch.cat([W_dec, -W_dec])[None],
        b_dec[None],
        L1(d_sae=latents, coefficient=0.0),
        advice=advice,
    )
