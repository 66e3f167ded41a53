"""The ideal shapes: directions that are known by name, with their cosines and Gram spectra."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri

# The smallest overlap that holds a shape together is 1/d, of the simplex in d dimensions; at
# d = 10 it is lost among the overlaps of separate factors.
SIMPLEX_DIMENSIONS = 9
# What a name must survive: this standard deviation in each coordinate of every unit direction.
NOISE = 0.02
TOLERANCE = 0.08
# The 99.9 % quantile under that noise. Three random directions in a plane come closer to a
# triangle than more do to any larger shape, so there is no room for more.
TRIANGLE_TOLERANCE = 0.065
PAIR_TOLERANCE = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """`k` directions in `dim` dimensions with a name.

    `cosines` are those of all pairs, ascending, and `spectra` the eigenvalues of the Gram matrix,
    ascending, one row for each member of the family (shapes with a free height have several).
    """

    label: str
    dim: int
    cosines: Float[np.ndarray, "family pairs"]
    spectra: Float[np.ndarray, "family k"]


@cache
def shapes(k: int) -> tuple[Shape, ...]:
    """Every shape of `k` directions that has a name and does not fall into smaller factors.

    >>> [(shape.label, shape.dim) for shape in shapes(5)]
    [('pentagon', 2), ('5-cell', 4)]
    """
    found: list[tuple[str, list[np.ndarray]]] = []
    if k == 2:
        found.append(("digon", [np.array([[1.0], [-1.0]])]))
        found.append(("collapsed pair", [np.array([[1.0], [1.0]])]))
    elif k not in (1, 4):  # a square falls into two digons
        found.append((_K_GONS.get(k, f"{k}-gon"), [_k_gon(k)]))
    if 4 <= k <= SIMPLEX_DIMENSIONS + 1:
        found.append((_SIMPLICES.get(k - 1, f"{k - 1}-simplex"), [_simplex(k - 1)]))
    found.extend((label, family()) for label, (size, family) in _SOLIDS.items() if size == k)
    return tuple(_shape(label, family) for label, family in found)


@cache
def tolerance(k: int, m: int) -> float:
    r"""How far (root mean square of the sorted cosines) a named shape may be from its ideal.

    Noise of 0.02 in each coordinate of `k` unit vectors in `m` dimensions keeps within it at
    least 99.9 % of the time. 0.08 for four directions and more, about 5 degrees each, and 0.065
    for the three of a triangle, whose cosines hardly depend on m. The error of a pair,
    $1 + \cos$, is $\sigma^2 \chi^2_{m-1}$ under that noise: its tolerance is the quantile of
    that law, at most 0.03 (reached at m = 43).

    >>> [round(tolerance(k, m=2), 3) for k in (2, 3, 5)]
    [0.004, 0.065, 0.08]
    """
    if k == 2:
        return min(NOISE**2 * float(chdtri(max(1, m - 1), 0.001)), PAIR_TOLERANCE)
    return TRIANGLE_TOLERANCE if k == 3 else TOLERANCE


def sorted_cosines(gram: Float[np.ndarray, "*stack k k"]) -> Float[np.ndarray, "*stack pairs"]:
    """The cosines of all pairs, ascending: what is left of a shape when its order is unknown."""
    first, second = np.triu_indices(gram.shape[-1], 1)
    return np.sort(gram[..., first, second], axis=-1)


def _shape(label: str, family: list[np.ndarray]) -> Shape:
    points = np.stack(family)
    gram = points @ points.swapaxes(-1, -2)
    spectra = np.linalg.eigvalsh(gram)
    return Shape(label, int((spectra[0] > 1e-9).sum()), sorted_cosines(gram), spectra)


def _k_gon(k: int) -> Float[np.ndarray, "k 2"]:
    angle = 2 * np.pi * np.arange(k) / k
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _simplex(d: int) -> Float[np.ndarray, "k k"]:
    centred = np.eye(d + 1) - 1 / (d + 1)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _rectified_simplex() -> Float[np.ndarray, "10 5"]:
    """The midpoints of the edges of a 5-cell: cosines of 1/6 and -2/3, a tight frame."""
    points = np.array([_simplex(4)[i] + _simplex(4)[j] for i in range(5) for j in range(i)])
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _antiprisms() -> list[Float[np.ndarray, "8 3"]]:
    """Square antiprisms from flat to tall: what minimises the loss depends on the density.

    z² is 1/3 for the tight frame, .314 for the Thomson problem and .308 for its ReLU variant.
    """
    return [_rings(4, z2, np.pi / 4) for z2 in np.linspace(0.28, 0.36, 17)]


def _tricapped_prisms() -> list[Float[np.ndarray, "9 3"]]:
    """Triangular prisms with a point over each side: z² is .471 in the ReLU-Thomson problem."""
    caps = np.column_stack([-_k_gon(3), np.zeros(3)])
    return [np.concatenate([_rings(3, z2, 0.0), caps]) for z2 in np.linspace(0.42, 0.56, 29)]


def _gyroelongated_bipyramids() -> list[Float[np.ndarray, "10 3"]]:
    """Square antiprisms with a point on either end: z² is .185 in the ReLU-Thomson problem.

    The sparse limit only: at p = 0.05 the ten features bend to a less regular shape, 0.1 away.
    """
    poles = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    heights = np.linspace(0.13, 0.24, 23)
    return [np.concatenate([_rings(4, z2, np.pi / 4), poles]) for z2 in heights]


def _rings(k: int, z2: float, twist: float) -> Float[np.ndarray, "points 3"]:
    """Two k-gons at heights ±z on the unit sphere, one turned by `twist`."""
    turn = np.arange(k) * 2 * np.pi / k
    angle = np.concatenate([turn, turn + twist])
    z = np.sqrt(z2) * np.repeat([1.0, -1.0], k)
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
_SOLIDS: dict[str, tuple[int, Callable[[], list[np.ndarray]]]] = {
    "square antiprism": (8, _antiprisms),
    "cube": (8, lambda: [_rings(4, 1 / 3, 0.0)]),
    "tricapped trigonal prism": (9, _tricapped_prisms),
    "gyroelongated square bipyramid": (10, _gyroelongated_bipyramids),
    "rectified 5-cell": (10, lambda: [_rectified_simplex()]),
    "icosahedron": (12, lambda: [_icosahedron()]),
}
