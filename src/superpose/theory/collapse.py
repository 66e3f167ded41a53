"""Correlated features at their best: from one direction a set, their principal component, apart."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from superpose.features import Features
from superpose.theory.optimum import Optimum, optima

_TOGETHER = 0.95
_REPRESENTED = 0.25


class Rung(NamedTuple):
    """One density of the ladder: how many sets of the optimum have collapsed."""

    p: float
    collapsed: int
    optimum: Optimum


def collapsed_sets(
    W: Float[Tensor, "*run n m"], size: int, *, together: float = _TOGETHER
) -> Bool[Tensor, "*run sets"]:
    """Whether the members of each set of `size` features share one direction.

    A set has collapsed when every two of its members have a cosine above `together` and all
    norms exceed 1/4: the model keeps their principal component and gives back its share to
    each. A set that the model ignores has not collapsed.
    Raises ValueError when n is not a whole number of sets.
    Source: Toy Models of Superposition, section 6 (collapse of correlated features).

    >>> import torch
    >>> collapsed_sets(torch.tensor([[0.7, 0.0], [0.7, 0.0], [0.0, 1.0], [1.0, 0.0]]), size=2)
    tensor([ True, False])
    """
    *run, n, m = W.shape
    if size < 1 or n % size:
        raise ValueError(f"collapsed_sets(size={size}): n={n} is not a whole number of sets")
    sets = W.double().reshape(*run, n // size, size, m)
    norm = sets.norm(dim=-1)
    cosine = (sets @ sets.mT) / (norm[..., :, None] * norm[..., None, :]).clamp(min=1e-300)
    return (cosine.flatten(-2) > together).all(-1) & (norm > _REPRESENTED).all(-1)


def collapse_ladder(
    p: Iterable[float],
    *,
    sets: int = 3,
    size: int = 2,
    m: int = 2,
    starts: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Rung, ...]:
    """How many correlated sets collapse at the optimum, for each density in turn.

    Dense correlated sets are best stored as their principal component (for a pair: both members
    at $1/\\sqrt 2$, which costs $p/12$ where keeping one costs $v$), sparse ones feature by
    feature. Each density also starts from the minima of its neighbours (see `optima`).
    Source: Toy Models of Superposition, section 6.

    >>> [rung.collapsed for rung in collapse_ladder([0.5], sets=2, m=1, starts=4)]
    [2]
    """
    densities = list(p)
    worlds = [Features.correlated(sets=sets, size=size, p=each) for each in densities]
    found = optima(worlds, m, starts=starts, progress=progress)
    return tuple(
        Rung(q, int(collapsed_sets(best.W, size).sum()), best)
        for q, best in zip(densities, found, strict=True)
    )
