"""The table of oracles: every number as expected, and the page in docs as the script writes it."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))
try:
    import oracles
finally:
    sys.path.remove(str(DOCS))

ROWS = [row for rows in oracles.SECTIONS.values() for row in rows()]
TEXT = oracles.PAGE.read_text("utf-8")


def _holds(row):
    assert row.obtain() == pytest.approx(row.expected, rel=0, abs=row.tolerance)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if not row.slow], ids=lambda row: row.quantity.split(":")[0]
)
def test_a_quantity_is_as_expected(row):
    _holds(row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.slow], ids=lambda row: row.quantity.split(":")[0]
)
def test_a_slow_quantity_is_as_expected(row):
    _holds(row)


def test_the_page_is_the_one_the_script_writes():
    shown = oracles.known(TEXT)
    missing = [row.quantity for row in ROWS if (row.quantity, row.source) not in shown]
    assert not missing, "run python docs/oracles.py"
    assert oracles.page(lambda row: shown[row.quantity, row.source]) == TEXT


def test_every_number_on_the_page_is_within_its_tolerance():
    shown = oracles.known(TEXT)
    for row in ROWS:
        # Half a unit of the last digit shown is at most half the tolerance.
        value = float(shown[row.quantity, row.source])
        assert value == pytest.approx(row.expected, rel=0, abs=1.5 * row.tolerance), row.quantity


def test_rows_are_told_apart_and_fit_a_table():
    assert len({(row.quantity, row.source) for row in ROWS}) == len(ROWS)
    assert not [row for row in ROWS if "|" in row.quantity + row.source]


def test_a_wrong_number_is_reported(monkeypatch, tmp_path, capsys):
    row = oracles.Row("two and two", "arithmetic", 4.0, lambda: 5.0, 0.1)
    monkeypatch.setattr(oracles, "SECTIONS", {"Sums": lambda: iter([row])})
    monkeypatch.setattr(sys, "argv", ["oracles.py", "--out", str(tmp_path / "page.md")])
    assert oracles.main() == 1
    assert "two and two: 5.0, expected 4.0" in capsys.readouterr().err
    assert "| two and two | arithmetic | 4.0 | 5.0 | 1e-01 |" in (tmp_path / "page.md").read_text()
