"""One feature at a time: polygons in the plane, points on spheres."""

import math
from collections.abc import Iterator
from functools import cache

import torch
from scipy.optimize import minimize_scalar

from oracle_sections import shapes
from oracle_sections.rows import Row
from superpose import Features, theory

GOLDEN = (1 + math.sqrt(5)) / 2


def polygons() -> Iterator[Row]:
    chen = "Chen et al. 2023"
    # Length, bias and potential; the paper has a second pair for k = 8, 4e-5 away, and for
    # k = 12 a second root that is no minimum.
    table = {
        4: (1.0, 0.0, 0.0),
        5: (1.17046, -0.28230, 0.23738),
        6: (1.32053, -0.61814, 0.86746),
        7: (1.44839, -0.96691, 1.74870),
        8: (1.55045, -1.29119, 2.7731),
        12: (1.03322, -0.46654, 7.0527),
    }
    for k, (length, bias, potential) in table.items():
        yield Row(f"{k}-gon, length", chen, length, lambda k=k: _k_gon(k).length, 6e-6)
        yield Row(f"{k}-gon, bias", chen, bias, lambda k=k: _k_gon(k).bias, 6e-6)
        yield Row(
            f"{k}-gon, potential h",
            chen,
            potential,
            lambda k=k: _k_gon(k).potential,
            6e-6 if k < 8 else 6e-5,
        )
    for k, loss in {5: 0.015826, 6: 0.048192, 7: 0.083271, 8: 0.115546}.items():
        yield Row(
            f"{k}-gon, loss L = h/3k",
            f"{chen}; `expected_loss` of its weights",
            loss,
            lambda k=k: _polygon_loss(_k_gon(k)),
            1e-6,
        )
    yield Row(
        "10-gon, length: the golden ratio (a saddle; the bias is its negative)",
        "(1 + √5)/2",
        GOLDEN,
        lambda: _k_gon(10).length,
        1e-9,
    )
    yield Row("10-gon, potential h", "5 exactly", 5.0, lambda: _k_gon(10).potential, 1e-9)
    yield Row(
        "gain of one dead bias at c = 6: 1/4c²",
        f"{chen}; difference of two `expected_loss`",
        1 / 144,
        lambda: _polygon_loss(_k_gon(5, 6)) - _polygon_loss(_k_gon(5, 6, dead_bias=True)),
        1e-6,
    )
    for k, value in {5: 7.0, 6: 8.5, 7: 10.0, 8: 11.5}.items():
        yield Row(
            f"{k}-gon, learning coefficient (3k − 1)/2",
            f"{chen}; rank of the Hessian",
            value,
            lambda k=k: _k_gon(k).learning_coefficient,
            1e-2,
        )
    yield Row(
        "5⁺-gon at c = 6, learning coefficient",
        f"{chen}; rank of the Hessian",
        8.5,
        lambda: _k_gon(5, 6, dead_bias=True).learning_coefficient,
        1e-2,
    )


@cache
def _k_gon(k: int, c: int | None = None, dead_bias: bool = False) -> theory.Polygon:
    return theory.k_gon(k, c, dead_bias=dead_bias)


def _polygon_loss(polygon: theory.Polygon) -> float:
    left = polygon.c - polygon.k
    W = torch.cat((polygon.length * shapes.k_gon(polygon.k), torch.zeros(left, 2).double()))
    b = torch.full((polygon.c,), -1.0, dtype=torch.float64)
    b[: polygon.k] = polygon.bias
    if polygon.dead_bias:
        b[polygon.k] = polygon.dead_bias
    world = Features.exactly_one(polygon.c)
    return theory.expected_loss(W, b, world, tolerance=1e-8).item()


def thomson() -> Iterator[Row]:
    source = "E = Σ ReLU(Wᵢ·Wⱼ)²; lowest of 16 descents"
    cosine = 10 * math.cos(math.radians(72)) ** 2
    energies = {
        (5, 2): ("10 cos² 72°", cosine, 1e-6),
        (6, 2): ("3", 3.0, 1e-6),
        (6, 3): ("0, octahedron", 0.0, 1e-6),
        (7, 3): ("10 cos² 72°, pentagonal bipyramid", cosine, 1e-6),
        (8, 3): ("square antiprism", 2.04383, 1e-5),
        (9, 3): ("63/17, not uniform", 63 / 17, 1e-9),
    }
    for (k, d), (name, energy, tolerance) in energies.items():
        yield Row(
            f"{k} points in {d} dimensions: {name}",
            source,
            energy,
            lambda k=k, d=d: _thomson(k, d, 16).energy,
            tolerance,
        )
    yield Row(
        "12 points in 3 dimensions: below the icosahedron",
        "lowest of 96 descents",
        11.0974,
        lambda: _thomson(12, 3, 96).energy,
        1e-4,
        slow=True,
    )
    yield Row(
        "icosahedron: 60 · 1/5",
        "its 30 edges, in both orders, at cos² = 1/5",
        12.0,
        lambda: theory.thomson_energy(shapes.icosahedron()).item(),
        1e-9,
    )
    yield Row(
        "best antiprism: mean square height z²",
        "minimum of the antiprism's energy over z",
        0.3084,
        _best_height,
        1e-4,
    )


@cache
def _thomson(k: int, d: int, starts: int) -> theory.ThomsonMinimum:
    return theory.thomson_minimum(k, d, starts=starts, seed=0)


def _best_height() -> float:
    def energy(square: float) -> float:
        return theory.thomson_energy(shapes.antiprism(square)).item()

    found = minimize_scalar(energy, bounds=(0.1, 0.45), method="bounded", options={"xatol": 1e-9})
    return float(found.x)
