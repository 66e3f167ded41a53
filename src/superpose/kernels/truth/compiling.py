"""How these kernels are compiled: as those of the folder above, whose hashes they call."""

from pathlib import Path

from superpose.compilation import Compiler
from superpose.kernels import compiling

compiled = Compiler(Path(__file__).parent)
# What is compiled in from the folder above has to be as fresh as what is here.
compiled.stamp += compiling.compiled.stamp
inner = compiled.inner
