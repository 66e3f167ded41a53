"""What a sparse autoencoder has to beat: fixed and fitted dictionaries that nobody trained so.

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


def pca(acts: Activations | Float[Tensor, "samples d_in"], components: int | None = None) -> SAE:
    """Principal components about the mean, those of largest variance first: 2r rays.

    By default all of the spread's rank r. Raises ValueError when all samples are equal, and for a
    number of components outside 1 to r.

    >>> pca(torch.tensor([[0.0, 1.0], [0.0, 3.0]])).directions.round().abs()
    tensor([[[0., 1.],
             [0., 1.]]])
    """
    x = _table(acts)
    centre, lines, rank = _principal(x, "pca")
    if components is not None and not 1 <= components <= rank:
        raise ValueError(
            f"pca(components={components!r}): the samples spread over {rank} dimensions, so there "
            f"are 1 to {rank} components"
        )
    W = torch.from_numpy(lines[:components].astype(np.float32))
    return _rays(W.mT.contiguous(), W, torch.from_numpy(centre.astype(np.float32)))


def ica(acts: Activations | Float[Tensor, "samples d_in"], seed: int = 0) -> SAE:
    """Independent components (FastICA) of the activations: 2r rays, r the rank of their spread.

    Components that did not converge are told in `advice`. Raises ValueError when all samples are
    equal. Source: Hyvärinen & Oja 2000.
    """
    # scikit-learn takes longer to import than the rest of the package, and only this needs it.
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    x = _table(acts)
    centre, _, rank = _principal(x, "ica")
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


def sparse_dictionary(
    acts: Activations | Float[Tensor, "samples d_in"],
    d_sae: int,
    penalty: float = 0.1,
    seed: int = 0,
    epochs: int = 10,
) -> "Lasso":
    r"""Sparse dictionary learning, online, with non-negative amplitudes.

    In units in which the mean squared norm about the mean is 1 it minimises the mean of
    $\frac12 \|x - z D\|^2 + \alpha \|z\|_1$ over D of rows no longer than 1 and z ≥ 0, α the
    `penalty`: scikit-learn's MiniBatchDictionaryLearning. No encoder is learned: each sample is
    solved for. Raises ValueError when all samples are equal, for fewer than one latent or epoch,
    and for a penalty below 0. Source: Mairal et al. 2009.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning

    if d_sae < 1 or epochs < 1 or not 0.0 <= penalty < np.inf:
        raise ValueError(
            f"sparse_dictionary(d_sae={d_sae!r}, penalty={penalty!r}, epochs={epochs!r}): at least "
            "one latent and one epoch, and a finite penalty of at least 0"
        )

    x = _table(acts)
    centre, _, _ = _principal(x, "sparse_dictionary")
    scale = float(np.sqrt(((x - centre) ** 2).sum(1).mean()))
    model = MiniBatchDictionaryLearning(
        n_components=d_sae,
        alpha=penalty,  # pyright: ignore[reportArgumentType]
        max_iter=epochs,
        fit_algorithm="cd",
        positive_code=True,
        # scikit-learn takes 32 bits.
        random_state=seed % 2**32,
    )
    model.fit((x - centre) / scale)
    rows = torch.from_numpy(model.components_.astype(np.float32))
    return Lasso(
        torch.nn.functional.normalize(rows, dim=-1),
        torch.from_numpy(centre.astype(np.float32)),
        penalty * scale,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Lasso:
    r"""A fixed dictionary whose amplitudes are solved for, sample by sample.

    $z = \arg\min_{z \ge 0} \frac12 \|x - b - z D\|^2 + \alpha \|z\|_1$ with the unit
    `directions` D, `bias` b and `penalty` α, by scikit-learn's coordinate descent.

    >>> z = Lasso(torch.eye(2), torch.zeros(2), 0.5).encode(torch.tensor([[2.0, 0.25]]))
    >>> z.round(decimals=3)
    tensor([[1.5000, 0.0000]])
    """

    directions: Float[Tensor, "d_sae d_in"]
    bias: Float[Tensor, " d_in"]
    penalty: float

    def encode(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The amplitudes that minimise the loss."""
        from sklearn.decomposition import sparse_encode

        code = sparse_encode(
            # In float32 the tolerance lies below the rounding, and no solve would end.
            (x - self.bias).double().numpy(),
            self.directions.double().numpy(),
            algorithm="lasso_cd",
            alpha=self.penalty,
            positive=True,
            max_iter=10_000,
        )
        return torch.from_numpy(np.asarray(code, np.float32))

    def decode(self, z: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """The sum of the directions by their amplitudes, and the bias."""
        return z @ self.directions + self.bias


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


def _table(acts: Activations | Tensor) -> Float[np.ndarray, "samples d_in"]:
    return (acts if isinstance(acts, Activations) else Activations(acts)).x.cpu().double().numpy()


def _principal(
    x: Float[np.ndarray, "samples d_in"], call: str
) -> tuple[Float[np.ndarray, " d_in"], Float[np.ndarray, "rank d_in"], int]:
    """Mean, principal axes in order of their variance, and rank of the spread."""
    centre = x.mean(0)
    values, axes = np.linalg.eigh((x - centre).T @ (x - centre))
    # A hundred-thousandth of the largest deviation is rounding.
    rank = int((values > 1e-10 * values[-1]).sum()) if values[-1] > 0 else 0
    if rank == 0:
        raise ValueError(f"{call}: all samples are equal, so there is nothing to un-mix")
    lines = axes.T[::-1]
    return centre, lines[:rank], rank


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
