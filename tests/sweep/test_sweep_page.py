"""The page about sweeps says what is: its files parse, its example runs, its keys are all keys."""

import re
from pathlib import Path

import pytest
import torch

from superpose.sweep import Here, Sweep, parse
from superpose.sweep.run import run

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"
TEXT = PAGE.read_text("utf-8")
FILES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(FILES)))
def test_every_file_on_the_page_is_one_that_a_sweep_takes(number):
    assert parse(FILES[number]).axes


def test_the_example_of_the_page_runs_as_told(tmp_path, monkeypatch):
    for module in ("duckdb", "polars"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    # The optimum is not what is looked at here.
    configuration = parse(FILES[0].replace("2_000", "20"))
    assert not run(Sweep.create("onset", configuration, sizes=(100,)), Here()).missing
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["models"].num_rows == 240
    assert names["by_density"].num_rows == names["best"].height == 30
    assert torch.equal(names["again"].W[0], names["kept"].W[3])
    assert names["sweep"].plan.at(names["index"])[1] == 3


def test_every_key_is_on_the_page_with_its_default():
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", TEXT, re.MULTILINE)
    plain = parse({"model": {"n": 2, "m": 1}}).model_dump(mode="json")
    for name, value in plain.items():
        for field in value if isinstance(value, dict) else [None]:
            assert f"`{name}.{field}`" in TEXT if field else f"`{name}`" in TEXT, (name, field)
    told = {keys.strip("`"): default.strip("`").replace(",", "") for keys, default in rows}
    for key in ("seed", "seeds", "restarts", "world.importance", "training.lr", "shards.seconds"):
        section, _, field = key.partition(".")
        assert float(told[key]) == (plain[section][field] if field else plain[section])
