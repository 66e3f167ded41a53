"""Sweeps: a plan, a store that loses nothing, and runners on one machine or many.

Names load on first use, so that a worker imports what it needs alone.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "ConfigurationError": "configuration",
    "Here": "here",
    "Plan": "plan",
    "Processes": "processes",
    "Ray": "cluster",
    "Sweep": "store",
    "SweepConfiguration": "configuration",
    "boundaries": "refinement",
    "calibrate": "calibration",
    "estimate": "calibration",
    "json_schema": "configuration",
    "parse": "configuration",
    "read": "configuration",
    "savings": "refinement",
    "sizes": "calibration",
}

__all__ = sorted(_HOME)  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
