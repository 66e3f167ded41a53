"""How the kernels are compiled."""

from pathlib import Path

from superpose.compilation import Compiler

FASTMATH = {"reassoc", "contract", "nsz"}
"""Sums may be reordered (that is what lets them vectorise); NaN and infinity keep their meaning,
so that a diverged model is seen."""

# By default numba looks at each divisor for a zero, and no loop that may raise becomes vectors.
compiled = Compiler(Path(__file__).parent, error_model="numpy")
inner = compiled.inner
