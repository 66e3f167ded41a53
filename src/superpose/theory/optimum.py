"""The best models there are: minima of the exact loss, found from many starts.

Nothing is sampled and nothing is trained: the loss is the population's, so a minimum here is
what training could at best reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from superpose.features import Constant, Features
from superpose.theory import moments
from superpose.theory.arguments import refuse_finite
from superpose.theory.descent import descend
from superpose.theory.loss import expected_loss, feature_losses, loss_and_gradient

# In units of the loss of a model that outputs 0, which bounds the loss at any sensible minimum.
_SEARCH, _POLISH, _FINAL = 1e-5, 1e-6, 1e-8
_SAME_LOSS, _SAME_SHAPE = 1e-5, 0.02
_SLOPE = 1e-3
# So small that the loss starts below that of the dead output, to which it cannot then return.
_REVIVED = 0.003
_SHAKE = 0.03


@dataclass(frozen=True, slots=True)
class Minimum:
    """A model from which no small change lowers the loss.

    `loss` is the exact loss of `W` `[n, m]` and `b` `[n]`, float64. `starts` counts the random
    starts that ended here (or at a model related to this one by a rotation and a relabelling of
    features that the world does not tell apart). `slope` is the largest entry of the gradient,
    in units of the loss of a model that outputs 0; `converged` says that it is below 1e-3,
    which leaves about 1e-6 of the loss to gain where the curvature is of order 1.
    """

    loss: float
    W: Float[Tensor, "n m"]
    b: Float[Tensor, " n"]
    starts: int
    slope: float

    @property
    def converged(self) -> bool:
        """Whether the gradient has vanished to 1e-3."""
        return self.slope <= _SLOPE


@dataclass(frozen=True, slots=True)
class Optimum:
    """The minima found, lowest first, from `starts` random starts.

    `loss`, `W` and `b` are those of the lowest. A share `minima[k].starts / starts` of the
    starts reached minimum k.
    """

    minima: tuple[Minimum, ...]
    starts: int

    @property
    def loss(self) -> float:
        """The lowest loss found, a bound from above on the least loss there is."""
        return self.minima[0].loss

    @property
    def W(self) -> Float[Tensor, "n m"]:
        """The directions of the lowest minimum, `[n, m]`."""
        return self.minima[0].W

    @property
    def b(self) -> Float[Tensor, " n"]:
        """The bias of the lowest minimum, `[n]`."""
        return self.minima[0].b

    @property
    def advice(self) -> str:
        """What to do before quoting the loss as the least there is; empty when nothing is."""
        if not self.minima[0].converged:
            return f"the lowest minimum has a slope of {self.minima[0].slope:.1e}: add starts"
        if self.minima[0].starts < 2:
            return f"only {self.minima[0].starts} of {self.starts} starts got here: add starts"
        return ""


def optimum(world: Features, m: int, *, starts: int = 32, seed: int = 0) -> Optimum:
    r"""The best models of `world` with `m` hidden dimensions and a ReLU output.

    Minimises $\sum_i I_i E (x_i - \mathrm{ReLU}(W W^\top x + b)_i)^2$, the exact loss, over W
    and b by limited-memory BFGS from `starts` random starts: W normal with a scale drawn
    between 0.1 and 3, b between 0 and the mean of the world. The starts are points of one
    low-discrepancy sequence, so that few cover the space evenly and more only add to them.

    - An output that never fires has no gradient and would stay dead, though the constant
      $E x_i$ is better than 0. So outputs that do worse than that constant are set to it in
      turn, with a direction near 0, and the descent goes on where it lowers the loss.
    - Every minimum is shaken (normal steps of 0.03) and descended from again, which leaves
      saddles.
    - Two minima are the same when their losses agree to 1e-5 of the loss of a model that
      outputs 0, and to 0.02 the sorted biases, squared norms, overlaps and interferences of
      the features that the world does not tell apart (equal p, importance and kind of set).

    No search proves a minimum global. That many starts ended in the lowest is evidence; `advice`
    says where there is little.
    Raises ValueError for `m` or `starts` below 1, for a finite world, for constant magnitudes,
    whose loss has kinks, and where no feature has an importance.
    Source: Toy Models of Superposition, sections 3 and 7, on restarts and on minima side by side.

    >>> best = optimum(Features(n=2, p=0.1), m=1, starts=4)
    >>> round(best.loss, 5), best.W.shape
    (0.00332, torch.Size([2, 1]))
    """
    search = _Search(world, m, seed)
    return search.finish(search.explore(starts), starts)


def optima(
    worlds: Sequence[Features],
    m: int,
    *,
    starts: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Optimum, ...]:
    """The optimum of each of many worlds, each given its neighbours' minima as further starts.

    Each world gets its own random starts, as in `optimum`, then the minima of the world before
    it and, on a second pass back, those of the world after it. So `worlds` should run along a
    path on which the law changes little from one to the next, such as the rows of a plane in
    turn; where the number of features changes, nothing is handed on. A minimum that only a
    neighbour led to has `starts` 0. After each world of either pass `progress` is called with
    how many of the `2 len(worlds)` visits are done.

    >>> found = optima([Features(n=2, p=p) for p in (0.1, 0.11)], m=1, starts=4)
    >>> [round(each.loss, 4) for each in found]
    [0.0033, 0.004]
    """
    searches = [_Search(world, m, seed) for world in worlds]
    found: list[_Found] = []
    total = 2 * len(searches)
    for done, search in enumerate(searches, 1):
        here = search.explore(starts)
        found.append(search.extend(here, found[-1].x) if found else here)
        if progress:
            progress(done, total)
    for done, at in enumerate(reversed(range(len(searches))), len(searches) + 1):
        if at + 1 < len(searches):
            found[at] = searches[at].extend(found[at], found[at + 1].x)
        if progress:
            progress(done, total)
    return tuple(search.finish(each, starts) for search, each in zip(searches, found, strict=True))


def local_minima(
    W: Float[Tensor, "run n m"], b: Float[Tensor, "run n"], world: Features
) -> tuple[Minimum, ...]:
    """The minimum of the exact loss downhill from each of several models, in their order.

    No shaking and no reviving, so that branches can be compared; a model that is symmetric
    stays so but for rounding, even at a saddle. `starts` is 1 in each.
    Raises ValueError for shapes that do not fit the world or one another.

    >>> W, b = torch.tensor([[[0.9], [0.0]]]), torch.tensor([[0.0, 0.1]])
    >>> found = local_minima(W, b, Features(n=2, p=0.4, importance=0.1))
    >>> round(found[0].loss, 6)  # 0.1 v(0.4): the second feature is ignored
    0.009333
    """
    if W.ndim != 3 or b.shape != W.shape[:2] or W.shape[1] != world.n:
        raise ValueError(
            f"local_minima: W has shape {list(W.shape)} and b {list(b.shape)}; W is [run, n, m], "
            f"b [run, n] and n={world.n} (for one model pass W[None], b[None])"
        )
    search = _Search(world, W.shape[-1], 0)
    x = search.packed(W.detach().cpu().double(), b.detach().cpu().double())
    return search.minima(_Found(search.descent(x, _SEARCH)[0], np.ones(len(x), int)))


class _Found(NamedTuple):
    """Models of one world, packed, and how many random starts ended in each."""

    x: Float[np.ndarray, "run size"]
    counts: np.ndarray


class _Search:
    """One world's loss as a function of W and b packed in one row, in units of that of 0."""

    def __init__(self, world: Features, m: int, seed: int) -> None:
        if not isinstance(world, Features):
            raise TypeError(
                f"optimum: {world!r} is no world; pass Features(n=…, p=…), and to `optima` a "
                "sequence of them"
            )
        if m < 1:
            raise ValueError(f"optimum(m={m}): m counts hidden dimensions and is at least 1")
        refuse_finite("optimum", world, "train on its points instead, from several starts")
        self.world, self.m, self.seed = world, m, seed
        self.mean = moments.mean(world)
        self.square = np.diag(moments.second_moments(world))
        self.zero = float(self.square @ world.importances)
        _check(world, self.zero)
        self.alike = _alike(world)

    def explore(self, starts: int) -> _Found:
        """The distinct minima that random starts lead to."""
        if starts < 1:
            raise ValueError(f"optimum(starts={starts}): at least 1 start is needed")
        x = self.revived(self.descent(self.random(starts), _SEARCH)[0])
        found = self.merged(_Found(x, np.ones(starts, int)))
        rng = np.random.default_rng([self.seed, starts])
        shaken, value = self.descent(found.x + _SHAKE * rng.normal(size=found.x.shape), _SEARCH)
        lower = value < self.values(found.x, _SEARCH) - _SAME_LOSS / 10
        found.x[lower] = self.revived(shaken[lower])
        return self.merged(found)

    def extend(self, found: _Found, start: np.ndarray) -> _Found:
        """`found` with what further starts lead to, if they are of the same size."""
        if start.shape[1] != found.x.shape[1]:
            return found
        x = np.concatenate([found.x, self.revived(self.descent(start, _SEARCH)[0])])
        return self.merged(_Found(x, np.append(found.counts, np.zeros(len(start), int))))

    def finish(self, found: _Found, starts: int) -> Optimum:
        minima = self.minima(self.merged(found))
        return Optimum(tuple(sorted(minima, key=lambda each: each.loss)), starts)

    def random(self, starts: int) -> Float[np.ndarray, "starts size"]:
        """The first points of one scrambled Sobol sequence: even coverage, also by a few."""
        inside = self.world.n * self.m
        # SciPy calls it rng since 1.15, and still takes the older name.
        points = qmc.Sobol(inside + self.world.n + 1, seed=self.seed)  # pyright: ignore[reportCallIssue]
        u = points.random_base2(max(starts - 1, 0).bit_length())[:starts]
        scale = 0.1 * 30 ** u[:, -1:] / np.sqrt(self.m)
        W = scale * ndtri(u[:, :inside].clip(1e-9, 1 - 1e-9))
        return np.concatenate([W, self.mean * u[:, inside:-1]], 1)

    def packed(
        self, W: Float[Tensor, "run n m"], b: Float[Tensor, "run n"]
    ) -> Float[np.ndarray, "run size"]:
        return torch.cat([W.flatten(1), b], 1).numpy()

    def unpacked(self, x: Float[np.ndarray, "run size"]) -> tuple[Tensor, Tensor]:
        W, b = torch.from_numpy(x).split([self.world.n * self.m, self.world.n], 1)
        return W.reshape(len(x), self.world.n, self.m), b.contiguous()

    def values(self, x: np.ndarray, tolerance: float) -> Float[np.ndarray, " run"]:
        return expected_loss(*self.unpacked(x), self.world, tolerance=tolerance).numpy() / self.zero

    def descent(self, x: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        def function(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            loss, W, b = loss_and_gradient(*self.unpacked(at), self.world, tolerance=tolerance)
            return loss.numpy() / self.zero, self.packed(W, b) / self.zero

        end = descend(function, x, slope=1e-7, progress=tolerance * 1e-4)
        return end.x, end.value

    def revived(self, x: np.ndarray) -> np.ndarray:
        """Each row after its outputs that do worse than a constant had another chance, in turn."""
        x, n, m = x.copy(), self.world.n, self.m
        rng = np.random.default_rng([self.seed, n, m])
        at, tried = np.arange(len(x)), np.zeros((len(x), n), bool)
        for _ in range(2 * n):
            losses = feature_losses(*self.unpacked(x[at]), self.world, tolerance=_SEARCH).numpy()
            excess = (losses / (self.square - self.mean**2) - 1) * self.world.importances
            excess[tried[at]] = 0.0
            bad = excess.max(-1) > 1e-3
            at, worst = at[bad], excess.argmax(-1)[bad]
            if at.size == 0:
                break
            start, rows = x[at], np.arange(at.size)
            own = worst[:, None] * m + np.arange(m)
            start[rows[:, None], own] = _REVIVED * rng.normal(size=own.shape)
            start[rows, n * m + worst] = self.mean[worst]
            end, value = self.descent(start, _SEARCH)
            lower = value < self.values(x[at], _SEARCH) - _SAME_LOSS / 10
            tried[at, worst] = True
            tried[at[lower]] = False
            x[at[lower]] = end[lower]
        return x

    def merged(self, found: _Found) -> _Found:
        """The distinct rows of `found`, lowest first, each the lowest of those it stands for."""
        value = self.values(found.x, _SEARCH)
        W, b = self.unpacked(found.x)
        shape = _shape((W @ W.mT).numpy(), b.numpy(), self.alike)
        kept: list[int] = []
        total = np.zeros(len(value), int)
        for k in np.argsort(value, kind="stable"):
            same = [
                j
                for j in kept
                if value[k] - value[j] < _SAME_LOSS
                and np.abs(shape[k] - shape[j]).max() < _SAME_SHAPE
            ]
            total[same[0] if same else k] += found.counts[k]
            kept += [] if same else [int(k)]
        return _Found(found.x[kept], total[kept])

    def minima(self, found: _Found) -> tuple[Minimum, ...]:
        """The rows of `found`, descended from once more at a tight tolerance."""
        x, _ = self.descent(found.x, _POLISH)
        W, b = self.unpacked(x)
        loss = expected_loss(W, b, self.world, tolerance=_FINAL).numpy()
        _, W_slope, b_slope = loss_and_gradient(W, b, self.world, tolerance=_POLISH)
        slope = np.abs(self.packed(W_slope, b_slope)).max(-1) / self.zero
        return tuple(
            Minimum(float(loss[k]), W[k].clone(), b[k].clone(), count, float(slope[k]))
            for k, count in enumerate(found.counts.tolist())
        )


def _check(world: Features, zero: float) -> None:
    if isinstance(world.amplitude, Constant):
        raise ValueError(
            "optimum: with constant magnitudes the loss has kinks, at which a descent along its "
            "slopes ends short of the minimum; take magnitudes that have a density"
        )
    if zero == 0.0:
        raise ValueError(
            "optimum: all importances are 0, so that every model is as good; give one feature more"
        )


def _alike(world: Features) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Masks of the features, and of the pairs of features, that the world does not tell apart."""
    size, importance = world.law.size, world.importances
    of_set = np.sort(importance.reshape(world.sets, size), axis=1)
    traits = np.column_stack(
        [np.repeat(world.set_probability, size), importance, np.repeat(of_set, size, 0)]
    )
    _, kind = np.unique(traits, axis=0, return_inverse=True)
    kind = kind.ravel()
    together = np.arange(world.n) // size
    inside = together[:, None] == together
    pair = np.minimum.outer(kind, kind) * world.n + np.maximum.outer(kind, kind)
    upper = np.triu(np.ones((world.n, world.n), bool), 1)
    pairs = [
        (pair == value) & (inside == same) & upper
        for value in np.unique(pair)
        for same in (False, True)
    ]
    return [kind == value for value in np.unique(kind)], [each for each in pairs if each.any()]


def _shape(
    gram: Float[np.ndarray, "run n n"],
    b: Float[np.ndarray, "run n"],
    alike: tuple[list[np.ndarray], list[np.ndarray]],
) -> Float[np.ndarray, "run count"]:
    """Numbers that neither a rotation nor a relabelling of features that are alike changes.

    Sorting moves no entry by more than the inputs move, so that close models have close shapes.
    """
    norm = np.diagonal(gram, axis1=1, axis2=2)
    overlap = (gram**2).sum(-1) - norm**2
    features, pairs = alike
    parts = [np.sort(each[:, mask], 1) for mask in features for each in (b, norm, overlap)]
    return np.concatenate(parts + [np.sort(gram[:, mask], 1) for mask in pairs], 1)
