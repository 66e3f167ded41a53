"""How often features fire, from the most frequent to the rarest."""

import numpy as np
from jaxtyping import Float


def zipf(
    n: int, exponent: float = 1.0, p_max: float = 0.3, p_min: float = 0.01
) -> Float[np.ndarray, " n"]:
    r"""Probabilities that fall with the rank of a feature as a power law, from `p_max` to `p_min`.

    $p_r = p_{min} + (p_{max} - p_{min}) \frac{r^{-a} - n^{-a}}{1 - n^{-a}}$, r = 1 … n, with the
    `exponent` a above 0: the power law, moved and stretched so that it ends where it is to end.
    Raises ValueError where not 0 < p_min <= p_max <= 1, or the exponent is not positive.
    Source: the firing law of SynthSAEBench (Chanin and Garriga-Alonso 2026).

    >>> zipf(4, exponent=1.0, p_max=0.4, p_min=0.1).round(3)
    array([0.4  , 0.2  , 0.133, 0.1  ])
    """
    if not (n >= 1 and exponent > 0 and 0 < p_min <= p_max <= 1):
        raise ValueError(
            f"zipf(n={n}, exponent={exponent!r}, p_max={p_max!r}, p_min={p_min!r}): n is at least "
            "1, the exponent above 0, and 0 < p_min <= p_max <= 1"
        )
    power = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    share = (power - power[-1]) / (power[0] - power[-1]) if n > 1 else np.ones(1)
    return p_min + (p_max - p_min) * share
