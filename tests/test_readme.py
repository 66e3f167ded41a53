"""The README's code runs, and gives what its comments say."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_library_example_runs_and_its_comments_are_true():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    assert names["best"].loss.item() == pytest.approx(0.00891, abs=1e-5)
    assert names["sp"].theory.optimum(names["world"], m=2).loss == pytest.approx(0.0089, abs=5e-6)
    (factor,) = names["sp"].geometry.classify(names["best"].W[0])
    assert factor.label == "pentagon"
    assert factor.dimensionality == pytest.approx(0.4, abs=0.005)
    assert names["sp"].match(names["sae"], names["best"].W[0]).interval("recall").estimate == 1.0


def test_files_named_in_the_readme_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text("utf-8")):
        assert (README.parent / target).exists(), target
