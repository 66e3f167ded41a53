r"""Which polytope: the orthogonal factors a model packs its features into, and their names.

Features of one factor overlap, features of different factors do not, so a factor is a
connected component of the graph of overlaps. Four directions at right angles in a plane are
therefore two digons, an octahedron is three, and a triangular bipyramid is a triangle and a
digon.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from superpose.measures import dimensionality, represented

# Two features overlap when |cos| is above this. Converged models leave 0.05 or less between
# factors while they fall apart into factors at all; the smallest overlap that holds a named
# factor together is 1/d, of the simplex in d dimensions, so simplices are named up to d = 9.
OVERLAP = 0.1
# Directions span a dimension when its singular value is above this share of the largest.
RANK = 0.1
# A factor is named when its cosines are this close (root mean square) to those of the ideal:
# directions about 5 degrees from their places. Of random directions 0.3 % of triples in a plane
# pass for a triangle and none in thousands for any larger shape. Models of equal features come
# within 0.02; unequal importance stretches a pentagon by up to 0.1, which is then irregular.
TOLERANCE = 0.08


@dataclass(frozen=True, slots=True)
class Factor:
    """Features that overlap with each other and with no others.

    `label` names the shape, `features` are the members' indices, `dim` is the dimension they
    span, `dimensionality` the mean of their D_i (`dim` over the number of members when they
    share it fully) and `error` the root-mean-square difference of their cosines, sorted, from
    those of the nearest ideal shape of that size: 0 is perfect, infinity says that no ideal
    of that size is known.
    """

    label: str
    features: tuple[int, ...]
    dim: int
    dimensionality: float
    error: float


def classify(W: Float[Tensor, "*run n m"]) -> list:
    r"""The factors of a model, by their first feature; for a stack, nested lists of them.

    Keeps the represented features (norm above 1/2), joins those with $|\cos|$ > 0.1 and
    compares the directions (not the norms) of each joined set with the ideal shapes of the
    same size and dimension: "dedicated" (a feature alone), "digon", "triangle", "pentagon" and
    on to k-gons, "tetrahedron", "5-cell" and on to d-simplices, "square antiprism", "cube",
    "icosahedron". "collapsed pair" are two features along one direction, told apart by nothing.
    What is near none of these is "irregular k in d". A model with weights that are not finite is
    one "diverged" factor of infinite error.
    Source: Toy Models of Superposition, section on the geometry of superposition (the graph
    and its polytopes).

    >>> import torch
    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.3]])
    >>> [(factor.label, factor.features) for factor in classify(W)]
    [('digon', (0, 1)), ('dedicated', (2,))]
    """
    weights = W.detach().double().cpu()
    kept, share = represented(weights).numpy(), dimensionality(weights).numpy()
    return _nested(weights.numpy(), kept, share)


def summary(factors: Sequence[Factor]) -> str:
    """The shapes and how many of each, those with the most room for a feature first.

    Two models have the same summary when they hold the same shapes, whichever features are
    in them.

    >>> pair = Factor("digon", (0, 1), 1, 0.5, 0.0)
    >>> summary([pair, Factor("dedicated", (2,), 1, 1.0, 0.0), pair])
    '1 dedicated + 2 digons'
    """
    if not factors:
        return "nothing represented"
    counts = Counter((len(f.features) / f.dim, f.dim, f.label) for f in factors)
    return " + ".join(_counted(n, label) for (_, _, label), n in sorted(counts.items()))


def _nested(
    W: Float[np.ndarray, "*run n m"],
    kept: Bool[np.ndarray, "*run n"],
    share: Float[np.ndarray, "*run n"],
) -> list:
    if W.ndim == 2:
        return _factors(W, kept, share)
    return [_nested(*member) for member in zip(W, kept, share, strict=True)]


def _factors(
    W: Float[np.ndarray, "n m"], kept: Bool[np.ndarray, " n"], share: Float[np.ndarray, " n"]
) -> list[Factor]:
    if not np.isfinite(W).all():
        return [Factor("diverged", tuple(range(len(W))), W.shape[1], np.nan, np.inf)]
    (index,) = np.nonzero(kept)
    if index.size == 0:
        return []
    directions = W[index] / np.linalg.norm(W[index], axis=1, keepdims=True)
    cosines = directions @ directions.T
    _, component = connected_components(np.abs(cosines) > OVERLAP, directed=False)
    order = np.argsort(component, kind="stable")
    # Components are numbered by their first feature, so this keeps that order.
    members = np.split(order, np.cumsum(np.bincount(component))[:-1])
    return [
        _factor(
            cosines[np.ix_(own, own)], tuple(index[own].tolist()), float(share[index[own]].mean())
        )
        for own in members
    ]


def _factor(gram: Float[np.ndarray, "k k"], features: tuple[int, ...], share: float) -> Factor:
    k = len(features)
    if k == 1:
        return Factor("dedicated", features, 1, share, 0.0)
    # Singular values of the directions are the roots of the Gram matrix's eigenvalues.
    spectrum = np.linalg.eigvalsh(gram)
    dim = int((spectrum > RANK**2 * spectrum[-1]).sum())
    cosines = _sorted_cosines(gram)
    errors = {label: _distance(cosines, ideals) for label, ideals in _ideals(k, dim).items()}
    label = min(errors, key=errors.__getitem__, default="")
    error = errors.get(label, np.inf)
    if error > TOLERANCE:
        label = f"irregular {k} in {dim}"
    return Factor(label, features, dim, share, error)


def _distance(cosines: Float[np.ndarray, " c"], ideals: Float[np.ndarray, "family c"]) -> float:
    return float(np.sqrt(((cosines - ideals) ** 2).mean(1)).min())


def _sorted_cosines(gram: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " c"]:
    return np.sort(gram[np.triu_indices(len(gram), 1)])


@cache
def _ideals(k: int, d: int) -> dict[str, Float[np.ndarray, "family c"]]:
    """Sorted cosines of every named shape of k directions in d dimensions, one row a member."""
    shapes: dict[str, list[np.ndarray]] = {}
    if (k, d) == (2, 1):
        shapes["digon"] = [np.array([[1.0], [-1.0]])]
        shapes["collapsed pair"] = [np.array([[1.0], [1.0]])]
    elif d == 2 and k not in (2, 4):  # a square falls into two digons
        shapes[_K_GONS.get(k, f"{k}-gon")] = [_k_gon(k)]
    elif k == d + 1 and OVERLAP * d < 1:
        shapes[_SIMPLICES.get(d, f"{d}-simplex")] = [_simplex(d)]
    for label, (size, shape) in _SOLIDS.items():
        if (k, d) == size:
            shapes[label] = shape()
    return {
        label: np.stack([_sorted_cosines(points @ points.T) for points in family])
        for label, family in shapes.items()
    }


def _k_gon(k: int) -> Float[np.ndarray, "k 2"]:
    angle = 2 * np.pi * np.arange(k) / k
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _simplex(d: int) -> Float[np.ndarray, "k k"]:
    centred = np.eye(d + 1) - 1 / (d + 1)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _antiprisms() -> list[Float[np.ndarray, "8 3"]]:
    """Square antiprisms from flat to tall: what minimises the loss depends on the density.

    z² is 1/3 for the tight frame, .314 for the Thomson problem and .308 for its ReLU variant.
    """
    return [_prism(z2, np.pi / 4) for z2 in np.linspace(0.28, 0.36, 17)]


def _prism(z2: float, twist: float) -> Float[np.ndarray, "8 3"]:
    turn = np.arange(4) * np.pi / 2
    angle = np.concatenate([turn, turn + twist])
    z = np.sqrt(z2) * np.repeat([1.0, -1.0], 4)
    radius = np.sqrt(1 - z2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)


def _icosahedron() -> Float[np.ndarray, "12 3"]:
    golden = (1 + np.sqrt(5)) / 2
    signs = np.array([[a, b * golden] for a in (1, -1) for b in (1, -1)])
    face = np.column_stack([np.zeros(4), signs])
    points = np.concatenate([np.roll(face, shift, axis=1) for shift in range(3)])
    return points / np.linalg.norm(points, axis=1, keepdims=True)


_K_GONS = {3: "triangle", 5: "pentagon", 6: "hexagon"}
_SIMPLICES = {3: "tetrahedron", 4: "5-cell"}
_SOLIDS: dict[str, tuple[tuple[int, int], Callable[[], list[np.ndarray]]]] = {
    "square antiprism": ((8, 3), _antiprisms),
    "cube": ((8, 3), lambda: [_prism(1 / 3, 0.0)]),
    "icosahedron": ((12, 3), lambda: [_icosahedron()]),
}


def _counted(count: int, label: str) -> str:
    if label == "dedicated":
        return f"{count} {label}"
    if label[0].isdigit() or label.startswith("irregular"):
        return f"{count} × {label}"
    if count == 1:
        return f"1 {label}"
    return f"{count} {label.removesuffix('on') + 'a' if label.endswith('hedron') else label + 's'}"
