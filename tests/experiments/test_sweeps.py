"""Packing and un-mixing on sweeps that do not go the usual way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import superpose as sp
from superpose import records
from superpose.experiments import packing, unmixing
from superpose.experiments.configuration import SweepSection, UnmixSection

SECTION = UnmixSection(samples=2_000, activations=1_000, scored=1_000, seeds=2)


def _run(*models):
    """A run over worlds with the given weights `[runs, n, m]` each, as if trained."""
    n, m = models[0].shape[-2:]
    worlds = [sp.Features(n=n, p=0.5 / (w + 1)) for w in range(len(models))]
    run = sp.train(sp.ToyModel(n=n, m=m), worlds, sp.Training(steps=1), runs=len(models[0]))
    W = torch.stack(models)
    b = torch.zeros(W.shape[:-1])
    loss = torch.stack(
        [sp.theory.expected_loss(W[w], b[w], world) for w, world in enumerate(worlds)]
    )
    state = replace(run.state, parameters={"W": W, "b": b}, loss=loss)
    return replace(run, state=state)


DEDICATED = torch.tensor([[1.0, 0], [0, 1.0], [0, 0], [0, 0]])
DIGONS = torch.tensor([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])


def test_a_model_called_superposed_is():
    # The best model of the sparse world is dedicated, most others are digons.
    weak = DIGONS * 0.52
    run = _run(torch.stack([DEDICATED] * 3), torch.stack([DEDICATED, weak, weak]))
    found = {subject.name: subject for subject in unmixing.subjects(run)}
    assert run.loss[1].argmin() == 0
    assert found["after"].superposed == found["after"].represented == 4
    assert found["before"].superposed == 0


def test_diverged_runs_are_left_out_and_named(tmp_path):
    run = _run(torch.stack([DEDICATED] * 3), torch.stack([DIGONS] * 3))
    run.loss[1, 2] = torch.nan
    run.W[1, 2] = torch.nan
    packing.see(run, tmp_path / "seen", {})
    seen = records.load(tmp_path / "seen")
    assert "runs [2] diverged and were left out" in seen.about["notes"]
    assert set(seen.tables["models"]["run"].to_pylist()) == {0, 1}
    unmixing.unmix_all(run, SECTION, tmp_path / "unmixed", {})
    run.loss[:] = torch.nan
    with pytest.raises(ValueError, match="every run of the sweep diverged"):
        packing.see(run, tmp_path / "nothing", {})


def test_models_that_represent_nothing_are_counted_and_not_unmixed(tmp_path):
    run = _run(torch.stack([DEDICATED] * 2), torch.stack([DEDICATED * 0] * 2))
    packing.see(run, tmp_path / "seen", {})
    shapes = records.load(tmp_path / "seen").tables["shapes"].to_pylist()
    assert [row["model"] for row in shapes if row["p"] == 0.25] == ["nothing represented"] * 2
    assert [subject.name for subject in unmixing.subjects(run)] == ["before"]


def test_each_feature_counts_near_one_value_only(tmp_path):
    # D = 0.388 lies within 0.02 of both 2/5 and 3/8.
    run = _run(torch.stack([DIGONS] * 2))
    lines = packing._lines(run).to_pylist()
    share = {row["line"]: row["estimate"] for row in lines}
    assert share["1/2"] == 1.0
    assert sum(share[line] for line in packing.LINES) == 1.0


def test_a_sweep_in_parts_equals_the_sweep_at_once(tmp_path):
    section = SweepSection(n=4, m=2, densities=(1.0, 0.3), runs=2, steps=50, batch=64)
    seen = []
    whole = packing.pack(section, 5, tmp_path / "models", lambda *at: seen.append(at))
    model, recipe = sp.ToyModel(n=4, m=2), sp.Training(steps=50, batch=64)
    worlds = [sp.Features(n=4, p=p) for p in (1.0, 0.3)]
    once = sp.train(model, worlds, recipe, runs=2, seed=5)
    assert torch.equal(whole.W, once.W)
    assert torch.equal(whole.loss, once.loss)
    assert seen[-1] == (4, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert np.array_equal(packing.pack(section, 5, tmp_path / "models").index, once.index)
