"""What must overlap, what can be recovered, what a dictionary distorts."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linprog, minimize, minimize_scalar

from oracle_sections import shapes
from oracle_sections.rows import Row
from superpose import Features, measures, theory


def bounds() -> Iterator[Row]:
    for d in (2, 3, 7):
        yield Row(
            f"Welch bound, {d + 1} directions in {d} dimensions: reached by the simplex",
            "1/d",
            theory.welch_bound(d + 1, d),
            lambda d=d: measures.coherence(shapes.simplex(d)).item(),
            1e-12,
        )
    axes = shapes.icosahedron()[:6]
    for order in (1, 2):
        yield Row(
            f"Welch bound of order {order}, 6 in 3 dimensions: reached by the icosahedron's axes",
            "1/√5",
            theory.welch_bound(6, 3, order=order),
            lambda: measures.coherence(axes).item(),
            1e-9,
        )
    frames = {
        "pentagon": shapes.k_gon(5),
        "cube": shapes.cube(),
        "two triangles": shapes.tegum(shapes.k_gon(3), shapes.k_gon(3)),
    }
    for name, W in frames.items():
        n, m = W.shape
        yield Row(
            f"frame potential n²/m: reached by the {name}",
            "Benedetto & Fickus 2003",
            n**2 / m,
            lambda W=W: measures.frame_potential(W).item(),
            1e-9,
        )
    yield Row(
        "least cross-talk of any read-out with unit gain, n = 7, m = 3: n²/m − n",
        "trace and rank; lowest of a numerical descent over both matrices",
        theory.interference_bound(7, 3),
        lambda: _least_crosstalk(7, 3),
        1e-6,
    )
    thumb = "mean of {} draws; the rule √(4 ln n/m) gives {:.3f}"
    yield Row(
        "expected largest overlap of 1000 random directions in 100 dimensions",
        thumb.format(20, math.sqrt(4 * math.log(1000) / 100)),
        theory.random_coherence(1000, 100),
        lambda: _mean_coherence(1000, 100, 20),
        2e-2,
    )
    yield Row(
        "expected largest overlap of 5000 random directions in 50 dimensions",
        thumb.format(8, math.sqrt(4 * math.log(5000) / 50)),
        theory.random_coherence(5000, 50),
        lambda: _mean_coherence(5000, 50, 8),
        3e-2,
        slow=True,
    )
    yield Row(
        "mean cos² of random directions in 20 dimensions: 1/m",
        "200 draws",
        1 / 20,
        _mean_square_cosine,
        1e-3,
    )
    yield Row(
        "support of 3 of 200 features found by the threshold 1/2 in 100 dimensions",
        "normal approximation against 9000 simulated supports; up to 0.08 too low",
        theory.recovery_probability(200, 100, 3, threshold=0.5),
        lambda: _recovered(200, 100, 3),
        8e-2,
    )


def _least_crosstalk(n: int, m: int) -> float:
    def crosstalk(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(flat).requires_grad_()
        W, R = at.reshape(2, n, m)
        cross = R @ W.T
        # Each read-out is divided by its answer to its own feature.
        loss = ((cross / cross.diagonal()[:, None]) ** 2).sum() - n
        return loss.item(), torch.autograd.grad(loss, at)[0].numpy()

    start = np.random.default_rng(0).normal(size=2 * n * m)
    return float(minimize(crosstalk, start, jac=True, tol=1e-10).fun)


def _mean_coherence(n: int, m: int, draws: int) -> float:
    generator = torch.Generator().manual_seed(0)
    found = [measures.coherence(torch.randn(n, m, generator=generator)) for _ in range(draws)]
    return float(np.mean(found))


def _mean_square_cosine() -> float:
    W = torch.randn(200, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = torch.nn.functional.normalize(W, dim=-1)
    return (measures.frame_potential(W).item() - 200) / (200 * 199)


def _recovered(n: int, m: int, k: int) -> float:
    rng, right = np.random.default_rng(0), []
    for _ in range(30):
        W = rng.normal(size=(n, m))
        W /= np.linalg.norm(W, axis=1, keepdims=True)
        active = rng.random((300, n)).argsort(1) < k
        right.append(((active @ W @ W.T > 0.5) == active).all(1).mean())
    return float(np.mean(right))


def dictionaries() -> Iterator[Row]:
    yield Row(
        "shrinkage of a code of 0.8 by an L1 penalty of 0.3: λ/2",
        "Tibshirani 1996; found by a numerical search",
        0.3 / 2,
        lambda: 0.8 - _best_code(0.8, 0.3),
        1e-6,
    )
    yield Row(
        "the same from `theory.shrunk_code`",
        "Tibshirani 1996",
        0.3 / 2,
        lambda: 0.8 - theory.shrunk_code(torch.tensor(0.8, dtype=torch.float64), 0.3).item(),
        1e-12,
    )
    child = 0.25
    for cosine in (0.0, 0.5):
        yield Row(
            f"L1 saved by absorption, P(child) = 1/4, cos = {cosine}: p(2 − √(2 + 2 cos))",
            "least codes that leave no error, by linear programming",
            child * (2 - math.sqrt(2 + 2 * cosine)),
            lambda cosine=cosine: child * _saved(cosine),
            1e-9,
        )
    first, second = 0.6, 0.2
    moments = [first / 3, second / 3, first * second / 4]
    yield Row(
        "angle of hedging, independent p = 0.6 and 0.2, no bias: tan 2θ = 2q₁₂/(q₁ − q₂)",
        "principal direction of 400,000 samples",
        math.atan(2 * moments[2] / (moments[0] - moments[1])) / 2,
        lambda: _principal_angle(Features(n=2, p=[first, second])),
        5e-3,
    )
    yield Row(
        "the same from `theory.hedging_angle`",
        "eigenvector of the second moments",
        math.atan(2 * moments[2] / (moments[0] - moments[1])) / 2,
        lambda: theory.hedging_angle(*moments),
        1e-12,
    )


def _best_code(a: float, penalty: float) -> float:
    def cost(z: float) -> float:
        return (a - z) ** 2 + penalty * z

    return float(minimize_scalar(cost, bounds=(0, 2), method="bounded", options={"xatol": 1e-9}).x)


def _saved(cosine: float) -> float:
    """Least sum of codes for parent and child together, with two dictionaries."""
    parent, child = np.array([1.0, 0.0]), np.array([cosine, math.sqrt(1 - cosine**2)])
    both = parent + child
    dictionaries = [[parent, child], [parent, both / np.linalg.norm(both)]]
    plain, absorbed = (
        linprog(np.ones(2), A_eq=np.transpose(atoms), b_eq=both).fun for atoms in dictionaries
    )
    return float(plain - absorbed)


def _principal_angle(world: Features) -> float:
    x = world.sample(400_000, seed=3).double().numpy()
    direction = np.linalg.eigh(x.T @ x)[1][:, -1]
    return float(math.atan2(direction[1], direction[0]) % math.pi)
