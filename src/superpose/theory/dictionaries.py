"""What a sparse autoencoder gets wrong by design: shrinkage, absorption and hedging."""

import math

from jaxtyping import Float
from torch import Tensor


def shrunk_code(a: Float[Tensor, "*any"], penalty: float) -> Float[Tensor, "*any"]:
    r"""The best non-negative code of a feature under an L1 penalty: $z = (a - \lambda / 2)_+$.

    It minimises $\|x - z d\|^2 + \lambda z$ over $z \ge 0$ where a = x · d and the unit direction
    d is orthogonal to the others in use. Every active latent is too small by $\lambda / 2$, and
    features weaker than that are lost; the best code costs $\lambda a - \lambda^2 / 4$ above 0.
    With the squared error halved or averaged over dimensions, as some trainers have it, scale
    $\lambda$ accordingly.
    Raises ValueError for a negative penalty.
    Source: R. Tibshirani 1996, Regression Shrinkage and Selection via the Lasso, section 2.2.

    >>> import torch
    >>> shrunk_code(torch.tensor([0.05, 0.5, 1.0]), penalty=0.2)
    tensor([0.0000, 0.4000, 0.9000])
    """
    if not penalty >= 0:
        raise ValueError(f"shrunk_code(penalty={penalty:g}): a penalty is at least 0")
    return (a - penalty / 2).clamp(min=0)


def absorption_gain(p_child: float, cosine: float = 0.0) -> float:
    r"""What a sparse autoencoder saves in L1 by letting a child absorb its parent.

    Parent and child have unit directions with the given `cosine` and are active at 1, the child
    only where the parent is, with probability `p_child`. Two latents that follow the features
    put out 1 + 1; a latent for the child whose unit decoder points along $f_0 + f_1$ puts out
    $\|f_0 + f_1\| = \sqrt{2 + 2 \cos}$ alone. Neither leaves an error, so the penalty decides and
    the expected saving is $p_{child} (2 - \sqrt{2 + 2 \cos})$, times the coefficient of the
    penalty: $p_{child} (2 - \sqrt 2)$ for orthogonal features. At least 0: absorption never
    costs, and gains nothing only between parallel directions. An L0 penalty saves one active
    latent, $p_{child}$, at every angle.
    Raises ValueError for a probability outside [0, 1] or a cosine outside [-1, 1].
    Source: Chanin et al. 2024, A is for Absorption; the sum is worked out here.

    >>> round(absorption_gain(0.25), 6)
    0.146447
    """
    if not 0 <= p_child <= 1 or not -1 <= cosine <= 1:
        raise ValueError(
            f"absorption_gain(p_child={p_child:g}, cosine={cosine:g}): the probability lies in "
            "[0, 1] and the cosine of the two directions in [-1, 1]"
        )
    return p_child * (2 - math.sqrt(2 + 2 * cosine))


def hedging_angle(first: float, second: float, together: float) -> float:
    r"""Angle by which a dictionary with one latent for two features turns off the first: radians.

    The features have orthogonal unit directions and second moments $q_1 = E x_1^2$ = `first`,
    $q_2$ = `second`, $q_{12} = E x_1 x_2$ = `together`. The one direction of least
    reconstruction error, whatever the sparsity, is the top eigenvector of their matrix, at
    $\tan 2 \theta = 2 q_{12} / (q_1 - q_2)$ from the first feature's: 0 (good) exactly where
    $q_{12} = 0$ and $q_1 > q_2$, up to $\pi / 4$ for features as strong as each other, beyond it
    where the second is the stronger. Independent features that are never negative hedge too,
    for $q_{12} = E x_1 E x_2$: a bias that removes the means, and central moments here, prevent it.
    In [-π/2, π/2]. Raises ValueError where the three are no second moments,
    $q_{12}^2 > q_1 q_2$, and where no direction is best, $q_1 = q_2$ and $q_{12} = 0$.
    Source: Chanin et al. 2025, Feature Hedging; the angle is worked out here.

    >>> round(hedging_angle(0.3, 0.1, 0.05), 6)
    0.231824
    """
    if min(first, second) < 0 or together**2 > first * second * (1 + 1e-12):
        raise ValueError(
            f"hedging_angle({first:g}, {second:g}, {together:g}): for second moments q1, q2, q12, "
            "q1 and q2 are at least 0 and q12² is at most q1 q2"
        )
    if together == 0 and first == second:
        raise ValueError(
            f"hedging_angle({first:g}, {second:g}, 0): both features are as strong and unrelated, "
            "so every direction between them is as good"
        )
    return math.atan2(2 * together, first - second) / 2
