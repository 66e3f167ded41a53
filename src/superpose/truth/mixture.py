"""Worlds whose truth is known: samples that are sums of directions of sparse features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from superpose.features import Features
from superpose.kernels.truth import rows
from superpose.truth.drawing import NOISE, Active, Batch, Plan, World
from superpose.truth.firing import Circles, Together

# Samples that are asked for without a number come from batches of this size, numbered from here on.
_SIZE, _FIRST = 1024, 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A batch: the samples x `[batch, d]`, and the features that are in them as CSR.

    Sample t has the active features `index[indptr[t]:indptr[t + 1]]`, in ascending order, of the
    values beside them, of `n`.
    """

    x: Float[Tensor, "batch d"]
    indptr: Int[np.ndarray, " ends"]
    index: Int[np.ndarray, " active"]
    value: Float[np.ndarray, " active"]
    n: int

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sparse(self) -> csr_array:
        """The features, float32 CSR `[batch, n]`."""
        return csr_array((self.value, self.index, self.indptr), shape=(len(self), self.n))

    def f(self) -> Float[Tensor, "batch n"]:
        """The features, dense."""
        return torch.from_numpy(self.sparse.toarray())

    def active(self) -> Bool[Tensor, "batch n"]:
        """Which feature is active in which sample."""
        on = np.ones(len(self.index), bool)
        return torch.from_numpy(
            csr_array((on, self.index, self.indptr), shape=(len(self), self.n)).toarray()
        )

    def l0(self) -> float:
        """Active features a sample."""
        return len(self.index) / len(self)


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """Directions to be found, `[k, d]`, and the feature of each, `[k]`.

    A ray is `part` of its feature and of the one after: (1, 0), or (-1, 0) for the negative values
    of a signed one, or the cosine and sine of its angle on a circle.

    >>> world = Mixture(Features(n=2, p=1.0, signed=True), torch.eye(2))
    >>> held_out = world.sample(4)
    >>> rays = world.rays()
    >>> torch.allclose(rays.activity(held_out).f() @ rays.directions, held_out.x)
    True
    """

    directions: Float[Tensor, "k d"]
    feature: Int[np.ndarray, " k"]
    part: Float[np.ndarray, "k 2"]

    def activity(self, drawn: Drawn) -> Drawn:
        """The same samples with rays as their features: what `match` asks for beside `directions`.

        Of the rays of a feature at most one is active, that with the largest projection of the
        feature's values, which is its amplitude: of a signed feature the ray of its sign, of a
        circle the nearest one.
        """
        k = len(self.feature)
        rows = [np.minimum(self.feature + place, drawn.n - 1) for place in (0, 1)]
        onto = coo_array(
            (self.part.T.ravel(), (np.concatenate(rows), np.tile(np.arange(k), 2))),
            shape=(drawn.n, k),
        )
        projected = coo_array(drawn.sparse @ onto.tocsr())
        positive = projected.data > 0
        sample, ray = (axis[positive].astype(np.int64) for axis in projected.coords)
        value = projected.data[positive].astype(np.float32)
        which = sample * drawn.n + self.feature[ray]
        order = np.lexsort((-value, which))
        first = order[np.unique(which[order], return_index=True)[1]]
        kept = first[np.lexsort((ray[first], sample[first]))]
        counts = np.bincount(sample[kept], minlength=len(drawn))
        indptr = np.concatenate([[0], counts.cumsum()])
        return Drawn(drawn.x, indptr, ray[kept].astype(np.int32), value[kept], k)


class Mixture:
    r"""Samples that are sums of known directions: $x = \sum_i f_i W_i + b + \sigma \varepsilon$.

    `features` say what f is: `Features`, or this module's `Firing`, `Circles` or `Together`.
    `directions` W are `[n, d]`, as long as they are; `bias` b is `[d]` or none; `noise` is the
    deviation σ of normal noise in every dimension. Batches are drawn from their number and a seed,
    at a cost that follows the active features. `configuration` is that of SAELens, where the
    world came from one.
    Raises ValueError for shapes that do not fit, and numbers that are not finite.

    >>> world = Mixture(Features(n=3, p=0.5), torch.eye(3, 2), noise=0.1)
    >>> drawn = world.draw(batch=4, number=0, seed=0)
    >>> drawn.x.shape, drawn.f().shape, drawn.active().dtype
    (torch.Size([4, 2]), torch.Size([4, 3]), torch.bool)
    """

    __slots__ = (
        "_beyond",
        "_plan",
        "_rows",
        "bias",
        "configuration",
        "directions",
        "features",
        "noise",
    )

    def __init__(
        self,
        features: World,
        directions: Float[Tensor, "n d"] | NDArray,
        bias: Float[Tensor, " d"] | NDArray | None = None,
        noise: float = 0.0,
    ) -> None:
        W = torch.as_tensor(directions).detach().cpu().float().contiguous()
        if W.ndim != 2 or 0 in W.shape or len(W) != features.n:
            raise ValueError(
                f"Mixture: directions of shape {list(W.shape)} for {features.n} features; they are "
                "[n, d], a row for each feature"
            )
        b = (
            torch.zeros(W.shape[1])
            if bias is None
            else torch.as_tensor(bias).detach().cpu().float()
        )
        if b.shape != W.shape[1:]:
            raise ValueError(f"Mixture: a bias of shape {list(b.shape)} in {W.shape[1]} dimensions")
        if not (torch.isfinite(W).all() and torch.isfinite(b).all() and 0.0 <= noise < np.inf):
            raise ValueError("Mixture: directions, bias and noise are finite, and noise at least 0")
        self.features, self.directions, self.bias, self.noise = features, W, b, float(noise)
        self.configuration: dict[str, Any] | None = None
        self._plan, self._rows = Plan(features), W.numpy()
        self._beyond: NDArray | None = None

    def __repr__(self) -> str:
        return f"Mixture(n={self.n}, d={self.d}, noise={self.noise:g})"

    @property
    def n(self) -> int:
        """The number of features whose directions are the truth."""
        return len(self.directions)

    @property
    def d(self) -> int:
        """The number of dimensions."""
        return self.directions.shape[1]

    @property
    def probability(self) -> Float[np.ndarray, " n"]:
        """How often each feature of the truth is active."""
        found = self.features.probability
        return found if self._beyond is None else found[self._beyond >= 0]

    def draw(self, batch: int, number: int, seed: int) -> Drawn:
        """Batch `number` of `batch` samples: a pure function of these and the seed.

        Raises ValueError for a batch below 1, and a number or seed outside 0 to 2⁶⁴ − 1.
        """
        for name, value, least in (("batch", batch, 1), ("number", number, 0), ("seed", seed, 0)):
            if not isinstance(value, int | np.integer) or not least <= value < 2**64:
                raise ValueError(f"draw({name}={value!r}): a whole number from {least} on")
        drawn = self._plan.draw(int(batch), int(number), int(seed))
        x = self._background(Batch(int(batch), int(number), int(seed)))
        rows.add(x, *drawn, self._rows)
        kept = drawn if self._beyond is None else _without(drawn, self._beyond)
        return Drawn(torch.from_numpy(x), *kept, self.n)

    def sample(self, samples: int, seed: int = 0) -> Drawn:
        """Samples that no numbered batch below 2⁶² has; fewer are the first of more.

        >>> world = Mixture(Features(n=3, p=0.5), torch.eye(3))
        >>> torch.equal(world.sample(5).x, world.sample(9).x[:5])
        True
        """
        if samples < 1:
            raise ValueError(f"sample({samples!r}): a number of samples from 1 on")
        parts = [self.draw(_SIZE, _FIRST + k, seed) for k in range(-(-samples // _SIZE))]
        ends = np.cumsum([0, *(len(part.index) for part in parts)])
        pairs = zip(parts, ends[:-1], strict=True)
        indptr = np.concatenate([[0], *(part.indptr[1:] + end for part, end in pairs)])
        indptr = indptr[: samples + 1]
        index = np.concatenate([part.index for part in parts])[: indptr[-1]]
        value = np.concatenate([part.value for part in parts])[: indptr[-1]]
        x = torch.cat([part.x for part in parts])[:samples]
        return Drawn(x, indptr, index, value, self.n)

    def rays(self, angles: int = 8) -> Rays:
        """The directions a dictionary of rays is to find, one or more for each feature.

        A feature that is not negative has one; a signed one has two, W and −W; a circle has as
        many as `angles`, evenly round its plane, since none of the plane's directions is special.
        """
        parts = self.features.parts if isinstance(self.features, Together) else (self.features,)
        found, owner, share, begin = [], [], [], 0
        for part in parts:
            W = self.directions[begin : begin + part.n]
            if isinstance(part, Circles):
                turn = 2.0 * torch.pi * torch.arange(angles) / angles
                plane = torch.stack([turn.cos(), turn.sin()], 1)
                found.append((plane @ W.reshape(-1, 2, self.d)).reshape(-1, self.d))
                owner.append(begin + 2 * np.repeat(np.arange(part.count), angles))
                share.append(np.tile(plane.numpy(), (part.count, 1)))
            else:
                signs = (1.0, -1.0) if isinstance(part, Features) and part.signed else (1.0,)
                found += [sign * W for sign in signs]
                owner += [begin + np.arange(len(W)) for _ in signs]
                share += [np.tile(np.array([sign, 0.0], np.float32), (len(W), 1)) for sign in signs]
            begin += part.n
        return Rays(torch.cat(found), np.concatenate(owner), np.concatenate(share))

    @classmethod
    def of(
        cls,
        run: Any,
        features: Features | None = None,
        threshold: float = 0.5,
        noise: float = 0.0,
    ) -> "Mixture":
        r"""The hidden layer of a trained toy model: $h = f W$ exactly, its truth the rows of W.

        `run` is a Run of one model (`run.best()`, `run[3]`), or a module of one with its
        `features`. Rows shorter than `threshold` are not represented: what they add is in the
        samples, but they are no part of `directions`, `n`, and the active features drawn.
        Raises ValueError for several models, for a hidden layer that is not linear, and where no
        row is long enough.

        >>> from superpose import ToyModel
        >>> from superpose.models import ToyNetwork
        >>> W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 0.0]])
        >>> toy = ToyNetwork(ToyModel(n=3, m=2), W, torch.zeros(3))
        >>> Mixture.of(toy, Features(n=3)).directions
        tensor([[1., 0.],
                [0., 1.]])
        """
        model, W, world = _trained(run, features)
        if model.hidden != "linear":
            raise ValueError(
                f"Mixture.of: the hidden layer is {model.hidden}(f W), where the features that are "
                "active together decide which units are on: no sum of directions, so there is no "
                "linear truth to hold a dictionary against. Train with hidden='linear', or score "
                "what features alone give, relu(W), with match"
            )
        kept = W.norm(dim=1) > threshold
        if not kept.any():
            raise ValueError(f"Mixture.of: no row of W is longer than {threshold:g}; none is kept")
        found = cls(world, W, noise=noise)
        if not kept.all():
            found._beyond = np.where(kept.numpy(), np.cumsum(kept.numpy()) - 1, -1).astype(np.int32)
            found.directions = found.directions[kept]
        return found

    def _background(self, batch: Batch) -> NDArray:
        """Bias and noise."""
        if self.noise == 0.0:
            return np.tile(self.bias.numpy(), (batch.size, 1))
        x = batch.stream(NOISE).standard_normal((batch.size, self.d), np.float32)
        x *= np.float32(self.noise)
        x += self.bias.numpy()
        return x


def _without(drawn: Active, renumbered: NDArray) -> Active:
    """The entries of the features that are kept, by their numbers among these."""
    kept = renumbered[drawn.index] >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return Active(before[drawn.indptr], renumbered[drawn.index[kept]], drawn.value[kept])


def _trained(run: Any, features: Features | None) -> tuple[Any, Tensor, Features]:
    """The model, its weights into the hidden layer, and its world."""
    if hasattr(run, "weights"):
        if features is None:
            raise ValueError("Mixture.of(module): pass its features, Mixture.of(module, features)")
        return run.model, run.weights()[0].detach(), features
    W, worlds = run.W_in, run.worlds
    if W.reshape(-1, *W.shape[-2:]).shape[0] != 1 or (features is None and len(worlds) != 1):
        raise ValueError(
            f"Mixture.of: a stack of {list(W.shape[:-2])} models; choose one, as run.best() or "
            "run[0]"
        )
    chosen: Sequence[Features] = worlds if features is None else (features,)
    return run.model, W.reshape(*W.shape[-2:]), chosen[0]
