"""Numbers in sentences: with their interval where there is one, and never outside their range."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def measured(row: Mapping[str, Any], digits: int = 2, prefix: str = "") -> str:
    """An estimate with its bounds; without them where they say nothing (one seed alone).

    >>> measured({"estimate": 0.5, "low": 0.4, "high": 0.6})
    '0.50 [0.40, 0.60]'
    >>> measured({"estimate": 0.5, "low": -np.inf, "high": np.inf})
    '0.50'
    """
    keys = (prefix, f"{prefix}_low", f"{prefix}_high") if prefix else ("estimate", "low", "high")
    estimate, low, high = (_number(row[key]) for key in keys)
    if not np.isfinite(estimate):
        return "–"
    text = f"{estimate:.{digits}f}"
    bounds = f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text + bounds if np.isfinite([low, high]).all() else text


def percent(row: Mapping[str, Any]) -> str:
    """A share as a percentage; its bounds are cut at 0 and 100 %, which a share cannot pass.

    >>> percent({"estimate": 0.9, "low": 0.7, "high": 1.1})
    '90 % [70, 100]'
    """
    estimate, low, high = (100 * _number(row[key]) for key in ("estimate", "low", "high"))
    text = f"{estimate:.0f} %"
    if not np.isfinite([low, high]).all():
        return text
    return f"{text} [{max(low, min(0, estimate)):.0f}, {min(high, 100):.0f}]"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "dimension"), count(5, "dimension")
    ('1 dimension', '5 dimensions')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
