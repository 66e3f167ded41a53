"""What is asked of codes and of models, as rows: so many features at so many dimensions."""

from collections.abc import Callable, Sequence

import pyarrow as pa

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

LAWS = ("exactly k", "expected k", "fixed p")
TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
ROW = {"law": TEXT, "value": _REAL, "m": _WHOLE, "n": _REAL}
POINTS = pa.schema({"source": TEXT, "seed": _WHOLE} | ROW)


def row_of(law: str, value: float, m: int, n: float) -> dict[str, str | float]:
    """One row of a table of capacities, without who it is of."""
    return {"law": law, "value": float(value), "m": m, "n": float(n)}


def check(call: str, error: float, dims: Sequence[int], seeds: int) -> None:
    """Raise ValueError, in the name of `call`, for numbers that cannot be."""
    if not (0 < error < 1 and min(dims, default=1) >= 1 and seeds >= 1):
        raise ValueError(
            f"{call}(error={error:g}, seeds={seeds}, dims={tuple(dims)}): the error lies in "
            "(0, 1), seeds and dimensions are at least 1"
        )
