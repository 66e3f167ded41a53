"""Code compiled for the machine by numba, kept on disk between processes."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.ccallback import CFunc


class Compiler:
    """Compiles the functions of one folder's modules, free of Python's lock.

    Numba takes what it has on disk for fresh while the function's own file is the same. Compiled
    code holds that of the functions it calls, so here it must be as fresh as all of the folder.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        sources = (each.read_bytes() for each in [Path(__file__), *sorted(folder.glob("*.py"))])
        self.stamp = sha256(b"\0".join(sources)).hexdigest()
        self.options = {"nogil": True, **options}

    def __call__(self, function: Any = None, **options: Any) -> Any:
        """Compile a function; with options only, a decorator that does."""
        if function is None:
            return lambda function: self(function, **options)
        return self._kept(njit(cache=True, **self.options, **options)(function))

    def inner(self, function: Any = None, **options: Any) -> Any:
        """Compile what only other compiled code calls, and what makes no arrays.

        There is no way in from Python, it becomes part of its caller, and arrays are not counted:
        an atomic increment for every mention of one costs more than a short loop.
        """
        bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
        bare["_nrt"] = False
        return self(function, **bare, **options)

    def callback(self, function: Any, signature: Any) -> CFunc:
        """Compile a function of plain C types, whose `.address` other compiled code may call."""
        found = CFunc(function, (signature.args, signature.return_type), {}, {"nopython": True})
        found.enable_caching()
        self._kept(found).compile()
        return found

    def _kept(self, compiled: Any) -> Any:
        if cached := getattr(compiled, "_cache", None):
            cached._cache_file._source_stamp = self.stamp
        return compiled
