"""Codes of lines: each sample by a few of them with either sign, fitted to be close to most.

What counts is the distance of a sample from its reconstruction, not its square: samples that lie
on a few of the lines should lie on them exactly, and those that do not should not bend them.
"""

import numpy as np
from jaxtyping import Float

FLOOR = 0.03
_POOL = 128
_ANNEALED = (0.3, 0.1, FLOOR)


def encode(
    x: Float[np.ndarray, "samples d"], D: Float[np.ndarray, "lines d"], active: int
) -> Float[np.ndarray, "samples lines"]:
    """Orthogonal matching pursuit: the amounts of `active` lines a sample, the others 0.

    >>> encode(np.array([[3.0, -1.0]]), np.eye(2), 1)
    array([[3., 0.]])
    """
    row = np.arange(len(x))
    z = np.zeros((len(x), len(D)))
    left, places, axes, parts = x, [], [], []
    overlaps: list[list[np.ndarray]] = []
    for _ in range(min(active, len(D))):
        size = np.abs(left @ D.T)
        for place in places:
            size[row, place] = -1.0
        places.append(size.argmax(1))
        # Gram and Schmidt: the new line in the axes of those before, and one axis more.
        axis = D[places[-1]]
        overlaps.append([_dot(axis, other) for other in axes])
        for overlap, other in zip(overlaps[-1], axes, strict=True):
            axis = axis - overlap[:, None] * other
        length = np.sqrt(_dot(axis, axis))
        overlaps[-1].append(length)
        axes.append(axis / np.maximum(length, 1e-12)[:, None])
        parts.append(_dot(left, axes[-1]))
        left = left - parts[-1][:, None] * axes[-1]
    amounts: dict[int, np.ndarray] = {}
    for last in reversed(range(len(places))):
        part = parts[last] - sum(overlaps[k][last] * amounts[k] for k in amounts)
        # Two lines that are one share an amount: all of it goes to the first.
        length = overlaps[last][last]
        amounts[last] = np.where(length > 1e-6, part / np.maximum(length, 1e-6), 0.0)
        z[row, places[last]] = amounts[last]
    return z


def _dot(
    a: Float[np.ndarray, "samples d"], b: Float[np.ndarray, "samples d"]
) -> Float[np.ndarray, " samples"]:
    return np.einsum("sd,sd->s", a, b)


def distance(
    x: Float[np.ndarray, "samples d"], D: Float[np.ndarray, "lines d"], active: int
) -> float:
    r"""Mean distance of the samples from their codes over their mean norm; 0 is best, 1 worst.

    $\sum |x - \hat x| / \sum |x|$, where no sample counts less than 3 % of its norm: what is
    closer than that is as good as on a line.

    >>> distance(np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0]]), 1) < 0.3
    True
    """
    square = _dot(x, x)
    off = x - encode(x, D, active) @ D
    return float(np.sqrt(_dot(off, off) + FLOOR**2 * square).sum() / np.sqrt(square).sum())


def refine(
    x: Float[np.ndarray, "samples d"],
    D: Float[np.ndarray, "lines d"],
    active: int,
    *,
    scales: tuple[float, ...] = _ANNEALED,
    rounds: int = 4,
) -> Float[np.ndarray, "lines d"]:
    r"""Lines improved by reweighted least squares, codes and lines in turns.

    The weight of a sample, $|x| / (|x - \hat x|^2 + s^2 |x|^2)$, falls with its distance, so that
    mixtures of more than `active` lines lose their say as the scale s shrinks.
    """
    square = _dot(x, x)
    norm = np.sqrt(square)
    for scale in scales:
        for _ in range(rounds):
            z = encode(x, D, active)
            off = x - z @ D
            weight = norm / np.maximum(_dot(off, off) + scale**2 * square, 1e-30)
            weighted = z.T * weight
            normal = weighted @ z
            ridge = 1e-6 * np.trace(normal) / len(D) + 1e-30
            D = unit(D + np.linalg.solve(normal + ridge * np.eye(len(D)), weighted @ off))
    return D


def widen(
    x: Float[np.ndarray, "samples d"],
    D: Float[np.ndarray, "lines d"],
    active: int,
    extra: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "more d"]:
    """The lines and `extra` new ones, each the one of a pool that brings the samples closest.

    The pool holds directions of samples and of what `active` - 1 lines leave of them, drawn by
    their norms. Closeness is the root of the distance, which favours lines that some samples lie
    on over lines that many lie near.
    """
    norm = np.linalg.norm(x, axis=1)
    left = x - encode(x, D, active - 1) @ D if active > 1 else x
    source = np.concatenate([x, left]) if active > 1 else x
    chance = np.linalg.norm(source, axis=1)
    pool = unit(source[rng.choice(len(source), _POOL, p=chance / chance.sum())])
    off = np.maximum(_dot(left, left)[:, None] - (left @ pool.T) ** 2, 0.0)
    cost = np.sqrt(norm[:, None] * np.sqrt(off + (FLOOR * norm[:, None]) ** 2))
    now = x - encode(x, D, active) @ D
    current = np.sqrt(norm * np.sqrt(_dot(now, now) + (FLOOR * norm) ** 2))
    chosen = []
    for _ in range(extra):
        best = int(np.maximum(current[:, None] - cost, 0.0).sum(0).argmax())
        chosen.append(best)
        current = np.minimum(current, cost[:, best])
    return np.concatenate([D, pool[chosen]])


def unit(rows: Float[np.ndarray, "rows d"]) -> Float[np.ndarray, "rows d"]:
    """Rows of length 1; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
