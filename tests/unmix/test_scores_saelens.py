"""Our version of SAELens's scores against its own numbers, on the same dictionaries and samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from superpose.unmix import L1, SAE, match, saelens_scores

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
THEIRS = json.loads((PEERS / "saelens_scores.json").read_text("utf-8"))["scores"]
ARRAYS = load_file(PEERS / "saelens_scores.safetensors")


def dictionary(name):
    W = ARRAYS[f"{name}.W_dec"]
    code = L1(d_sae=len(W), coefficient=0.0)
    b_enc, b_dec = ARRAYS[f"{name}.b_enc"], ARRAYS[f"{name}.b_dec"]
    return SAE(W.T.contiguous(), b_enc, W, b_dec, code)


def ours(name):
    x, truth, amplitude = (ARRAYS[part] for part in ("x", "truth", "amplitude"))
    return saelens_scores(dictionary(name), truth, x, amplitude)


@pytest.mark.parametrize("name", ["near", "random"])
def test_every_number_is_theirs(name):
    theirs = dict(THEIRS[name])
    theirs |= theirs.pop("classification")
    theirs["f1"], theirs["l0"], theirs["dead"] = (
        theirs.pop(each) for each in ("f1_score", "sae_l0", "dead_latents")
    )
    del theirs["true_l0"]
    found = ours(name)
    assert {f"{each}_saelens" for each in theirs} == found.keys()
    for each, number in theirs.items():
        np.testing.assert_allclose(found[f"{each}_saelens"], [number], rtol=2e-6, err_msg=each)


def test_theirs_takes_a_flipped_direction_for_the_same_and_ours_does_not():
    flipped = -torch.eye(4)
    sae = SAE(flipped, torch.zeros(4), flipped, torch.zeros(4), L1(d_sae=4, coefficient=0.0))
    x = torch.eye(4)
    assert saelens_scores(sae, x, x, x)["mcc_saelens"].item() == pytest.approx(1.0)
    assert match(sae, x).mcc.item() <= 0.0


def test_a_feature_that_nobody_covers_costs_nothing_there_and_counts_here():
    one = torch.eye(4)[:1]
    sae = SAE(one.T.contiguous(), torch.zeros(1), one, torch.zeros(4), L1(d_sae=1, coefficient=0.0))
    x = torch.eye(4)
    assert saelens_scores(sae, x, x, x)["f1_saelens"].item() == 1.0
    assert match(sae, x, x, x).firing_f1.item() == 0.25


def test_explained_variance_and_l0_are_the_same_definition():
    x, truth, amplitude = (ARRAYS[part] for part in ("x", "truth", "amplitude"))
    mine, found = match(dictionary("near"), truth, x, amplitude), ours("near")
    assert mine.explained_variance == pytest.approx(found["explained_variance_saelens"])
    assert mine.l0 == pytest.approx(found["l0_saelens"])
