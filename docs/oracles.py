"""Every exact number the library is held to, expected and obtained: writes docs/oracles.md.

    python docs/oracles.py [--quick] [--out FILE]

What is expected is a closed form or a published value; what is obtained comes from the library or
from a numerical experiment, never from the same formula. With --quick the slow rows keep the
numbers that the page has. A section is a function that yields rows, listed below; they live in
docs/oracle_sections.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from oracle_sections import dense, geometry, limits, optima, planar
from oracle_sections.rows import Row

SECTIONS: dict[str, Callable[[], Iterator[Row]]] = {
    "Moments of a world": dense.moments,
    "The linear model": dense.linear_model,
    "Polygons, one feature at a time": planar.polygons,
    "Points on a sphere": planar.thomson,
    "Dimensionality": geometry.dimensionality,
    "Attacks on the input": geometry.adversarial,
    "Correlated and exclusive features": geometry.correlation,
    "Examples memorised": geometry.memorisation,
    "Two features in one dimension": optima.pairs,
    "Minima of the exact loss": optima.minima,
    "Bounds and recovery": limits.bounds,
    "Sparse autoencoders": limits.dictionaries,
}

PAGE = Path(__file__).with_suffix(".md")
OPENING = """# Oracles

Each number that the library is held to, twice: as expected, from a closed form or a publication,
and as obtained by another route, the library's own algorithm or a numerical experiment. Rows that
begin with "the same from" hold a library function to the closed form of the row above.
`python docs/oracles.py` writes this page and fails where they differ by more than the tolerance.
Losses are sums over features and means over samples; active features are uniform on (0, 1].
"""
HEADER = "| quantity | source | expected | obtained | tolerance |\n|---|---|---:|---:|---:|\n"


def page(number: Callable[[Row], str]) -> str:
    """The whole page, given how to show the number obtained of a row."""
    parts = [OPENING]
    for title, rows in SECTIONS.items():
        lines = "".join(row.line(number(row)) for row in rows())
        parts.append(f"## {title}\n\n{HEADER}{lines}")
    return "\n".join(parts)


def known(text: str) -> dict[tuple[str, str], str]:
    """The numbers obtained that a page shows, by quantity and source."""
    lines = [line.split(" | ") for line in text.splitlines() if line.count(" | ") == 4]
    return {(cells[0].removeprefix("| "), cells[1]): cells[3] for cells in lines}


def main() -> int:
    """Write the page; 1 where a number differs from what is expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="keep the numbers of slow rows")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    before = known(PAGE.read_text("utf-8")) if options.quick and PAGE.exists() else {}
    wrong = []

    def number(row: Row) -> str:
        if row.slow and options.quick:
            return before.get((row.quantity, row.source), "")
        obtained = row.obtain()
        if not abs(obtained - row.expected) <= row.tolerance:
            wrong.append(f"{row.quantity}: {obtained!r}, expected {row.expected!r}\n")
        return row.text(obtained)

    options.out.write_text(page(number), "utf-8")
    sys.stderr.writelines(wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
