"""Dimensionality and its bounds, attacks on the input, examples memorised."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar

from oracle_sections import shapes
from oracle_sections.rows import Row
from superpose import Features, measures, theory


def dimensionality() -> Iterator[Row]:
    paper = "Toy Models, section on geometry"
    cases = {
        "digon: 1/2": (1 / 2, shapes.simplex(1), paper),
        "triangle: 2/3": (2 / 3, shapes.k_gon(3), paper),
        "tetrahedron: 3/4": (3 / 4, shapes.simplex(3), paper),
        "5-cell: 4/5": (4 / 5, shapes.simplex(4), "simplex in d: d/(d + 1)"),
        "pentagon: 2/5": (2 / 5, shapes.k_gon(5), paper),
        "7-gon: 2/7": (2 / 7, shapes.k_gon(7), "k-gon: 2/k"),
        "octahedron: 1/2": (1 / 2, shapes.cross_polytope(3), paper),
        "cube: 3/8": (3 / 8, shapes.cube(), "tight frame: d/k"),
        "icosahedron: 1/4": (1 / 4, shapes.icosahedron(), "tight frame: d/k"),
        "square antiprism at z² = 1/3: 3/8": (3 / 8, shapes.antiprism(1 / 3), paper),
    }
    for name, (expected, W, source) in cases.items():
        yield Row(
            name,
            source,
            expected,
            lambda W=W: measures.dimensionality(7.0 * W)[0].item(),
            1e-12,
        )
    yield Row(
        "antiprism of least 1/distance: z²",
        "classical Thomson problem",
        0.31409,
        _coulomb_height,
        1e-5,
    )
    for z2, expected in {0.31409: 0.37438, 0.30839: 0.37395}.items():
        yield Row(
            f"antiprism at z² = {z2}: 1/(4(1 − z²)² + 8z⁴)",
            "sum of the squared cosines of a corner",
            expected,
            lambda z2=z2: measures.dimensionality(shapes.antiprism(z2))[0].item(),
            1e-5,
        )
    bipyramids = {
        "triangular bipyramid: 3 · 2/3 + 2 · 1/2": (3, 3.0),
        "pentagonal bipyramid: 5 · 2/5 + 2 · 1/2": (5, 3.0),
    }
    for name, (k, expected) in bipyramids.items():
        W = shapes.tegum(shapes.k_gon(k), shapes.simplex(1))
        yield Row(name, paper, expected, lambda W=W: measures.capacity(W).item(), 1e-12)
    yield Row(
        "200 Gaussian directions in 20 dimensions, mean: m/(n + m), to leading order",
        "mean of 20 draws",
        20 / 220,
        _gaussian_dimensionality,
        2e-3,
    )


def _coulomb_height() -> float:
    def energy(square: float) -> float:
        return float((1 / torch.pdist(shapes.antiprism(square))).sum())

    found = minimize_scalar(energy, bounds=(0.1, 0.45), method="bounded", options={"xatol": 1e-9})
    return float(found.x)


def _gaussian_dimensionality() -> float:
    W = np.random.default_rng(0).normal(size=(20, 200, 20))
    return measures.dimensionality(torch.from_numpy(W)).mean().item()


def adversarial() -> Iterator[Row]:
    cases = {
        "digon: 2": (2.0, shapes.simplex(1)),
        "pentagon: 5/2": (5 / 2, shapes.k_gon(5)),
        "square antiprism at z² = 1/3: 8/3": (8 / 3, shapes.antiprism(1 / 3)),
    }
    for name, (expected, W) in cases.items():
        yield Row(
            f"{name} times the vulnerability of a dedicated feature",
            "1/D; error of the attacked output, the bias keeping it on",
            expected,
            lambda W=W: _vulnerability(W) / _vulnerability(torch.eye(3, dtype=torch.float64)),
            1e-9,
        )


def _vulnerability(W: torch.Tensor) -> float:
    """Rise of the squared error of output 0 by the best small change of the input."""
    epsilon, M = 1e-3, W @ W.T
    b = torch.full((len(W),), -10.0, dtype=torch.float64)
    b[0] = 0.0
    x = torch.zeros(1, len(W), dtype=torch.float64)
    x[0, 0] = 1.0
    only = torch.zeros(len(W), dtype=torch.float64)
    only[0] = 1.0
    moved = x + theory.attack(W, b, x, epsilon, only)
    return float(((moved @ M + b).relu() - x)[0, 0] ** 2 / epsilon**2)


def memorisation() -> Iterator[Row]:
    for T in (5, 12, 100):
        yield Row(
            f"{T} examples on a {T}-gon, dimensionality of each: 2/T",
            "Henighan et al. 2023",
            2 / T,
            lambda T=T: measures.dimensionality(shapes.k_gon(T))[0].item(),
            1e-12,
        )
    yield Row(
        "30 one-hot examples in two dimensions: loss of the memorising polygon",
        "worked out here: l² = 1/(1 − cos(2π/T)), b = 1 − l²",
        0.0,
        lambda: _memorised_loss(30),
        1e-12,
    )
    H = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 4)))
    yield Row(
        "best dimensionality of an example: its leverage hᵢᵀ(HHᵀ)⁺hᵢ",
        "Henighan et al. 2023; supremum over read-outs found numerically",
        measures.leverage(H)[0].item(),
        lambda: _best_readout(H.numpy()),
        1e-8,
    )
    yield Row(
        "the same summed over the examples: rank of H",
        "Henighan et al. 2023",
        4.0,
        lambda: measures.leverage(H).sum().item(),
        1e-12,
    )


def _memorised_loss(points: int) -> float:
    length, bias = theory.memorising_polygon(points)
    H, x = length * shapes.k_gon(points), torch.eye(points, dtype=torch.float64)
    return float((((x @ H @ H.T + bias).relu() - x) ** 2).sum())


def _best_readout(H: np.ndarray) -> float:
    def negative_share(v: np.ndarray) -> float:
        read = H @ v
        return -float(read[0] ** 2 / (read**2).sum())

    return -float(minimize(negative_share, H[0], tol=1e-14).fun)


def correlation() -> Iterator[Row]:
    p, paper = 0.1, "Toy Models, section on correlated features; `expected_loss` of the weights"
    correlated = Features.correlated(sets=2, size=2, p=p)
    exclusive = Features.anticorrelated(sets=2, size=2, p=p)
    across = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    within = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    cases = [
        ("2 × 2 correlated, antipodes across sets: 2p²/3", correlated, across, 2 * p**2 / 3),
        ("2 × 2 correlated, antipodes in a set: 2p/3", correlated, within, 2 * p / 3),
        ("2 × 2 anticorrelated, antipodes across sets: p²/6", exclusive, across, p**2 / 6),
        ("2 × 2 anticorrelated, antipodes in a set: 0", exclusive, within, 0.0),
    ]
    for name, world, W, expected in cases:
        yield Row(
            f"{name}, p = 0.1",
            paper,
            expected,
            lambda W=W, world=world: theory.expected_loss(W, torch.zeros(4), world).item(),
            1e-7,
        )
    pair, v = Features.correlated(sets=1, size=2, p=0.3), 0.3 / 3 - 0.3**2 / 4
    together = torch.full((2, 1), math.sqrt(0.5))
    yield Row(
        "correlated pair collapsed to its mean: p/12, p = 0.3",
        paper,
        0.3 / 12,
        lambda: theory.expected_loss(together, torch.zeros(2), pair).item(),
        1e-7,
    )
    yield Row(
        "the smaller variance of its principal components: p/12",
        "`linear_minimum`, from the eigenvalues",
        0.3 / 12,
        lambda: theory.linear_minimum(pair, m=1),
        1e-12,
    )
    for kept, expected in {"first": v, "neither": 2 * v}.items():
        weight = float(kept == "first")
        W, b = torch.tensor([[weight], [0.0]]), torch.tensor([(1 - weight) * 0.15, 0.15])
        yield Row(
            f"correlated pair, keeping {'one' if weight else 'neither'}: {'v' if weight else '2v'}",
            paper,
            expected,
            lambda W=W, b=b: theory.expected_loss(W, b, pair).item(),
            1e-7,
        )
