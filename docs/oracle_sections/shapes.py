"""Arrangements of unit directions, rows of float64."""

import math
from itertools import product

import torch
from torch import Tensor


def k_gon(k: int) -> Tensor:
    """The corners of a regular polygon in the plane."""
    angle = torch.arange(k, dtype=torch.float64) * (2 * math.pi / k)
    return torch.stack((angle.cos(), angle.sin()), -1)


def simplex(d: int) -> Tensor:
    """d + 1 corners in d dimensions, any two at a cosine of -1/d."""
    corners = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    axes = torch.linalg.svd(corners)[2][:d]
    return torch.nn.functional.normalize(corners @ axes.T, dim=-1)


def cross_polytope(d: int) -> Tensor:
    """d digons, orthogonal: the octahedron for d = 3."""
    eye = torch.eye(d, dtype=torch.float64)
    return torch.cat((eye, -eye))


def cube() -> Tensor:
    """The 8 corners of a cube."""
    return torch.tensor(list(product((-1.0, 1.0), repeat=3))).double() / math.sqrt(3)


def icosahedron() -> Tensor:
    """The 12 corners of an icosahedron; the first 6 are one of each opposite pair."""
    golden = (1 + math.sqrt(5)) / 2
    half = [(0.0, 1.0, sign * golden) for sign in (1, -1)]
    half = [corner[-turn:] + corner[:-turn] for corner in half for turn in range(3)]
    corners = torch.tensor(half, dtype=torch.float64) / math.hypot(1, golden)
    return torch.cat((corners, -corners))


def antiprism(square: float) -> Tensor:
    """Two squares, one turned by 45 degrees, at heights whose square is `square`."""
    z, radius = math.sqrt(square), math.sqrt(1 - square)
    quarter = torch.arange(4, dtype=torch.float64) * (math.pi / 2)
    height = torch.full((4,), z, dtype=torch.float64)
    rings = [
        torch.stack((radius * turn.cos(), radius * turn.sin(), sign * height), -1)
        for turn, sign in ((quarter, 1), (quarter + math.pi / 4, -1))
    ]
    return torch.cat(rings)


def tegum(*factors: Tensor) -> Tensor:
    """Arrangements in orthogonal dimensions, side by side."""
    return torch.block_diag(*factors)
