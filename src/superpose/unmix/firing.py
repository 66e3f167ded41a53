"""What fired on each sample, features and latents, as sparse rows: what all scores count."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from superpose.unmix.sae import Dictionary

Rows = sparse.csr_array
# Latents of one chunk of samples, all runs together: 128 MiB.
_CHUNK = 2**25


@runtime_checkable
class Activity(Protocol):
    """The features that are on in each sample, in compressed sparse rows.

    Those of sample i are `index[indptr[i]:indptr[i + 1]]`, `value` their amplitudes.
    """

    @property
    def indptr(self) -> Any:
        """Where the entries of each sample begin, and the last ones end."""
        ...

    @property
    def index(self) -> Any:
        """The feature of each entry."""
        ...

    @property
    def value(self) -> Any:
        """The amplitude of each entry."""
        ...


Active = (
    Bool[Tensor, "rows features"]
    | Float[Tensor, "rows features"]
    | Bool[np.ndarray, "rows features"]
    | Float[np.ndarray, "rows features"]
    | Activity
)


def feature_rows(active: Active, samples: int, k: int) -> Rows:
    """The amplitudes of `k` features, one row a sample; what is on but has no amplitude is 1.

    Raises ValueError for shapes that do not fit and amplitudes below zero: a feature of both
    signs is two rays, and each has a direction of its own.
    """
    if isinstance(active, Tensor | np.ndarray):
        if active.shape != (samples, k):
            raise ValueError(
                f"active of shape {list(active.shape)} has to be [samples={samples}, k={k}]"
            )
        rows = sparse_rows(torch.as_tensor(active))
    else:
        indptr, index, value = (np.asarray(each) for each in _parts(active))
        if len(indptr) != samples + 1 or (index.size and int(index.max()) >= k):
            raise ValueError(
                f"active has {len(indptr) - 1} samples and features up to "
                f"{int(index.max(initial=-1))}, but there are samples={samples} and k={k}"
            )
        rows = Rows((value.astype(np.float32), index, indptr), shape=(samples, k))
        rows.eliminate_zeros()
    if rows.data.size and rows.data.min() < 0:
        raise ValueError(
            "active has amplitudes below zero; a feature of both signs is two rays, so score it by "
            "rays = world.rays(): rays.directions for truth, rays.activity(drawn) for active"
        )
    return rows


def has_amplitudes(active: Active) -> bool:
    """Whether it says how much, not only which."""
    if isinstance(active, Tensor | np.ndarray):
        return active.dtype not in (torch.bool, np.bool_)
    return True


def sparse_rows(table: Tensor) -> Rows:
    """What is not zero in a dense table, as float32."""
    table = table.detach().cpu()
    place = table.nonzero(as_tuple=True)
    values = table[place].to(torch.float32).numpy()
    counts = np.bincount(place[0].numpy(), minlength=len(table))
    indptr = np.concatenate([[0], counts.cumsum()])
    index = place[1].numpy().astype(np.int32)
    return Rows((values, index, indptr), shape=(table.shape[0], table.shape[1]))


@torch.no_grad()
def coded(
    sae: Dictionary, x: Float[Tensor, "samples d_in"]
) -> Iterator[tuple[slice, Float[Tensor, "runs rows d_sae"], Float[Tensor, "runs rows d_in"]]]:
    """Chunk by chunk, where it is in `x`, its latents and its reconstruction."""
    directions = sae.directions
    runs = directions[..., 0, 0].numel()
    step = max(1, _CHUNK // (runs * directions.shape[-2]))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        z = sae.encode(part)
        back = sae.decode(z)
        yield (
            slice(start, start + len(part)),
            z.reshape(runs, *z.shape[-2:]),
            back.reshape(runs, *back.shape[-2:]),
        )


def latent_rows(sae: Dictionary, x: Float[Tensor, "samples d_in"]) -> list[Rows]:
    """The latents of each run of a dictionary, one row a sample: 8 bytes an active latent."""
    parts = [[sparse_rows(run) for run in z] for _, z, _ in coded(sae, x)]
    return [stacked(chunks) for chunks in zip(*parts, strict=True)]


def stacked(chunks: Any) -> Rows:
    """Chunks of rows, one after another."""
    return Rows(sparse.vstack(list(chunks), format="csr"))


def switched_on(rows: Rows) -> Rows:
    """The same places with 1 in each."""
    return Rows((np.ones_like(rows.data), rows.indices, rows.indptr), shape=rows.shape)


def together(
    features: Rows, latents: Rows, block: int = 1024
) -> Iterator[tuple[slice, Float[np.ndarray, "block d_sae"]]]:
    r"""$\sum_{samples} f_j z_l$ of all pairs, some features at a time.

    The cost is that of the pairs that are on together in a sample, 34 features and 25 latents
    are 850 additions; where that is more than a dense product would cost, the product is dense.
    """
    samples, k = size(features)
    pairs = _mean(features.indptr) * _mean(latents.indptr)
    dense = pairs > k * size(latents)[1] / 50
    columns = turned(features)
    for start in range(0, k, block):
        part = Rows(columns[start : start + block])
        where = slice(start, start + size(part)[0])
        if not dense:
            yield where, Rows(part @ latents).toarray()
            continue
        total = np.zeros((size(part)[0], size(latents)[1]), np.float32)
        rows = turned(part)
        for first in range(0, samples, 4096):
            these = slice(first, first + 4096)
            total += Rows(rows[these]).toarray().T @ Rows(latents[these]).toarray()
        yield where, total


def size(rows: Rows) -> tuple[int, int]:
    """How many rows and columns."""
    high, wide = rows.shape  # pyright: ignore[reportGeneralTypeIssues]
    return high, wide


def turned(rows: Rows) -> Rows:
    """Rows and columns exchanged."""
    return Rows(rows.T.tocsr())


def blocks(samples: int, at_most: int = 64) -> Rows:
    """The matrix that sums rows over blocks of consecutive samples, equal in size within one."""
    number = min(samples, at_most)
    bounds = np.linspace(0, samples, number + 1).round().astype(np.int64)
    return Rows((np.ones(samples), np.arange(samples), bounds), shape=(number, samples))


def in_each_block(summing: Rows, rows: Rows, dtype: type = np.float64) -> NDArray[Any]:
    """Sums over each block of samples, [blocks, columns]."""
    return Rows(summing @ rows).toarray().astype(dtype)


def picked(latents: Rows, assignment: NDArray[Any]) -> Rows:
    """The column of each feature's latent, nothing where the feature has none (−1)."""
    own = np.flatnonzero(assignment >= 0)
    ones = np.ones(len(own), np.float32)
    choose = sparse.coo_array(
        (ones, (assignment[own], own)), shape=(size(latents)[1], len(assignment))
    )
    return Rows(latents @ choose.tocsr())


def _parts(active: Activity) -> tuple[Any, Any, Any]:
    return active.indptr, active.index, active.value


def _mean(indptr: NDArray[Any]) -> float:
    return float(indptr[-1]) / max(len(indptr) - 1, 1)
