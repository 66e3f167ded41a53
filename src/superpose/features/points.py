"""The points of a finite data set: sparse, immutable and equal by content."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array, issparse


@dataclass(frozen=True, slots=True, repr=False)
class Points:
    """T points `[T, n]` from an array, a tensor or a sparse matrix, kept as float32 CSR.

    Rows keep their order; columns increase within a row, and zeros are not stored. The arrays are
    copies and read-only. Equal points are equal and have one hash, of their `digest` (SHA-256).
    Raises ValueError for anything but a matrix of finite numbers with a row and a column.

    >>> points = Points([[0.0, 2.0], [1.0, 0.0]])
    >>> points, points.matrix.indices
    (Points(T=2, n=2), array([1, 0], dtype=int32))
    >>> points == Points(points.matrix)
    True
    """

    matrix: Any = field(compare=False)
    digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        matrix = _csr(self.matrix)
        digest = hashlib.sha256(f"{matrix.shape}\n".encode())
        for array, kind in ((matrix.indptr, "<i8"), (matrix.indices, "<i8"), (matrix.data, "<f4")):
            digest.update(array.astype(kind).tobytes())
            array.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "digest", digest.hexdigest())

    def __repr__(self) -> str:
        return f"Points(T={self.count}, n={self.n})"

    @property
    def count(self) -> int:
        """The number of points, T."""
        return self.matrix.shape[0]

    @property
    def n(self) -> int:
        """The number of features."""
        return self.matrix.shape[1]

    @property
    def frequency(self) -> Float[np.ndarray, " n"]:
        """The share of the points in which each feature is active (not 0), float64."""
        return np.bincount(self.matrix.indices, minlength=self.n) / self.count


def _csr(points: Any) -> csr_array:
    """A canonical copy: float32, sorted, without zeros, indices of 32 bits where they fit."""
    points = points.detach().cpu().numpy() if hasattr(points, "detach") else points
    try:
        # What is too large for float32 becomes infinite, which is refused below.
        with np.errstate(over="ignore"):
            given = points if issparse(points) else np.asarray(points, np.float32)
            matrix = csr_array(given, dtype=np.float32, copy=True)
    except (TypeError, ValueError):
        raise ValueError(f"Points({points!r}): points are a matrix of numbers, [T, n]") from None
    shape: tuple[int, ...] = matrix.shape or ()
    if len(shape) != 2 or not all(shape):
        raise ValueError(
            f"Points: the points have shape {list(shape)}; they are [T, n], one row for "
            "each point, with at least one point and one feature"
        )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    if not np.isfinite(matrix.data).all():
        raise ValueError(
            "Points: some entries are NaN or infinite, or too large for float32; points are finite"
        )
    large = max(matrix.nnz, shape[0], shape[1]) > np.iinfo(np.int32).max
    matrix.indices = matrix.indices.astype(np.int64 if large else np.int32)
    matrix.indptr = matrix.indptr.astype(np.int64 if large else np.int32)
    return matrix
