"""The code of the README and of the pages beside it runs, and gives what its comments say."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"


def _run(page):
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    return names


def test_the_library_example_runs_and_its_comments_are_true():
    names = _run(README)
    assert names["best"].loss.item() == pytest.approx(0.00891, abs=1e-5)
    assert names["sp"].theory.optimum(names["world"], m=2).loss == pytest.approx(0.0089, abs=5e-6)
    (factor,) = names["sp"].geometry.classify(names["best"].W[0])
    assert factor.label == "pentagon"
    assert factor.dimensionality == pytest.approx(0.4, abs=0.005)
    assert names["sp"].match(names["sae"], names["best"].W[0]).interval("recall").estimate == 1.0


def test_the_phase_diagram_by_hand_can_be_done_as_told():
    names = _run(DOCS / "phase-diagram.md")
    assert names["sp"].theory.phase_boundary(n=2, m=1, r=0.5) == pytest.approx(4 / 9)
    gap = (names["run"].loss.min() / names["best"].loss - 1).item()
    assert 0 <= gap < 0.01


def test_the_test_of_superposition_claims_the_pentagon_of_its_page():
    assert _run(DOCS / "superposition-test.md")["found"].present


def test_every_kind_of_training_runs_as_its_page_says():
    names = _run(DOCS / "training.md")
    run, again, stopped = names["run"], names["again"], names["stopped"]
    assert torch.equal(again.W, run.W)
    assert (run.snapshots.loss[-1] < run.snapshots.loss[0]).all()
    assert (stopped.steps < names["sp"].Training().steps).any()
    baseline = names["world"].n * (0.5 / 3 - 0.25**2)  # of a constant guess
    assert names["absolute"].loss.item() < 0.1 * baseline
    memorised, points = names["memorised"], names["points"]
    assert memorised.loss.item() < 0.7 * (points**2).sum(1).mean().item()
    assert memorised.loss_se.item() == 0
    assert names["deep"].parameters["first"].shape == (4, 5, 4)


def test_every_kind_of_un_mixing_runs_as_its_page_says():
    names = _run(DOCS / "unmixing.md")
    assert names["scores"].interval("recall").low == 1.0
    assert names["sp"].match(names["l1"], names["W"], names["h"]).recall.mean() >= 0.9
    assert names["explained"].low > 0.99
    assert names["transcoder"].directions.shape == (1, 20, 3)
    norms = names["crosscoder"].layer_norms[0]
    ratio = (norms[:, 1] / norms[:, 0]).median().item()
    assert ratio == pytest.approx(10, rel=0.05)  # the second layer is ten times as large
    for other in (names["again"], names["loaded"]):
        assert torch.equal(other.W_enc, names["kept"].W_enc)
    assert len(names["heard"]) == len(names["kept"].history)


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_files_named_on_a_page_exist(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
