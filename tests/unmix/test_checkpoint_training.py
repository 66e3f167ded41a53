"""A training that was interrupted and resumed ends as one that was not, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import superpose as sp
from superpose.unmix import checkpoint, stream
from superpose.unmix.stream import iterators, tables

DATA = torch.relu(torch.randn(700, 12, generator=torch.Generator().manual_seed(0)) - 1) @ (
    torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
)
# Few samples until a latent is dead, so that some are revived before and after the cut.
RECIPE = sp.SAETraining(samples=60 * 64, batch=64, dead_after=256, decay=0.1)
CODES = {
    "TopK": sp.unmix.TopK(d_sae=20, k=2),
    "BatchTopK": sp.unmix.BatchTopK(d_sae=20, k=2),
    "Matryoshka": sp.unmix.Matryoshka(d_sae=20, k=2),
    "JumpReLU": sp.unmix.JumpReLU(d_sae=20, l0=2.0),
    "L1": sp.unmix.L1(d_sae=20, coefficient=0.3),
    "Gated": sp.unmix.Gated(d_sae=20, coefficient=0.3),
    "MatchingPursuit": sp.unmix.MatchingPursuit(d_sae=20, k=2),
}


def interrupt_at(steps):
    def progress(done, total):
        if done >= steps:
            raise InterruptedError("as told")

    return progress


def same(one, other):
    """Whether two stacks have the same bits, and went the same way but for its pace."""
    assert one.arrays().keys() == other.arrays().keys()
    for name, array in one.arrays().items():
        assert np.array_equal(array, other.arrays()[name]), name
    assert one.advice == other.advice
    histories = [each.history.drop_columns(["rate"]).to_pylist() for each in (one, other)]
    assert str(histories[0]) == str(histories[1])  # NaN equals NaN here


def resumed(folder, data, code, cuts=(50,), **options):
    for cut in cuts:
        with pytest.raises(InterruptedError):
            sp.unmix(data(), code, RECIPE, folder=folder, progress=interrupt_at(cut), **options)
    return sp.unmix(data(), code, RECIPE, folder=folder, **options)


@pytest.mark.parametrize("name", CODES)
def test_every_code_goes_on_bit_for_bit(name, tmp_path):
    code = CODES[name]
    whole = sp.unmix(DATA, code, RECIPE, seeds=2)
    same(whole, resumed(tmp_path / "c", lambda: DATA, code, seeds=2))
    # Once more: there is nothing left to do.
    same(whole, sp.unmix(DATA, code, RECIPE, seeds=2, folder=tmp_path / "c"))


def test_several_codes_on_one_stream_go_on_together(tmp_path):
    codes = [CODES["TopK"], CODES["L1"], replace(CODES["TopK"], d_sae=30)]
    whole = sp.unmix(DATA, codes, RECIPE, seeds=2)
    after = resumed(tmp_path / "c", lambda: DATA, codes, cuts=(60, 200), seeds=2)
    for one, other in zip(whole, after, strict=True):
        same(one, other)


class World:
    def draw(self, batch, number, seed):
        generator = torch.Generator().manual_seed(1000 * number + seed)
        return type("Drawn", (), {"x": torch.randn(batch, 6, generator=generator).relu()})


def iterator():
    return iter(DATA.split(45))


@pytest.fixture
def sources(tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(folder / "0.npy", DATA[:300].numpy())
    save_file({"activations": DATA[300:]}, folder / "1.safetensors")
    monkeypatch.setattr(tables, "BLOCK", 24 * 20)
    monkeypatch.setattr(tables, "POOL", 24 * 100)
    monkeypatch.setattr(iterators, "BUFFER", 150)
    return {
        "mapped": (folder, {}),
        "held out": (stream.source(folder, held_out=0.1), {}),
        "iterator": (iterator, {}),
        "world": (World(), {}),
        "target": (DATA, {"target": DATA[:, :4].abs()}),
        "layers": ([DATA, DATA[:, :3] * 5], {}),
    }


@pytest.mark.parametrize("kind", ["mapped", "held out", "iterator", "world", "target", "layers"])
def test_every_source_goes_on_bit_for_bit(kind, sources, tmp_path):
    data, options = sources[kind]
    whole = sp.unmix(data, CODES["TopK"], RECIPE, seeds=1, **options)
    after = resumed(tmp_path / "c", lambda: data, CODES["TopK"], cuts=(20, 37), seeds=1, **options)
    same(whole, after)


@pytest.mark.parametrize("at", [9, 40, 41, 42])
def test_a_source_that_fails_in_between_can_be_mended(at, tmp_path):
    recipe = replace(RECIPE, samples=400 * 8, batch=8)  # of which some steps are one block
    given = []

    def failing():
        for chunk in DATA.split(45):
            given.append(len(chunk))
            if len(given) == at:
                raise OSError("the disk is away")
            yield chunk

    def train():
        return sp.unmix(failing, CODES["BatchTopK"], recipe, seeds=1, folder=tmp_path / "c")

    with pytest.raises(OSError, match="the disk is away"):
        train()
    same(sp.unmix(iterator, CODES["BatchTopK"], recipe, seeds=1), train())


def test_checkpoints_in_between_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.0)
    kept = sp.unmix(DATA, CODES["BatchTopK"], RECIPE, seeds=1, folder=tmp_path / "c")
    same(sp.unmix(DATA, CODES["BatchTopK"], RECIPE, seeds=1), kept)
    assert sorted(each.name for each in (tmp_path / "c").iterdir()) == ["0", "1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": CODES["L1"]}, "codes .*name was TopK and is now L1"),
        ({"training": replace(RECIPE, lr=0.02)}, r"training lr was 0\.005 and is now 0\.02"),
        ({"seeds": 2}, r"seeds was \[0\] and is now \[0, 1\]"),
        ({"seed": 5}, "seed was 0 and is now 5"),
        ({"acts": DATA + 1}, "data sha256 was"),
        ({"target": DATA}, "data widths was"),
    ],
    ids=["code", "training", "seeds", "seed", "acts", "target"],
)
def test_a_folder_of_another_training_is_refused(change, words, tmp_path):
    call = {"acts": DATA, "code": CODES["TopK"], "training": RECIPE, "seeds": 1}
    with pytest.raises(InterruptedError):
        sp.unmix(**call, folder=tmp_path / "c", progress=interrupt_at(9))
    with pytest.raises(ValueError, match=words):
        sp.unmix(**call | change, folder=tmp_path / "c")


def test_an_iterator_that_comes_once_is_refused_before_it_is_trained_on(tmp_path):
    with pytest.raises(ValueError, match="cannot be resumed; pass a function"):
        sp.unmix(iterator(), CODES["TopK"], RECIPE, seeds=1, folder=tmp_path / "c")
