"""Shapes are checked while testing: annotated functions of the package run under beartype."""

from importlib.util import find_spec
from pathlib import Path

from jaxtyping import install_import_hook

# What numba compiles must reach it unwrapped.
COMPILED = {"superpose.kernels.batches", "superpose.kernels.cpu", "superpose.theory.relu"}


def _modules() -> set[str]:
    root = Path(find_spec("superpose").origin).parent
    files = (file.relative_to(root.parent).with_suffix("") for file in root.rglob("*.py"))
    return {".".join(file.parts) for file in files if file.name != "__init__"}


install_import_hook(sorted(_modules() - COMPILED), "typechecking.typecheck")
