"""How well the boundaries found by training follow known ones, and where they do not."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from superpose.phases.boundaries import Segments
from superpose.phases.planes import Plane, axis_at, index_at

STEP = 0.25  # the path between two boundaries is walked in steps of so many cells at most


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the boundaries of one plane follow those of another.

    `share` is the part of the found boundaries' length that lies within the tolerance and the
    band of the exact ones, `covered` the part of the exact boundaries' length that so has a
    found one beside it, and `cells` the share of cells in the same state; 1 is best for all
    three. Lengths are in units of cells.

    Tables:

    - `boundaries`: boundary, length (found), share, exact_length, covered, and the median and
      largest distance of the found from the exact one (infinite where there is no exact one).
    - `outside`: the pieces of found boundary that are not within: boundary, the axes, distance.
    - `unequal`: the cells in another state than the exact one: the axes, found, exact, distance
      (of the cell's middle from the nearest exact boundary), band, seeds (the share of seeds in
      the exact state; 0: training never came there) and excess (their lowest loss relative to
      the best of all, less 1).
    """

    share: float
    covered: float
    cells: float
    boundaries: pa.Table
    outside: pa.Table
    unequal: pa.Table


def agreement(found: Plane, exact: Plane, cells: float = 1.0) -> Agreement:
    """Compare boundaries between the same two states, piece by piece.

    A point of a boundary is within where the nearest point of the other boundary is at most
    `cells` cells away, or where all there is between the two, but for the last `cells` cells,
    is in the band of `found`: cells in which other seeds would have shown another state. `exact`
    may lie on a finer grid than `found`; what is beyond the axes of `found` is left out. Where
    both lie on the same grid, a boundary's place is known to half a cell each.
    Raises ValueError for `cells` that is negative and for planes without a common part.

    >>> from superpose.phases import exact_plane
    >>> x, p = np.geomspace(0.1, 10, 5), np.array([0.1, 0.2])
    >>> right = exact_plane(np.where(np.ones((2, 1)) * x < 0.9, "a", "b"), x, p)
    >>> wrong = exact_plane(np.where(np.ones((2, 1)) * x < 9.0, "a", "b"), x, p)
    >>> agreement(right, right).share, agreement(wrong, right).share
    (1.0, 0.0)
    """
    if cells < 0:
        raise ValueError(f"phases.agreement(cells={cells}): a distance in cells is at least 0")
    target = _on_axes_of(found, exact)
    own = found.segments()
    rows, outside, totals = [], [], np.zeros(4)
    for name, mine, theirs in _pairs(found, own, exact, target):
        apart, near = _nearness(mine, theirs, found.band, cells)
        _, back = _nearness(theirs, mine, found.band, cells)
        length, other = mine.length, theirs.length
        sums = np.array([length.sum(), length @ near, other.sum(), other @ back])
        totals += sums
        rows.append(
            {
                "boundary": name,
                "length": sums[0],
                "share": _ratio(sums[1], sums[0]),
                "exact_length": sums[2],
                "covered": _ratio(sums[3], sums[2]),
                "median_distance": float(np.median(apart)) if apart.size else np.nan,
                "largest_distance": float(apart.max()) if apart.size else np.nan,
            }
        )
        outside += _places(found, name, mine.middle[~near], apart[~near])
    wrong, same = _unequal(found, exact, target)
    return Agreement(
        share=_ratio(totals[1], totals[0]),
        covered=_ratio(totals[3], totals[2]),
        cells=same,
        boundaries=pa.Table.from_pylist(rows, schema=_BOUNDARIES),
        outside=pa.Table.from_pylist(outside, schema=_schema(found, _OUTSIDE)),
        unequal=pa.Table.from_pylist(wrong, schema=_schema(found, _UNEQUAL)),
    )


_BOUNDARIES = pa.schema(
    [("boundary", pa.string())]
    + [
        (name, pa.float64())
        for name in (
            "length",
            "share",
            "exact_length",
            "covered",
            "median_distance",
            "largest_distance",
        )
    ]
)
_OUTSIDE = [("boundary", pa.string()), ("distance", pa.float64())]
_UNEQUAL = [
    ("found", pa.string()),
    ("exact", pa.string()),
    ("distance", pa.float64()),
    ("band", pa.bool_()),
    ("seeds", pa.float64()),
    ("excess", pa.float64()),
]


def _schema(found: Plane, fields: list) -> pa.Schema:
    return pa.schema([(found.x_name, pa.float64()), (found.y_name, pa.float64()), *fields])


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else np.nan


def _on_axes_of(found: Plane, exact: Plane) -> Segments:
    """The exact boundaries in cells of `found`, without what lies beyond its cells."""
    pieces = exact.segments()
    flat = pieces.ends.reshape(-1, 2)
    x, y = (
        _index(axis, axis_at(finer, flat[:, k]))
        for k, (axis, finer) in enumerate([(found.x, exact.x), (found.y, exact.y)])
    )
    ends = np.stack([x, y], -1).reshape(-1, 2, 2)
    most = np.array([found.x.size, found.y.size]) - 0.5 + 1e-9
    inside = ((ends.mean(1) >= -0.5 - 1e-9) & (ends.mean(1) <= most)).all(-1)
    if len(ends) and not inside.any():
        raise ValueError(
            "phases.agreement: no boundary of the exact plane lies within the axes of the found "
            "one; are the axes in the same units?"
        )
    return Segments(pieces.pair[inside], ends[inside])


def _index(axis: Float[np.ndarray, " cells"], values: Float[np.ndarray, " points"]) -> np.ndarray:
    """`index_at`, for values at and below 0 too: they lie beyond an axis of positive ones."""
    return index_at(axis, np.maximum(values, axis[0] * 1e-9) if axis[0] > 0 else values)


def _pairs(
    found: Plane, own: Segments, exact: Plane, target: Segments
) -> list[tuple[str, Segments, Segments]]:
    """The pieces of each boundary in both planes, by the names of the states it parts."""
    mine, theirs = (
        np.array([" | ".join(sorted((labels[a], labels[b]))) for a, b in pieces.pair], str)
        for labels, pieces in ((found.labels, own), (exact.labels, target))
    )
    return [
        (
            name,
            Segments(own.pair[mine == name], own.ends[mine == name]),
            Segments(target.pair[theirs == name], target.ends[theirs == name]),
        )
        for name in sorted({*mine.tolist(), *theirs.tolist()})
    ]


def _nearest(
    points: Float[np.ndarray, "points 2"], pieces: Segments
) -> Float[np.ndarray, "points 2"]:
    """For each point the nearest point of the pieces."""
    start, along = pieces.ends[:, 0], pieces.ends[:, 1] - pieces.ends[:, 0]
    square = np.maximum((along**2).sum(-1), 1e-30)
    reach = ((points[:, None] - start) * along).sum(-1) / square
    feet = start + np.clip(reach, 0, 1)[..., None] * along
    closest = ((feet - points[:, None]) ** 2).sum(-1).argmin(1)
    return feet[np.arange(len(points)), closest]


def _nearness(
    pieces: Segments, others: Segments, band: Bool[np.ndarray, "rows columns"], cells: float
) -> tuple[Float[np.ndarray, " pieces"], Bool[np.ndarray, " pieces"]]:
    """How far each piece is from the others, and whether it is within the cells and the band."""
    points = pieces.middle
    if len(points) == 0 or len(others.pair) == 0:
        return np.full(len(points), np.inf), np.zeros(len(points), bool)
    feet = _nearest(points, others)
    apart = np.linalg.norm(feet - points, axis=-1)
    near = apart <= cells + 1e-6  # positions went through logarithms and back
    last = np.array(band.shape)[::-1] - 1
    for at in np.nonzero(~near)[0]:
        # At least one step, so that what lies a little too far is not within for that.
        between = (apart[at] - cells) / apart[at]
        count = int(np.ceil((apart[at] - cells) / STEP))
        steps = (np.arange(count) + 0.5) / count * between
        path = points[at] + steps[:, None] * (feet[at] - points[at])
        column, row = np.clip(np.rint(path).astype(int), 0, last).T
        near[at] = band[row, column].all()
    return apart, near


def _places(found: Plane, name: str, points: np.ndarray, apart: np.ndarray) -> list[dict]:
    x, y = axis_at(found.x, points[:, 0]), axis_at(found.y, points[:, 1])
    return [
        {"boundary": name, found.x_name: a, found.y_name: b, "distance": distance}
        for a, b, distance in zip(x.tolist(), y.tolist(), apart.tolist(), strict=True)
    ]


def _unequal(found: Plane, exact: Plane, target: Segments) -> tuple[list[dict], float]:
    """The cells in another state than that of the exact plane's nearest cell."""
    columns = np.rint(index_at(exact.x, found.x)).astype(int).clip(0, exact.x.size - 1)
    rows = np.rint(index_at(exact.y, found.y)).astype(int).clip(0, exact.y.size - 1)
    truth, states = exact.states[np.ix_(rows, columns)], found.states
    wrong = []
    for row, column in np.argwhere(states != truth):
        label = str(truth[row, column])
        seeds, excess = 0.0, np.nan
        if label in found.labels:
            place = found.labels.index(label)
            seeds = float(found.shares[place, row, column])
            best = found.losses[found.best[row, column], row, column]
            excess = float(found.losses[place, row, column] / best - 1)
        point = np.array([[column, row]], float)
        apart = np.linalg.norm(_nearest(point, target) - point) if len(target.pair) else np.inf
        wrong.append(
            {
                found.x_name: found.x[column],
                found.y_name: found.y[row],
                "found": str(states[row, column]),
                "exact": label,
                "distance": float(apart),
                "band": bool(found.band[row, column]),
                "seeds": seeds,
                "excess": excess,
            }
        )
    return wrong, float((states == truth).mean())
