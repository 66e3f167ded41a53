"""How the kernels are compiled."""

from pathlib import Path

from superpose.compilation import Compiler

FASTMATH = {"reassoc", "contract", "nsz"}
"""Sums may be reordered (that is what lets them vectorise); NaN and infinity keep their meaning,
so that a diverged model is seen."""

compiled = Compiler(Path(__file__).parent)
inner = compiled.inner
