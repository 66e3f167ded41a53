"""superpose: a laboratory for superposition. Pack, see, un-mix, and measure your own network.

Names load on first use, so that `import superpose` and `superpose --help` stay light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Activations": "activations",
    "BatchTopK": "unmix",
    "Constant": "features",
    "Exponential": "features",
    "Features": "features",
    "Gated": "unmix",
    "HalfNormal": "features",
    "JumpReLU": "unmix",
    "L1": "unmix",
    "MatchingPursuit": "unmix",
    "Matryoshka": "unmix",
    "Plateau": "engine",
    "SAE": "unmix",
    "SAETraining": "unmix",
    "Sweep": "sweep",
    "TopK": "unmix",
    "ToyModel": "models",
    "Training": "engine",
    "Uniform": "features",
    "capacity": "measures",
    "dimensionality": "measures",
    "dims_per_feature": "measures",
    "feature_norms": "measures",
    "harvest": "networks",
    "interference": "measures",
    "load": "engine",
    "log_steps": "engine",
    "match": "unmix",
    "measure": "networks",
    "name": "networks",
    "plot": "figures",
    "polysemanticity": "measures",
    "superposition_test": "networks",
    "train": "engine",
}
_MODULES = (
    "geometry",
    "initialisation",
    "measures",
    "phases",
    "statistics",
    "sweep",
    "theory",
    "truth",
    "unmix",
)

__all__ = sorted([*_HOME, *_MODULES, "__version__"])  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'superpose' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
