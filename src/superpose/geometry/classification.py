"""Factors of a model and their names, for whole stacks of models at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import log, prod, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superpose.geometry.ideals import shapes, sorted_cosines, tolerance
from superpose.measures import dimensionality, feature_norms, represented

# Two features overlap when |cos| is above this. Converged models leave 0.05 or less between
# factors while they fall apart into factors at all.
OVERLAP = 0.1
# Directions span a dimension when its singular value is above this share of the largest.
RANK = 0.1
# Cosines held at once: 8 MB of them are still near the processor.
AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class Factor:
    r"""Features that overlap with each other and with no others.

    `label` names the shape, `features` are the members' indices, `dim` is the dimension they
    span and `dimensionality` the mean of their D_i (`dim` over the number of members when they
    share it fully). `error` is the root-mean-square difference of their cosines, sorted, from
    those of the nearest ideal shape, and `spectral_distance` that of the eigenvalues of their
    Gram matrix, $\sqrt{\frac1k \sum_i (\lambda_i - \lambda_i^*)^2}$: of the directions, whose
    eigenvalues have mean 1, and sorted. 0 is perfect, infinity says that no ideal of that size
    and dimension is known, NaN that it was not measured.
    """

    label: str
    features: tuple[int, ...]
    dim: int
    dimensionality: float
    error: float
    spectral_distance: float = np.nan


def noise_overlap(n: int) -> float:
    r"""What noise makes of orthogonality: the largest $|\cos|$ among all pairs of n features.

    $0.04 \sqrt{\ln(50 n (n-1))}$, at least 0.1: noise of 0.02 in each coordinate of unit
    vectors brings one of n (n-1)/2 orthogonal pairs beyond it in less than 1 % of models.

    >>> [round(noise_overlap(n), 3) for n in (3, 20, 80)]
    [0.1, 0.126, 0.142]
    """
    return max(OVERLAP, 0.04 * sqrt(log(max(1, 50 * n * (n - 1)))))


def classify(W: Float[Tensor, "*run n m"]) -> list:
    r"""The factors of a model, by their first feature; for a stack, nested lists of them.

    Keeps the represented features (norm above 1/2), joins those with $|\cos|$ > 0.1 and
    compares the directions (not the norms) of each joined set with the ideal shapes of the same
    size: "dedicated" (a feature alone), "digon", "triangle", "pentagon" and on to k-gons,
    "tetrahedron", "5-cell" and on to the 9-simplex, "square antiprism", "cube", "tricapped
    trigonal prism", "gyroelongated square bipyramid", "rectified 5-cell", "icosahedron".
    "collapsed pair" are two features along one direction, told apart by nothing. What is near
    none of these is "irregular k in d", unless it falls into named shapes when the overlaps below
    `noise_overlap` are cut. A model with weights that are not finite is one "diverged" factor of
    infinite error. What several factors make together, `polytope` says.

    A name asks that the sorted cosines are within `tolerance` of the ideal's and the eigenvalues
    of the Gram matrix within what that allows them. With a normal error of 0.02 in every
    coordinate of every direction, of 1,000 models each at least 98.9 % are recognised wholly
    (20 shapes alone, 12 unions of up to 13 factors, with 0 to 20 further dimensions). Random
    directions are given a name, to any of them, in 0.6 % of frames of three in a plane, 0.18 %
    of three in space, 0.04 % of four in a plane and at most 0.01 % of larger ones. Two in a plane
    are opposite within that noise in 3 %, which no tolerance can tell from a digon.
    Source: Toy Models of Superposition, section on the geometry of superposition (the graph
    and its polytopes).

    >>> import torch
    >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.3]])
    >>> [(factor.label, factor.features) for factor in classify(W)]
    [('digon', (0, 1)), ('dedicated', (2,))]
    """
    if not isinstance(W, Tensor) or W.ndim < 2:
        raise TypeError(
            f"classify: {type(W).__name__} of shape {list(np.shape(W))}; W is a torch tensor "
            "[*run, n, m], one row for each feature"
        )
    weights = W.detach().double().cpu()
    *stack, n, m = weights.shape
    models = weights.reshape(prod(stack), n, m)
    size = max(1, AT_ONCE // max(1, n * n))
    pieces = (_factors(models[i : i + size]) for i in range(0, len(models), size))
    return _nested(stack, chain.from_iterable(pieces))


def _nested(stack: list[int], found: Iterator[list[Factor]]) -> list:
    if not stack:
        return next(found)
    return [_nested(stack[1:], found) for _ in range(stack[0])]


class _Named(NamedTuple):
    """B joined sets of k features each: where they are and which shape they have."""

    run: Int[np.ndarray, " B"]
    members: Int[np.ndarray, "B k"]
    label: np.ndarray
    dim: Int[np.ndarray, " B"]
    error: Float[np.ndarray, " B"]
    spectral: Float[np.ndarray, " B"]
    named: Bool[np.ndarray, " B"]

    def where(self, keep: Bool[np.ndarray, " B"]) -> "_Named":
        return _Named(*(column[keep] for column in self))


def _factors(W: Float[Tensor, "run n m"]) -> list[list[Factor]]:
    finite = W.isfinite().all(-1).all(-1).numpy()
    W = W.where(W.new_tensor(finite)[:, None, None] > 0, 0.0)
    kept, share = represented(W).numpy(), dimensionality(W).numpy()
    # Features left out get zero directions, which overlap with nothing.
    scale = np.where(kept, feature_norms(W).numpy(), np.inf)
    directions = W.numpy() / scale[..., None]
    cosines = directions @ directions.swapaxes(-1, -2)
    m = W.shape[-1]
    factors = [[] for _ in W]
    for group in _named_sets(directions, cosines, kept):
        mean = np.take_along_axis(share[group.run], group.members, 1).mean(1)
        columns = (group.run, group.label, group.members, group.dim, mean, group.error)
        rows = zip(*(column.tolist() for column in (*columns, group.spectral)), strict=True)
        for run, label, members, dim, D, error, spectral in rows:
            factors[run].append(Factor(label, tuple(members), dim, D, error, spectral))
    for run in np.flatnonzero(~finite):
        everything = tuple(range(W.shape[1]))
        factors[run] = [Factor("diverged", everything, m, np.nan, np.inf, np.inf)]
    for each in factors:
        each.sort(key=_first)
    return factors


def _first(factor: Factor) -> int:
    return factor.features[0]


def _named_sets(
    directions: Float[np.ndarray, "run n m"],
    cosines: Float[np.ndarray, "run n n"],
    kept: Bool[np.ndarray, "run n"],
) -> list[_Named]:
    whole = [_name(directions, cosines, *joined) for joined in _joined(cosines, kept, OVERLAP)]
    # Sets that are nothing known are tried again with their weaker overlaps cut.
    parent = np.full(kept.shape, -1)
    for group in whole:
        odd = group.where(~group.named)
        parent[odd.run[:, None], odd.members] = odd.members[:, :1]
    joined_strongly = _joined(cosines, parent >= 0, noise_overlap(kept.shape[-1]))
    parts = [_name(directions, cosines, *joined) for joined in joined_strongly]
    whole_is_kept = np.zeros(kept.shape, bool)  # by the first feature of the set
    for group in parts:
        origin = parent[group.run, group.members[:, 0]]
        unnamed = ~group.named
        whole_is_kept[group.run[unnamed], origin[unnamed]] = True
    stay = [g.where(g.named | whole_is_kept[g.run, g.members[:, 0]]) for g in whole]
    split = [g.where(~whole_is_kept[g.run, parent[g.run, g.members[:, 0]]]) for g in parts]
    return [*stay, *split]


def _joined(
    cosines: Float[np.ndarray, "run n n"], among: Bool[np.ndarray, "run n"], overlap: float
) -> list[tuple[Int[np.ndarray, " B"], Int[np.ndarray, "B k"]]]:
    """The connected sets of features, (run, members) for each size; `among` holds whole sets."""
    n = among.shape[-1]
    close = np.abs(cosines) > overlap
    # Every feature takes the smallest number among its neighbours' until none changes: for a
    # stack of small graphs far quicker than one large sparse graph.
    smallest = np.broadcast_to(np.arange(n, dtype=np.min_scalar_type(n)), among.shape)
    component = np.full_like(smallest, n)
    while not np.array_equal(component, smallest):
        component = smallest
        smallest = np.where(close, component[:, None, :], n).min(-1)
    nodes = np.flatnonzero(among)
    key = nodes - nodes % n + component.ravel()[nodes]
    nodes = nodes[np.argsort(key, kind="stable")]
    _, start, size = np.unique(np.sort(key), return_index=True, return_counts=True)
    groups = []
    for k in np.unique(size):
        members = nodes[start[size == k][:, None] + np.arange(k)]
        groups.append((members[:, 0] // n, members % n))
    return groups


def _name(
    directions: Float[np.ndarray, "run n m"],
    cosines: Float[np.ndarray, "run n n"],
    run: Int[np.ndarray, " B"],
    members: Int[np.ndarray, "B k"],
) -> _Named:
    (B, k), m = members.shape, directions.shape[-1]
    if k == 1:
        zero, label = np.zeros(B), np.full(B, "dedicated", object)
        return _Named(run, members, label, np.ones(B, int), zero, zero, np.ones(B, bool))
    gram = cosines[run[:, None, None], members[:, :, None], members[:, None, :]]
    spectrum = _spectrum(directions[run[:, None], members], gram)
    # Singular values of the directions are the roots of the Gram matrix's eigenvalues.
    dim = (spectrum > RANK**2 * spectrum[:, -1:]).sum(1)
    if k == 2:  # near a line is not on it
        dim[:] = 2
    label = np.array([f"irregular {k} in {d}" for d in range(k + 1)], object)[dim]
    error, spectral, named = np.full(B, np.inf), np.full(B, np.inf), np.zeros(B, bool)
    rank, limit = dim.copy(), tolerance(k, m)
    for shape in shapes(k):
        # No order of the features can bring Gram matrices closer than their spectra are
        # (Hoffman and Wielandt 1953), and √(k-1) is what turns cosines into eigenvalues.
        apart = _distances(spectrum, shape.spectra)
        (near,) = np.nonzero((apart.min(1) <= np.sqrt(k - 1) * limit) | (rank == shape.dim))
        if near.size == 0:
            continue
        differences = _distances(sorted_cosines(gram[near]), shape.cosines)
        best = differences.argmin(1)
        difference = np.take_along_axis(differences, best[:, None], 1)[:, 0]
        distance = apart[near, best]
        is_shape = (difference <= limit) & (distance <= np.sqrt(k - 1) * limit)
        counts = is_shape | (~named[near] & (rank[near] == shape.dim))
        better = counts & ((is_shape & ~named[near]) | (difference < error[near]))
        at = near[better]
        error[at], spectral[at] = difference[better], distance[better]
        named[at] = is_shape[better]
        at = near[better & is_shape]
        label[at], dim[at] = shape.label, shape.dim
    return _Named(run, members, label, dim, error, spectral, named)


def _spectrum(
    directions: Float[np.ndarray, "B k m"], gram: Float[np.ndarray, "B k k"]
) -> Float[np.ndarray, "B k"]:
    """The eigenvalues of Gram matrices, from the smaller of them and the frame operators."""
    *_, k, m = directions.shape
    if k <= m:
        return np.linalg.eigvalsh(gram)
    frame = np.linalg.eigvalsh(directions.swapaxes(-1, -2) @ directions)
    return np.pad(frame, ((0, 0), (k - m, 0)))


def _distances(
    found: Float[np.ndarray, "B c"], ideal: Float[np.ndarray, "family c"]
) -> Float[np.ndarray, "B family"]:
    return np.sqrt(((found[:, None] - ideal) ** 2).mean(-1))


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


def polytope(factors: Sequence[Factor]) -> str:
    """What factors make together: the one polytope whose corners are all their directions.

    Polytopes in orthogonal spaces with a common centre join to their tegum sum, and the field
    names some of these: two digons are a "square", three an "octahedron", four a "16-cell", d
    a "d-orthoplex" (cross-polytope); a shape with one digon is its bipyramid ("triangular
    bipyramid"), two polygons are a duopyramid ("3-5 duopyramid"). Others are written with ⊕.
    Features that share nothing ("dedicated") take no part.
    Source: Toy Models of Superposition, section on the geometry of superposition (tegum
    products).

    >>> pair = Factor("digon", (0, 1), 1, 0.5, 0.0)
    >>> polytope([pair] * 3), polytope([pair, Factor("pentagon", (2, 3, 4, 5, 6), 2, 0.4, 0.0)])
    ('octahedron', 'pentagonal bipyramid')
    """
    if not all(isinstance(factor, Factor) for factor in factors):
        raise TypeError("polytope: pass the factors of one model, as in polytope(classify(W)[0])")
    shared = sorted((f.dim, len(f.features), f.label) for f in factors if len(f.features) > 1)
    counts = Counter(label for _, _, label in shared)
    digons = counts["digon"]
    if not shared:
        return "nothing shared"
    if digons == len(shared):
        return _ORTHOPLEXES.get(digons, f"{digons}-orthoplex")
    named = _pyramid([each for each in shared if each[2] != "digon"], digons)
    return named or " ⊕ ".join(
        label if n == 1 else _counted(n, label) for label, n in counts.items()
    )


def _pyramid(others: list[tuple[int, int, str]], digons: int) -> str:
    """The bipyramid or duopyramid that (dim, size, label) and some digons make, or nothing."""
    if any(not _adjective(label) for _, _, label in others):
        return ""
    if digons == 1 and len(others) == 1:
        return f"{_adjective(others[0][2])} bipyramid"
    # Two digons are a square.
    sides = sorted([k for d, k, _ in others if d == 2] + [4] * (digons // 2))
    in_planes = all(d == 2 for d, _, _ in others) and digons % 2 == 0
    return f"{sides[0]}-{sides[1]} duopyramid" if in_planes and len(sides) == 2 else ""


def _adjective(label: str) -> str:
    """How a bipyramid is called by its base, or nothing where that has no adjective."""
    if label.endswith("-gon"):
        return f"{label}al"
    return _ADJECTIVES.get(label, "")


_ORTHOPLEXES = {1: "digon", 2: "square", 3: "octahedron", 4: "16-cell"}
_ADJECTIVES = {
    "triangle": "triangular",
    "pentagon": "pentagonal",
    "hexagon": "hexagonal",
    "tetrahedron": "tetrahedral",
    "cube": "cubic",
    "icosahedron": "icosahedral",
}


def _counted(count: int, label: str) -> str:
    if label == "dedicated":
        return f"{count} {label}"
    if label[0].isdigit() or label.startswith("irregular"):
        return f"{count} × {label}"
    if count == 1:
        return f"1 {label}"
    return f"{count} {label.removesuffix('on') + 'a' if label.endswith('hedron') else label + 's'}"
