"""Minima of the exact loss: pairs, pentagons, what crosses where, what collapses."""

import math
from collections.abc import Iterator
from functools import cache

import torch
from scipy.optimize import minimize_scalar, root_scalar

from oracle_sections.rows import Row
from superpose import Features, theory


def pairs() -> Iterator[Row]:
    source = "minimum of `expected_loss` over the norm"
    for p in (0.3, 0.5):
        yield Row(
            f"antipodal pair without bias, p = {p}: a = (8 − 5p)/(8 − 6p)",
            source,
            (8 - 5 * p) / (8 - 6 * p),
            lambda p=p: (
                minimize_scalar(
                    _pair_loss, bounds=(0.8, 1.6), args=(-1, p), options={"xatol": 1e-7}
                ).x
            ),
            1e-4,
        )
        yield Row(
            f"confused pair without bias, p = {p}: v = p/3 − p²/4",
            source,
            p / 3 - p * p / 4,
            lambda p=p: minimize_scalar(_pair_loss, bounds=(0.2, 1.0), args=(1, p)).fun,
            1e-7,
        )
    for r, boundary in ((0.3, 1.2 / 3.5), (1.0, 4 / 7), (3.0, 4 / 11)):
        yield Row(
            f"two features in one dimension, r = {r:g}: critical p of unit configurations",
            "Toy Models, section 3; root of the difference of two `expected_loss`",
            boundary,
            lambda r=r: _configuration_crossing(r),
            1e-6,
        )
    p, r = 0.4, 1.5
    yield Row(
        "unit triangle, p = 0.4, r = 1.5: (2 + r)(p²/8 + p³/24)",
        "closed form of this project; `expected_loss` of its weights",
        (2 + r) * (p**2 / 8 + p**3 / 24),
        lambda: _triangle_loss(p, r),
        1e-8,
    )


def minima() -> Iterator[Row]:
    sampled = "search on sampled magnitudes, made apart; `theory.optimum`"
    pair = {0.1: 0.003319, 0.3: 0.02931, 0.5: 0.076282, 0.6: 0.098886, 0.8: 0.105516, 1: 0.083254}
    for p, loss in pair.items():
        yield Row(
            f"least loss of two features in one dimension, p = {p:g}",
            sampled,
            loss,
            lambda p=p: theory.optimum(Features(n=2, p=p), 1, starts=8).loss,
            2e-6,
        )
    yield Row(
        "pentagon, n = 5, m = 2, p = 0.05: loss",
        sampled,
        8.9036e-3,
        lambda: theory.optimum(Features(n=5, p=0.05), 2, starts=4).loss,
        2e-7,
    )
    for sparsity, gain in {2: 1.268, 3: 1.568, 4: 1.697, 10: 1.892}.items():
        yield Row(
            f"gain of a digon at 1/p = {sparsity}, in units of v",
            sampled,
            gain,
            lambda sparsity=sparsity: theory.factor(2, 1, 1 / sparsity, starts=8).gain,
            1e-3,
        )
    yield Row(
        "1/p at which a pentagon gains what a digon gains",
        sampled,
        4.447,
        _pentagon_sparsity,
        0.01,
        slow=True,
    )
    yield Row(
        "n = 5, m = 2, p = 0.05: p₅ over p where pentagon gives way to digons",
        sampled,
        0.269,
        _pentagon_ratio,
        2e-3,
        slow=True,
    )
    collapsed = {0.7: 3, 0.5: 3, 0.4: 3, 0.3: 2, 0.2: 2, 0.15: 2, 0.1: 1, 0.05: 0, 0.03: 0, 0.01: 0}
    for p, count in collapsed.items():
        yield Row(
            f"three correlated pairs in the plane, p = {p}: pairs collapsed",
            sampled,
            count,
            lambda p=p: _ladder()[p],
            0.1,
            slow=True,
        )


def _pair_loss(a: float, sign: float, p: float) -> float:
    W = math.sqrt(a) * torch.tensor([[1.0], [sign]], dtype=torch.float64)
    return theory.expected_loss(W, torch.zeros(2), Features(n=2, p=p), tolerance=1e-9).item()


def _configuration_crossing(r: float) -> float:
    kept = 0 if r <= 1 else 1

    def difference(p: float) -> float:
        world = Features(n=2, p=p, importance=(1.0, r))
        alone, b = torch.zeros(2, 1), torch.full((2,), p / 2, dtype=torch.float64)
        alone[kept], b[kept] = 1.0, 0.0
        pair = torch.tensor([[1.0], [-1.0]])
        shared = theory.expected_loss(pair, torch.zeros(2), world, tolerance=1e-9)
        return (shared - theory.expected_loss(alone, b, world, tolerance=1e-9)).item()

    return root_scalar(difference, bracket=(0.05, 0.95), xtol=1e-9).root


def _triangle_loss(p: float, r: float) -> float:
    height = math.sqrt(3) / 2
    W = torch.tensor([[1, 0], [-0.5, height], [-0.5, -height]], dtype=torch.float64)
    world = Features(n=3, p=p, importance=(1.0, 1.0, r))
    return theory.expected_loss(W, torch.zeros(3), world, tolerance=1e-9).item()


def _pentagon() -> tuple[torch.Tensor, torch.Tensor]:
    angle = 2 * math.pi * torch.arange(5) / 5
    return 1.13 * torch.stack([angle.cos(), angle.sin()], 1), torch.full((5,), -0.25)


def _pentagon_sparsity() -> float:
    W, b = _pentagon()
    pair = torch.tensor([[[1.0], [-1.0]]]), torch.zeros(1, 2)

    def difference(sparsity: float) -> float:
        p = 1 / sparsity
        v = p / 3 - p * p / 4
        (five,) = theory.local_minima(W[None], b[None], Features(n=5, p=p))
        (two,) = theory.local_minima(*pair, Features(n=2, p=p))
        return (5 * v - five.loss) / 2 - (2 * v - two.loss)

    return root_scalar(difference, bracket=(4.3, 4.6), xtol=1e-4).root


def _pentagon_ratio() -> float:
    corners = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
    # The fifth bias is above 0: a dead feature would not come back.
    digons = corners, torch.tensor([0.0, 0, 0, 0, 0.01])

    def family(ratio: float) -> Features:
        return Features(n=5, p=[0.05] * 4 + [0.05 * ratio])

    return theory.branch_crossing(_pentagon(), digons, family, between=(0.2, 0.4))


@cache
def _ladder() -> dict[float, int]:
    densities = [0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.03, 0.01]
    return {rung.p: rung.collapsed for rung in theory.collapse_ladder(densities, starts=24)}
