"""`superpose unmix`: trains, says how it goes, goes on where it stopped, and never a traceback."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import superpose as sp
from superpose import cli

SMALL = ["--d-sae", "16", "--samples", "6400", "--batch", "64", "--seeds", "2"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder to work in, with samples of eight sparse features in four dimensions."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    f = (rng.random((3000, 8)) < 0.15) * rng.random((3000, 8))
    np.save("acts.npy", (f @ rng.standard_normal((8, 4))).astype(np.float32))
    return "acts.npy"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command here: its exit code, and what it wrote."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["superpose", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        written = capsys.readouterr()
        return end.value.code, written.out, written.err

    return call


def test_it_trains_scores_on_samples_held_out_and_is_done_once(data, command, tmp_path):
    code, out, errors = command("unmix", data, "--out", "o", "--k", "2", *SMALL)
    assert code == 0, errors
    assert "2 of TopK, 16 latents; each epoch is one random permutation of all 2,850 samples" in out
    assert "scored on 150 samples held out" in out
    assert "training: 200 of 200" in errors
    for word in ("loss ", "L0 ", "explained variance ", "dead ", "samples/s"):
        assert word in errors
    sae = sp.unmix.load("o/sae")
    assert sae.code == sp.unmix.TopK(d_sae=16, k=2)
    first = json.loads((tmp_path / "o" / "scores.json").read_text())
    before = sae.arrays()
    code, out, errors = command("unmix", data, "--out", "o", "--k", "2", *SMALL, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(out) == first
    for name, array in sp.unmix.load("o/sae").arrays().items():
        assert np.array_equal(array, before[name])
    x = torch.tensor(np.load(data))
    whole = [sp.measures.explained_variance(x, each.decode(each.encode(x))) for each in sae]
    assert first["explained_variance"]["estimate"] == pytest.approx(np.mean(whole), abs=0.1)
    assert first["explained_variance"]["low"] < first["explained_variance"]["high"]
    assert first["held_out"] == 150


@pytest.mark.parametrize(
    ("name", "option", "kind"),
    [
        ("batchtopk", ["--k", "2"], "BatchTopK"),
        ("jumprelu", ["--l0", "2"], "JumpReLU"),
        ("l1", ["--coefficient", "0.2"], "L1"),
        ("gated", ["--coefficient", "0.2"], "Gated"),
        ("matryoshka", ["--k", "2"], "Matryoshka"),
        ("mp", ["--k", "2"], "MatchingPursuit"),
    ],
)
def test_every_code_is_a_word(name, option, kind, data, command):
    short = ["--d-sae", "8", "--samples", "640", "--batch", "64", "--seeds", "1", "--json"]
    code, out, errors = command("unmix", data, "--out", "o", "--code", name, *option, *short)
    assert code == 0, errors
    said = json.loads(out)
    assert said["code"]["name"] == kind
    assert said["code"][option[0][2:]] == float(option[1])
    assert said["l0"]["low"] is None  # one seed says nothing of the spread


def test_a_target_and_another_format(data, command):
    np.save("target.npy", np.load(data) ** 2)
    words = ["--target", "target.npy", "--format", "sparsify", "--quiet", "--samples", "640"]
    words += ["--d-sae", "32"]
    code, out, errors = command("unmix", data, "--out", "o", *words, "--seeds", "1")
    assert (code, out) == (0, ""), errors
    assert errors.startswith("superpose: SAELens")  # what to mind about the format
    sae = sp.unmix.load("o/sae")
    assert sae.W_dec.shape == (1, 32, 4)
    assert not sae.subtract
    (folder,) = Path("o/sparsify").glob("**/sae.safetensors")
    x = torch.tensor(np.load(data))
    imported = sp.unmix.load(folder.parent)
    assert torch.allclose(imported.encode(x), sae[0].encode(x), atol=1e-5)
    # A format that cannot hold it is said at the end, and nothing of the training is lost.
    np.save("narrow.npy", np.load(data)[:, :3])
    code, _, errors = command("unmix", data, "--out", "n", "--target", "narrow.npy", *words[2:])
    assert code == 1
    assert "sparsify knows one size for both" in errors
    assert sp.unmix.load("n/sae").W_dec.shape == (3, 32, 3)
    assert Path("n/scores.json").is_file()


@pytest.mark.parametrize(
    ("case", "words", "exit_code", "sentence"),
    [
        ("no file", ["none.npy"], 1, "none.npy: no such file"),
        ("a suffix", ["acts.pt"], 2, "samples are read from .npy"),
        ("no array", ["broken.npy"], 2, "broken.npy: not a readable .npy file"),
        ("a value", ["nan.npy"], 2, "nan.npy: row 5 has nan in column 1"),
        ("clash", ["acts.npy", "--k", "2", "--code", "l1"], 2, "--k is not for --code l1"),
        ("k", ["acts.npy", "--k", "0"], 2, "k is a whole number of at least 1"),
        ("samples", ["acts.npy", "--samples", "0"], 2, "samples is a whole number"),
        ("code", ["acts.npy", "--code", "relu"], 2, "relu"),
        ("rows", ["acts.npy", "--target", "short.npy"], 2, "3,000 samples and short.npy 9"),
        ("seeds", ["acts.npy", "--seeds", "0"], 2, "at least one member"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_bad_input_is_one_sentence(case, words, exit_code, sentence, data, command, tmp_path):
    (tmp_path / "acts.pt").write_bytes(b"")
    (tmp_path / "broken.npy").write_bytes(b"no array")
    wrong = np.load(data)
    wrong[5, 1] = np.nan
    np.save("nan.npy", wrong)
    np.save("short.npy", wrong[:9, :1] * 0 + 1)
    code, out, errors = command("unmix", *words, "--out", "o")
    assert (code, out) == (exit_code, ""), errors
    assert sentence in errors.replace("\n", " ")
    assert "Traceback" not in errors
    assert not (tmp_path / "o").exists()


def test_another_training_in_the_folder_is_refused(data, command):
    short = ["--d-sae", "8", "--samples", "640", "--seeds", "1", "--quiet"]
    assert command("unmix", data, "--out", "o", "--k", "2", *short)[0] == 0
    code, _, errors = command("unmix", data, "--out", "o", "--k", "3", *short)
    assert code == 2
    assert "holds another training: codes k was 2 and is now 3" in errors


def test_a_training_that_diverged_is_a_failure_with_advice(data, command):
    words = ["--lr", "1e20", "--d-sae", "8", "--samples", "6400", "--seeds", "1"]
    code, _, errors = command("unmix", data, "--out", "o", *words)
    assert code == 1
    assert "diverged; lower lr" in errors


def test_an_interrupted_training_goes_on_and_ends_as_an_uninterrupted_one(data, command, tmp_path):
    long = ["--d-sae", "16", "--samples", "96000", "--batch", "64", "--seeds", "2"]
    words = ["unmix", data, "--k", "2", *long]
    command_line = [sys.executable, "-m", "superpose.cli", *words, "--out", "o"]
    # A job started in the background may have been told to ignore interrupts, and so its children.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    piped = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed}
    with subprocess.Popen(command_line, **piped) as process:
        heard = next(line for line in process.stderr if line.startswith("training: "))
        process.send_signal(signal.SIGINT)
        errors = heard + process.stderr.read()
    assert process.returncode == 130, errors
    assert "stopping after this step" in errors
    assert "interrupted; run the same command again to go on" in errors
    assert not (tmp_path / "o" / "sae").exists()
    assert command(*words, "--out", "o", "--quiet")[0] == 0
    assert command(*words, "--out", "whole", "--quiet")[0] == 0
    resumed, whole = (sp.unmix.load(folder + "/sae").arrays() for folder in ("o", "whole"))
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
