"""What must come out: losses, moments and minima from a world's law alone.

Nothing here knows how models are trained, so that agreement with training is evidence.
"""

from superpose.theory.linear import linear_feature_losses, linear_minimum, linear_optimal_bias
from superpose.theory.loss import expected_loss, feature_losses
from superpose.theory.moments import covariance, mean, second_moments

__all__ = [
    "covariance",
    "expected_loss",
    "feature_losses",
    "linear_feature_losses",
    "linear_minimum",
    "linear_optimal_bias",
    "mean",
    "second_moments",
]
