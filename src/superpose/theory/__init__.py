"""What must come out: losses, moments and minima from a world's law alone.

Nothing here knows how models are trained, so that agreement with training is evidence.
"""

from superpose.theory.adversarial import attack, attack_gain
from superpose.theory.bounds import (
    almost_orthogonal,
    interference_bound,
    linear_readout_floor,
    random_coherence,
    welch_bound,
)
from superpose.theory.branches import branch_crossing
from superpose.theory.collapse import Rung, collapse_ladder, collapsed_sets
from superpose.theory.configurations import (
    Boundary,
    Configuration,
    PhasePlane,
    antipodal_without_bias,
    configurations,
    exact_boundary,
    phase_boundary,
    phase_plane,
    states,
)
from superpose.theory.dictionaries import absorption_gain, hedging_angle, shrunk_code
from superpose.theory.dynamics import (
    hessian_learning_coefficient,
    linear_flow,
    linear_learning_coefficient,
)
from superpose.theory.factors import Factor, best_factors, factor, factor_crossing, factors
from superpose.theory.known import KnownOptimum, known_optima
from superpose.theory.linear import linear_feature_losses, linear_minimum, linear_optimal_bias
from superpose.theory.loss import (
    LossAndGradient,
    active_probability,
    expected_loss,
    feature_losses,
    loss_and_gradient,
    loss_by_active,
)
from superpose.theory.moments import covariance, mean, second_moments
from superpose.theory.optimum import (
    Minimum,
    Optimum,
    local_minima,
    optima,
    optimum,
)
from superpose.theory.polygons import (
    Polygon,
    crosstalk,
    k_gon,
    memorising_polygon,
    own_error,
    single_feature_loss,
)
from superpose.theory.recovery import (
    guaranteed_sparsity,
    recovery_probability,
    sparse_recovery_dimensions,
    threshold_capacity,
)
from superpose.theory.sharing import SharedDimension, shared_dimension
from superpose.theory.thomson import ThomsonMinimum, thomson_energy, thomson_minimum

__all__ = [
    "Boundary",
    "Configuration",
    "Factor",
    "KnownOptimum",
    "LossAndGradient",
    "Minimum",
    "Optimum",
    "PhasePlane",
    "Polygon",
    "Rung",
    "SharedDimension",
    "ThomsonMinimum",
    "absorption_gain",
    "active_probability",
    "almost_orthogonal",
    "antipodal_without_bias",
    "attack",
    "attack_gain",
    "best_factors",
    "branch_crossing",
    "collapse_ladder",
    "collapsed_sets",
    "configurations",
    "covariance",
    "crosstalk",
    "exact_boundary",
    "expected_loss",
    "factor",
    "factor_crossing",
    "factors",
    "feature_losses",
    "guaranteed_sparsity",
    "hedging_angle",
    "hessian_learning_coefficient",
    "interference_bound",
    "k_gon",
    "known_optima",
    "linear_feature_losses",
    "linear_flow",
    "linear_learning_coefficient",
    "linear_minimum",
    "linear_optimal_bias",
    "linear_readout_floor",
    "local_minima",
    "loss_and_gradient",
    "loss_by_active",
    "mean",
    "memorising_polygon",
    "optima",
    "optimum",
    "own_error",
    "phase_boundary",
    "phase_plane",
    "random_coherence",
    "recovery_probability",
    "second_moments",
    "shared_dimension",
    "shrunk_code",
    "single_feature_loss",
    "sparse_recovery_dimensions",
    "states",
    "thomson_energy",
    "thomson_minimum",
    "threshold_capacity",
    "welch_bound",
]
