r"""The expected squared error behind a ReLU output, for any number of features, and its slopes.

Output i sees one number, $y = b_i + \sum_j c_j x_j$ with c row i of $W W^\top$ (of
$W_{out} W_{in}^\top$ where untied), and
$E (x_i - \mathrm{ReLU}(y))^2 = E x_i^2 - 2 E[x_i \mathrm{ReLU}(y)] + E[\mathrm{ReLU}(y)^2]$.
The characteristic function of y is a product over sets of features, in closed form, so both
expectations follow from the Fourier series of ReLU. With $|y| \le H$ and $t_k = (2k-1) \pi / H$:

$2\,\mathrm{ReLU}(y) = y + |y|$, and $|y| = H/2 - \sum_k 4 \cos(t_k y) / (H t_k^2)$;

$2\,\mathrm{ReLU}(y)^2 = y^2 + y |y|$, and $y |y| = H y - \sum_k 8 \sin(t_k y) / (H t_k^3)$,

a triangle and a parabola wave, whose only kink inside the support is the one at 0. What is
polynomial in y comes from the moments.

The series converges slowly where much of the mass of y lies within $1 / t_K$ of the kink, as it
does when all features with a large $c_j$ are off and b is near 0 (trained models, whose
interferences are often 1e-5, do this). So the law is peeled by size: a level has the
features whose $|c_j|$ reach a share of the largest, its series sums over the
events in which at least one of them is active, and the event that none is goes to the next
level with a support, and so a resolution, of its own. The last level is the atom y = b.

The slopes are those of the truncated series, term by term: products over all features but j are
built from both ends, so that they cost less than the loss itself. Its number of terms, its
levels and H (rounded up) stay as they are when the weights move a little.

An amplitude law enters through three transforms (`amplitudes`). Where it has no bound, and where
many features make the support of y far wider than its law, H is where Chernoff's bound on what
lies beyond falls below an eighth of the error allowed. Split by the number of active features
(`active`), the same transforms are polynomials in the weight of an active feature.

Source: F. Fang and C. W. Oosterlee, A novel pricing method for European options based on
Fourier-cosine series expansions (2008), for the expansion of a payoff against a
characteristic function; the waves, the levels and the bound are this module's own.
"""

from superpose.theory.relu.active import rows_by_active
from superpose.theory.relu.amplitudes import CONSTANT, EXPONENTIAL, HALF_NORMAL, UNIFORM
from superpose.theory.relu.stack import row_losses, weight_gradient

__all__ = [
    "CONSTANT",
    "EXPONENTIAL",
    "HALF_NORMAL",
    "UNIFORM",
    "row_losses",
    "rows_by_active",
    "weight_gradient",
]
