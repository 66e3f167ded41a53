"""The page on interoperability: its example runs, and its table is what the formats know."""

import json
import re
from pathlib import Path

from test_formats_export import CODES, KNOWN, make

from superpose.unmix import formats

PAGE = (Path(__file__).parents[2] / "docs" / "interoperability.md").read_text("utf-8")


def test_the_example_runs_and_its_comments_are_true():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["back"].W_enc.shape == names["sae"].W_enc.shape
    assert names["found"].certificate.passed
    assert names["found"].certificate.encode_relative < 1e-6
    assert names["certificate"].format == "saelens"


def test_the_table_names_where_each_code_goes():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    table = {cells[0].strip("`"): cells[1:] for cells in rows if cells[0].strip("`") in CODES}
    assert set(table) == set(CODES)
    for name, cells in table.items():
        for format, cell in zip(KNOWN, cells, strict=True):
            assert (cell.strip() == "–") == (name not in KNOWN[format])
            if name in KNOWN[format]:
                config = formats._draft(make(CODES[name]), format, None).config
                kind = config.get("architecture") or config.get("activation")
                assert (kind or config["trainer"]["dict_class"]) in cell, json.dumps(config)
