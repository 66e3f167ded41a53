"""Where it changes: from sweeps with seeds to states, boundaries and transitions, and how sure.

Along an axis of density (`find`), in a plane (`plane`, `agreement` with a known one), at one
transition (`transition`: a jump or not), and against the optimum (`gap`).
"""

from superpose.phases.agreement import Agreement, agreement
from superpose.phases.axis import Phases, find
from superpose.phases.gaps import gap
from superpose.phases.planes import Plane, exact_plane, plane
from superpose.phases.states import REPRESENTED, STATES, SUPERPOSED, state
from superpose.phases.transitions import Transition, transition

__all__ = [
    "REPRESENTED",
    "STATES",
    "SUPERPOSED",
    "Agreement",
    "Phases",
    "Plane",
    "Transition",
    "agreement",
    "exact_plane",
    "find",
    "gap",
    "plane",
    "state",
    "transition",
]
