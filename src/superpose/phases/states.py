"""The state of a feature: ignored, dedicated or superposed."""

import numpy as np
from numpy.typing import ArrayLike

STATES = ("ignored", "dedicated", "superposed")
REPRESENTED = 0.5
# A represented feature is superposed when its interference is above this. Trained on unequal
# importances the two groups lie far apart (0.01 and less, 0.5 and more; between them only a
# feature whose partner is about to be represented); 0.1 is the simplex of 10 dimensions.
SUPERPOSED = 0.1


def state(norm: ArrayLike, interference: ArrayLike, threshold: float = SUPERPOSED) -> np.ndarray:
    """The state of each feature: "ignored", "dedicated" or "superposed".

    Ignored: norm at most 1/2. Dedicated: represented, with interference at most `threshold`.
    Superposed: represented, with more. The interference counts all features, so that a partner
    of norm 1/3 along the same line already makes a feature superposed, a little before the
    partner itself is represented. Raises ValueError for NaN.

    >>> state([0.1, 1.0, 1.0], [0.9, 0.0, 1.0])
    array(['ignored', 'dedicated', 'superposed'], dtype='<U10')
    """
    size, overlap = np.asarray(norm, np.float64), np.asarray(interference, np.float64)
    if np.isnan(size).any() or np.isnan(overlap).any():
        raise ValueError("phases.state: NaN has no state; leave diverged models out")
    return np.array(STATES)[codes(size, overlap, threshold)]


def codes(norm: np.ndarray, interference: np.ndarray, threshold: float) -> np.ndarray:
    """The place of each feature's state in `STATES`."""
    return (norm > REPRESENTED) * (1 + (interference > threshold))
