"""Moments of the worlds and the linear model."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from torch.autograd.functional import hessian

from oracle_sections.rows import Row
from superpose import Features, theory


def moments() -> Iterator[Row]:
    p, samples = 0.3, 4_000_000

    @cache
    def draw(kind: str) -> np.ndarray:
        worlds = {
            "independent": Features(n=2, p=p),
            "correlated": Features.correlated(sets=1, size=2, p=p),
            "anticorrelated": Features.anticorrelated(sets=1, size=2, p=p),
        }
        return worlds[kind].sample(samples, seed=7).double().numpy()

    source = f"uniform on (0, 1], p = {p}; {samples:,} samples"
    v = p / 3 - p**2 / 4
    rows = [
        ("E x = p/2", "independent", p / 2, lambda x: x[:, 0].mean(), 6e-4),
        ("E x² = p/3", "independent", p / 3, lambda x: (x[:, 0] ** 2).mean(), 6e-4),
        ("E x⁴ = p/5", "independent", p / 5, lambda x: (x[:, 0] ** 4).mean(), 6e-4),
        ("Var x = p/3 − p²/4", "independent", v, lambda x: x[:, 0].var(), 3e-4),
        ("E x₁x₂ = p²/4, independent", "independent", p**2 / 4, _product, 3e-4),
        ("E x₁x₂ = p/4, correlated", "correlated", p / 4, _product, 6e-4),
        ("Cov = −p²/4k², anticorrelated k = 2", "anticorrelated", -(p**2) / 16, _covariance, 3e-4),
    ]
    for quantity, kind, expected, measure, tolerance in rows:
        yield Row(
            quantity,
            source,
            expected,
            lambda kind=kind, measure=measure: float(measure(draw(kind))),
            tolerance,
        )


def _product(x: np.ndarray) -> float:
    return float((x[:, 0] * x[:, 1]).mean())


def _covariance(x: np.ndarray) -> float:
    return float(np.cov(x.T)[0, 1])


def linear_model() -> Iterator[Row]:
    p, ratio = 0.3, 0.7
    v = p / 3 - p**2 / 4
    world = Features(n=5, p=p, importance=ratio)
    yield Row(
        "least loss of n = 5, m = 2, I = 0.7ⁱ: v times the three smallest I",
        "Toy Models, section 2; lowest of 6 numerical descents",
        v * (ratio**2 + ratio**3 + ratio**4),
        lambda: _lowest_linear_loss(world, 2),
        1e-7,
    )
    pair = Features(n=2, p=1.0)
    yield Row(
        "dense 2 → 1: 1/12, of keeping one feature",
        "Toy Models, appendix on nonlinear compression",
        1 / 12,
        lambda: _line_loss([1.0, 0.0], [0.0, 0.5], pair),
        1e-12,
    )
    yield Row(
        "dense 2 → 1: 1/12, of keeping the mean of both",
        "Toy Models, appendix on nonlinear compression",
        1 / 12,
        lambda: _line_loss([0.5**0.5, 0.5**0.5], [0.0, 0.0], pair),
        1e-12,
    )
    for offset, expected in {"": 1 / 27, " + 1/2Z": 1 / 108}.items():
        yield Row(
            f"dense 2 → 1 through t = (⌊3x⌋ + y)/3, x read as ⌊3t⌋/3{offset}: "
            + ("1/12Z²" if offset else "1/3Z²"),
            "Toy Models, appendix on nonlinear compression; mean over a grid of inputs",
            expected,
            lambda offset=offset: _staircase_loss(3, 1 / 6 if offset else 0.0),
            1e-6,
        )
    u0, rate, t = 0.04, 8 * v, 5.0
    grown = u0 * math.exp(rate * t)
    yield Row(
        "squared singular value at t = 5 from u₀ = 0.04, p = 0.3: u₀g/(1 − u₀ + u₀g), g = e^{8σ²t}",
        "Saxe et al. 2014; gradient flow integrated numerically",
        grown / (1 - u0 + grown),
        lambda: _integrated_square(p, u0, t),
        1e-7,
    )
    yield Row(
        "the same from `theory.linear_flow`, after a turn of the hidden space",
        "Saxe et al. 2014",
        grown / (1 - u0 + grown),
        lambda: _flowed_square(p, u0, t),
        1e-12,
    )
    equal, distinct = Features(n=6, p=p), Features(n=6, p=p, importance=ratio)
    cases = [
        ("m(m+1)/4, equal features, n = 6, m = 2, best bias", equal, False, 2 * 3 / 4),
        ("m(m+1)/4 + n/2, with a trained bias", equal, True, 2 * 3 / 4 + 6 / 2),
        ("(nm − m(m−1)/2)/2 + n/2, distinct importances", distinct, True, (12 - 1) / 2 + 3),
    ]
    for name, each, bias, expected in cases:
        yield Row(
            f"learning coefficient {name}",
            "half the rank of the numerical Hessian",
            expected,
            lambda each=each, bias=bias: _linear_rank(each, 2, bias) / 2,
            1e-2,
        )


def _line_loss(W: list[float], b: list[float], world: Features) -> float:
    directions = torch.tensor(W, dtype=torch.float64)[:, None]
    return theory.expected_loss(directions, torch.tensor(b), world, output="linear").item()


def _lowest_linear_loss(world: Features, m: int) -> float:
    rng = np.random.default_rng(0)
    n = world.n

    def parts(flat: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.from_numpy(flat)
        return at[: n * m].reshape(n, m), at[n * m :]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = (part.requires_grad_() for part in parts(flat))
        value = _linear_loss(world, W, b)
        gradients = torch.autograd.grad(value, (W, b))
        return value.item(), torch.cat([each.ravel() for each in gradients]).numpy()

    starts = rng.normal(size=(6, n * m + n)) * 0.5
    ends = [parts(minimize(loss, start, jac=True, tol=1e-10).x) for start in starts]
    return min(theory.expected_loss(*end, world, output="linear").item() for end in ends)


def _staircase_loss(levels: int, offset: float) -> float:
    # A whole number of points a step, whose midpoints sit off the edges.
    x = (np.arange(levels * 700) + 0.5) / (levels * 700)
    y = ((np.arange(500) + 0.5) / 500)[:, None]
    t = (np.floor(levels * x) + y) / levels
    step = np.floor(levels * t)
    return float(((step / levels + offset - x) ** 2 + (levels * t - step - y) ** 2).mean())


def _linear_loss(world: Features, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Written out apart from the library, to be differentiated."""
    R = torch.eye(world.n, dtype=torch.float64) - W @ W.T
    mean = torch.from_numpy(world.probability) / 2
    variance = torch.from_numpy(world.probability / 3 - world.probability**2 / 4)
    errors = (R**2 * variance).sum(-1) + (R @ mean - b) ** 2
    return (torch.from_numpy(world.importances) * errors).sum()


def _best_bias(world: Features, W: torch.Tensor) -> torch.Tensor:
    mean = torch.from_numpy(world.probability) / 2
    return mean - W @ (W.T @ mean)


def _integrated_square(p: float, u0: float, t: float) -> float:
    world = Features(n=3, p=p)

    def downhill(_: float, flat: np.ndarray) -> np.ndarray:
        W = torch.from_numpy(flat).reshape(3, 1).requires_grad_()
        loss = _linear_loss(world, W, _best_bias(world, W).detach())
        return -torch.autograd.grad(loss, W)[0].numpy().ravel()

    start = np.full(3, math.sqrt(u0 / 3))
    path = solve_ivp(downhill, (0, t), start, method="DOP853", rtol=1e-10, atol=1e-12)
    return float((path.y[:, -1] ** 2).sum())


def _flowed_square(p: float, u0: float, t: float) -> float:
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    W = torch.tensor([[math.sqrt(u0), 0.0], [0.0, 0.3], [0.0, 0.0]], dtype=torch.float64) @ turn
    end = theory.linear_flow(W, Features(n=3, p=p), torch.tensor([t]))[0]
    return float((end[0] ** 2).sum())


def _linear_rank(world: Features, m: int, bias: bool) -> int:
    n = world.n
    W = torch.eye(n, dtype=torch.float64)[:, :m]
    at = torch.cat((W.ravel(), _best_bias(world, W))) if bias else W.ravel()

    def loss(at: torch.Tensor) -> torch.Tensor:
        W = at[: n * m].reshape(n, m)
        return _linear_loss(world, W, at[n * m :] if bias else _best_bias(world, W))

    return int(torch.linalg.matrix_rank(torch.as_tensor(hessian(loss, at)), hermitian=True))
