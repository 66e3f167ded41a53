"""How many features random directions hold when a ReLU reads them."""

import math

from scipy.integrate import quad
from scipy.optimize import minimize_scalar


def relu_capacity(m: int, error: float) -> float:
    r"""The most random directions that leave a loss of at most `error` of silence, one active.

    All share one gain g and bias −τg, the best ones: with $s = 1 - \tau$,
    $P = s^3/3 + \tau s^2/2$, $Q = s^3/3$ and $R = E[(c - \tau)_+^3 / 3c]$ over the cosine c of
    two directions, the loss of n features is $1/3 - 2gP + g^2 Q + (n - 1) g^2 R$, so that
    $n = 1 + \max_\tau [3 P^2 / (1 - \mathrm{error}) - Q] / R$. For large m the best τ solves
    $\tau^2 (3 + \tau) / 4 = \mathrm{error}$ and ln n grows by $-\ln(1 - \tau^2) / 2$ a
    dimension. Raises ValueError for m below 2 or an error outside (0, 1).
    Source: worked out here.

    >>> relu_capacity(20, 7 / 32) > 2 * relu_capacity(15, 7 / 32)
    True
    """
    if m < 2 or not 0 < error < 1:
        raise ValueError(
            f"relu_capacity(m={m}, error={error:g}): on a line all directions coincide, so m is at "
            "least 2, and the error lies in (0, 1)"
        )
    density = math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(math.pi)

    def negative_size(tau: float) -> float:
        s = 1 - tau
        P, Q = s**3 / 3 + tau * s**2 / 2, s**3 / 3

        def called(angle: float) -> float:
            c = math.cos(angle)
            return math.sin(angle) ** (m - 2) * (c - tau) ** 3 / (3 * c)

        R = density * quad(called, 0, math.acos(tau))[0]
        return -(3 * P**2 / (1 - error) - Q) / R

    best = minimize_scalar(negative_size, bounds=(1e-3, 1 - 1e-3), method="bounded")
    return max(1 - float(best.fun), 1.0)
