"""The code of docs/truth.md runs, from its first block to its last, and gives what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "truth.md"


def test_the_page_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    assert names["batch"].f().shape == (1_000, 64)
    assert len(names["scores"].recall) == 2
    assert names["tree"].probability == pytest.approx(names["p"], rel=1e-2)
    assert len(names["rays"].directions) == 21 + 100 + 3 * 8
    assert names["hidden"].d == 2
    assert (names["again"].features.p - names["small"].features.p).max() < 1e-6
