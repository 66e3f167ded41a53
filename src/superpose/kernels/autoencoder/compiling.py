"""How these kernels are compiled: as those of the folder above, whose products they call."""

from pathlib import Path
from typing import Any

from superpose.compilation import Compiler
from superpose.kernels import compiling

# Dividing by zero gives infinity, as NumPy has it: no loop that checks for it is vectorised.
compiled = Compiler(Path(__file__).parent, error_model="numpy")
# What is compiled in from the folder above has to be as fresh as what is here.
compiled.stamp += compiling.compiled.stamp
inner = compiled.inner


def shared(function: Any) -> Any:
    """Compile once what several kernels call row by row, and what makes no arrays.

    As `inner`, but a function of its own: a part of each of its callers takes long to compile.
    """
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)
