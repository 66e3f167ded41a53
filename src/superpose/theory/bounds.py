"""How much n directions in m dimensions must overlap, and how little random ones do."""

import math

from scipy.integrate import quad
from scipy.special import betainc, betaincinv


def welch_bound(n: int, m: int, *, order: int = 1) -> float:
    r"""The least possible largest overlap $\max_{i \ne j} |\hat W_i \cdot \hat W_j|$.

    $\mu^{2q} \ge (n e_q - 1) / (n - 1)$ at `order` q, where the mean of $(u \cdot v)^{2q}$ over
    the sphere is $e_q = 1 \cdot 3 \cdots (2q - 1) / m (m + 2) \cdots (m + 2q - 2)$; at order 1 it
    is $\sqrt{(n - m) / m (n - 1)}$. It assumes real directions and nothing else. Order 1 is
    reached by equiangular tight frames (simplices, the six diagonals of an icosahedron) and by no
    others, hence never above $n = m (m + 1) / 2$; higher orders are the stronger ones for many
    directions. In [0, 1]; 0 for $n \le 1 / e_q$, which is m at order 1.

    The same holds for any linear read-out: where $R_i \cdot W_i = 1$ for all i, some
    $|R_i \cdot W_j|$ is at least the bound of order 1.
    Raises ValueError for sizes or an order below 1.
    Source: Welch 1974, Lower bounds on the maximum cross correlation of signals; the means of
    real directions as in Sidelnikov 1974.

    >>> round(welch_bound(4, 3), 6), round(welch_bound(6, 3) ** 2, 6)
    (0.333333, 0.2)
    """
    _check_counts("welch_bound", n=n, m=m, order=order)
    if n == 1:
        return 0.0
    mean = math.prod((2 * q + 1) / (m + 2 * q) for q in range(order))
    return max(0.0, (n * mean - 1) / (n - 1)) ** (1 / (2 * order))


def interference_bound(n: int, m: int) -> float:
    r"""The least interference of n unit directions in total.

    $\sum_{i \ne j} (\hat W_i \cdot \hat W_j)^2 \ge \max(n^2 / m - n, 0)$, reached by every tight
    frame (k-gons, simplices, cross-polytopes, orthogonal sums of one kind); with the n of the
    diagonal added it bounds the frame potential. It follows from the rank alone and so holds for
    every linear read-out: for R and W with $R_i \cdot W_i = 1$, $\sum_{i \ne j} (R_i \cdot W_j)^2$
    is at least as large, since a matrix of trace n and rank m has a squared Frobenius norm of at
    least $n^2 / m$. No encoder avoids it.
    Raises ValueError for sizes below 1.
    Source: Benedetto & Fickus 2003, Finite normalized tight frames; for read-outs the trace
    argument above.

    >>> interference_bound(5, 2)
    7.5
    """
    _check_counts("interference_bound", n=n, m=m)
    return max(n**2 / m - n, 0.0)


def linear_readout_floor(n: int, m: int, k: float) -> float:
    r"""The least mean noise of a linear read-out, $k (1/m - 1/n)$: variance for each feature.

    Of n features k are active on average, each with probability $k / n$ independently of the
    others, with value 1 and a random sign; each read-out is right about its own feature
    ($R_i \cdot W_i = 1$). The squared error of the values read, averaged over all features,
    is at least this, whatever the directions and read-outs, and tight frames reach it. About
    $k / m$ for $n \gg m$: to read every feature to a fixed error without a threshold takes m in
    proportion to k. 0 for $n \le m$.
    Raises ValueError for sizes below 1 or a k outside [0, n].
    Source: worked out here from `interference_bound`.

    >>> round(linear_readout_floor(1000, 100, k=5), 6)
    0.045
    """
    _check_counts("linear_readout_floor", n=n, m=m)
    if not 0 <= k <= n:
        raise ValueError(
            f"linear_readout_floor(n={n}, k={k:g}): k is the mean number of active features and "
            f"lies in [0, {n}]"
        )
    return k * interference_bound(n, m) / n**2


def random_coherence(n: int, m: int) -> float:
    r"""Expected largest overlap $\max_{i \ne j} |\hat W_i \cdot \hat W_j|$ of n random directions.

    The squared cosine of two independent uniform directions has the law Beta(1/2, (m − 1)/2).
    The $N = n (n - 1) / 2$ pairs are pairwise independent and taken as independent altogether:
    $E \max = \int_0^1 (1 - F(t)^N) dt$, which is good to about 1 % from $m = 10$ on. About
    $\sqrt{4 \ln n / m}$, which exceeds it, for n large and $\ln n \ll m$.
    Raises ValueError for n below 2 or m below 2 (on a line all directions coincide).
    Source: Cai & Jiang 2012, Phase transition in limiting distributions of coherence of
    high-dimensional random matrices, for the limit.

    >>> round(random_coherence(1000, 100), 3)
    0.462
    """
    _check_counts("random_coherence", least=2, n=n, m=m)
    pairs = n * (n - 1) / 2

    def above(t: float) -> float:
        return -math.expm1(pairs * math.log1p(-_tail(t, m))) if t > 0 else 1.0

    median = _overlap(1 - 0.5 ** (1 / pairs), m)
    return float(quad(above, 0, 1, points=[median], limit=200)[0])


def almost_orthogonal(m: int, epsilon: float, *, failure: float = 0.5) -> float:
    r"""How many random directions in m dimensions all overlap by less than `epsilon`.

    The largest n for which the union bound $\binom{n}{2} P(|\cos| > \varepsilon)$, with the exact
    law of the cosine, stays within `failure`: then n random directions all have
    $|\hat W_i \cdot \hat W_j| \le \varepsilon$ with probability at least 1 − failure, and so exist.
    Exponential in the dimension, at least
    $\sqrt{\mathrm{failure}}\, e^{m \varepsilon^2 / 4}$. A lower bound on what the best
    arrangement holds (where it is below m, m orthogonal directions are the better one), as
    `welch_bound`, solved for n, is one from above. As a float, infinite beyond 1e150.
    Raises ValueError for m below 2, `epsilon` or `failure` outside (0, 1).
    Source: Johnson & Lindenstrauss 1984, Extensions of Lipschitz mappings into a Hilbert space;
    the counting is the usual proof with the exact tail.

    >>> almost_orthogonal(200, 0.5) > 1e6
    True
    """
    _check_counts("almost_orthogonal", least=2, m=m)
    if not (0 < epsilon < 1 and 0 < failure < 1):
        raise ValueError(
            f"almost_orthogonal(epsilon={epsilon:g}, failure={failure:g}): the largest overlap and "
            "the chance to exceed it lie in (0, 1)"
        )
    tail = _tail(epsilon, m)
    # Also where the quotient below would overflow.
    if tail < 1e-300:
        return math.inf
    # The root of n (n − 1) / 2 = failure / tail.
    return math.floor((1 + math.sqrt(1 + 8 * failure / tail)) / 2) + 0.0


def _tail(t: float, m: int) -> float:
    """P(|cos| > t) for two random directions in m dimensions."""
    return float(betainc((m - 1) / 2, 1 / 2, 1 - t**2))


def _overlap(tail: float, m: int) -> float:
    """The overlap that two random directions exceed with probability `tail`."""
    return math.sqrt(1 - float(betaincinv((m - 1) / 2, 1 / 2, tail)))


def _check_counts(call: str, least: int = 1, **counts: int) -> None:
    wrong = {name: value for name, value in counts.items() if value < least}
    if wrong:
        given = ", ".join(f"{name}={value}" for name, value in counts.items())
        raise ValueError(
            f"{call}({given}): {' and '.join(wrong)} must be a whole number of at least {least}"
        )
