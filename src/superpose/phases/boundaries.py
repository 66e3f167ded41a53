"""Boundaries between the cells of a labelled grid, as short pieces and as polylines."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class Segments:
    """Straight pieces of the boundaries between labels, in units of cells.

    A point is (column, row), whole at the middle of a cell. `pair` holds the labels on the two
    sides, the smaller first.
    """

    pair: Int[np.ndarray, "pieces 2"]
    ends: Float[np.ndarray, "pieces 2 2"]

    @property
    def length(self) -> Float[np.ndarray, " pieces"]:
        """The length of each piece, in cells."""
        return np.linalg.norm(self.ends[:, 1] - self.ends[:, 0], axis=-1)

    @property
    def middle(self) -> Float[np.ndarray, "pieces 2"]:
        """The point half way along each piece."""
        return self.ends.mean(1)


def segments(labels: Int[np.ndarray, "rows columns"]) -> Segments:
    """The boundaries between unequal neighbours, cutting the corners of their staircases.

    A boundary crosses from one cell to the next half way. Among four cells that meet it runs
    straight from crossing to crossing where two labels are parted by one line, and from each
    crossing to their common corner where three or four labels meet or two lie crosswise. At the
    rim of the grid it goes on, half a cell, to the end of the cells.

    >>> segments(np.array([[0, 1]])).ends.tolist()
    [[[0.5, -0.5], [0.5, 0.0]], [[0.5, 0.0], [0.5, 0.5]]]
    """
    # With a rim of copies, every crossing lies on a side of some square of four cells.
    grid = np.pad(labels, 1, mode="edge")
    corners = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]])
    pairs, ends = [], []
    for row, column in np.argwhere((corners != corners[0]).any(0)):
        for pair, line in _pieces(grid[row : row + 2, column : column + 2]):
            pairs.append(pair)
            ends.append(np.array(line) + np.array([column - 1, row - 1]))
    if not pairs:
        return Segments(np.zeros((0, 2), np.int64), np.zeros((0, 2, 2)))
    inside = np.clip(np.array(ends), -0.5, np.array(labels.shape)[::-1] - 0.5)
    found = Segments(np.array(pairs), inside)
    kept = found.length > 0
    return Segments(found.pair[kept], found.ends[kept])


_Point = tuple[float, float]
_Pair = tuple[int, int]


def _pieces(square: Int[np.ndarray, "2 2"]) -> list[tuple[_Pair, tuple[_Point, _Point]]]:
    (a, b), (c, d) = square.tolist()
    sides = [((0.5, 0.0), a, b), ((0.5, 1.0), c, d), ((0.0, 0.5), a, c), ((1.0, 0.5), b, d)]
    crossings = [(point, (min(s, t), max(s, t))) for point, s, t in sides if s != t]
    if len(crossings) == 2:
        (start, pair), (end, _) = crossings
        return [(pair, (start, end))]
    return [(pair, (point, (0.5, 0.5))) for point, pair in crossings]


def polylines(pieces: Segments) -> list[tuple[_Pair, Float[np.ndarray, "points 2"]]]:
    """The pieces of each pair of labels joined end to end, the longest line of a pair first.

    A line ends where pieces end or more than two meet; a closed one repeats its first point.
    """
    lines = []
    for pair in sorted({(int(a), int(b)) for a, b in pieces.pair}):
        chosen = pieces.ends[(pieces.pair == pair).all(1)]
        found = [np.array(line) for line in _chains(chosen)]
        found.sort(key=len, reverse=True)
        lines += [(pair, line) for line in found]
    return lines


def _chains(ends: Float[np.ndarray, "pieces 2 2"]) -> list[list[_Point]]:
    links: dict[_Point, list[_Point]] = {}
    for first, second in ends.tolist():
        links.setdefault(tuple(first), []).append(tuple(second))
        links.setdefault(tuple(second), []).append(tuple(first))
    chains = []
    # From the ends and junctions first, so that what is left afterwards are closed lines.
    for start in sorted(links, key=lambda point: (len(links[point]) == 2, point)):
        while links[start]:
            chains.append(_follow(start, links))
    return chains


def _follow(start: _Point, links: dict[_Point, list[_Point]]) -> list[_Point]:
    """One line from `start` to an end, a junction or itself; its pieces are used up."""
    degrees = {point: len(others) for point, others in links.items()}
    line, here = [start], start
    while links[here] and (here == start or degrees[here] == 2 or len(line) == 1):
        there = links[here].pop()
        links[there].remove(here)
        line.append(there)
        here = there
        if here == start:
            break
    return line
