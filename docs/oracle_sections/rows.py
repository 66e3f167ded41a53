"""A row of the table of oracles."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity: what it should be, how to obtain it, and how near it must come.

    `tolerance` is absolute, and sets the digits shown. A `slow` row takes more than a second or
    so.
    """

    quantity: str
    source: str
    expected: float
    obtain: Callable[[], float]
    tolerance: float
    slow: bool = False

    def text(self, value: float) -> str:
        """A number to the digits that the tolerance vouches for."""
        digits = max(0, math.ceil(-math.log10(self.tolerance)))
        # Adding 0 turns a negative zero, which rounding can leave, into zero.
        return f"{round(value, digits) + 0.0:.{digits}f}"

    def line(self, obtained: str) -> str:
        """The row of the table, given the number obtained as it is to be shown."""
        cells = (self.quantity, self.source, self.text(self.expected), obtained)
        return f"| {' | '.join(cells)} | {self.tolerance:.0e} |\n"
