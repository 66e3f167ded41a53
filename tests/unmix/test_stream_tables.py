"""Samples from tables: each once an epoch, wherever they lie, and what cannot be a sample."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from superpose import Activations
from superpose.unmix import stream
from superpose.unmix.stream import tables

ROWS, D = 500, 3
# The first column tells which sample it is.
TABLE = np.random.default_rng(0).standard_normal((ROWS, D)).astype(np.float32)
TABLE[:, 0] = np.arange(ROWS)


def drawn(data, count, batch=64, seed=0, target=None):
    with stream.open(data, batch, seed, target) as found:
        batches = [found.batch().x.copy() for _ in range(count)]
        return np.concatenate(batches), found


def numbers(x, found):
    """Which samples these are."""
    return np.rint(x[:, 0] * found.units.scale[0] + found.units.centre[0]).astype(int)


def in_shards(folder: Path, x=TABLE) -> Path:
    folder.mkdir()
    np.save(folder / "a.npy", x[:120])
    save_file(
        {"activations": torch.tensor(x[120:360]).reshape(24, 10, -1)}, folder / "b.safetensors"
    )
    np.savez(folder / "c.npz", hidden=x[360:])
    (folder / "notes.txt").write_text("not samples")
    return folder


@pytest.fixture
def little(monkeypatch):
    """Files larger than what is mixed at a time: eight blocks of 16 samples."""
    monkeypatch.setattr(tables, "BLOCK", 16 * 4 * D)
    monkeypatch.setattr(tables, "POOL", 8 * 16 * 4 * D)


@pytest.mark.parametrize("held_out", [0.0, 0.1])
@pytest.mark.parametrize("where", ["memory", "mapped"])
def test_every_sample_comes_once_an_epoch(where, held_out, little, tmp_path):
    data = TABLE if where == "memory" else in_shards(tmp_path / "shards")
    source = stream.source(data, held_out=held_out)
    held = source.held_out()[0][:, 0].numpy().astype(int)
    kept = sorted(set(range(ROWS)) - set(held.tolist()))
    x, found = drawn(source, 3 * ROWS // 64 + 1)
    order = numbers(x, found)
    epochs = [order[k * len(kept) : (k + 1) * len(kept)] for k in range(3)]
    assert all(sorted(epoch) == kept for epoch in epochs)
    assert found.samples == len(kept) == ROWS - round(held_out * ROWS)
    assert not np.array_equal(epochs[0], epochs[1])


@given(rows=st.integers(1, 40), batch=st.integers(1, 90), block=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_epochs_follow_one_another_without_a_gap(rows, batch, block):
    source = stream.source(np.stack([np.arange(rows), np.arange(rows) % 2], 1) + 0.0)
    source.origin.block, source.origin.mixed = block, 2
    if rows == 1:
        source = stream.source(np.eye(2))
    total = source.origin.samples
    count = 2 * -(-total // batch)
    x, _ = drawn(source, count, batch)
    order = x[: 2 * total].reshape(2, total, 2)
    assert np.array_equal(np.sort(order[0], 0), np.sort(order[1], 0))


def test_batches_are_a_function_of_the_samples_and_the_seed():
    first, _ = drawn(TABLE, 5)
    assert np.array_equal(first, drawn(torch.tensor(TABLE), 5)[0])
    assert np.array_equal(first, drawn(Activations(TABLE), 5)[0])
    assert not np.array_equal(first, drawn(TABLE, 5, seed=1)[0])


def test_a_folder_that_fits_the_pool_gives_what_memory_gives(tmp_path):
    folder = in_shards(tmp_path / "shards")
    (from_memory, one), (from_files, other) = drawn(TABLE, 20), drawn(folder, 20)
    assert np.array_equal(from_memory, from_files)
    assert (
        one.shuffling
        == other.shuffling
        == "each epoch is one random permutation of all 500 samples"
    )
    assert (one.memory, other.memory) == (0, TABLE.nbytes)


def test_mapped_samples_are_mixed_as_far_as_is_said(little, tmp_path):
    x, found = drawn(in_shards(tmp_path / "shards"), 8)
    assert "blocks of 16 consecutive samples" in found.shuffling
    assert "mixes 8 blocks, 128 samples, at a time" in found.shuffling
    order = numbers(x, found)[:128]
    assert len({int(number) // 16 for number in order}) <= 9  # the last block is a short one
    # Within what is mixed, neighbours in the stream are of any two blocks.
    assert np.mean(order[1:] // 16 == order[:-1] // 16) < 0.3
    assert found.memory == 128 * 4 * D


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_units_make_the_mean_zero_and_the_mean_squared_norm_one(offset):
    wide = TABLE.astype(np.float64) + offset
    x, found = drawn(wide, 1, batch=ROWS)
    assert np.abs(x.mean(0)).max() < 1e-6
    assert (x.astype(np.float64) ** 2).sum(1).mean() == pytest.approx(1, abs=1e-6)
    assert np.allclose(found.units.centre, wide.mean(0), rtol=1e-14)
    exact = np.sqrt(((wide - wide.mean(0)) ** 2).sum(1).mean())
    assert found.units.scale == pytest.approx(np.full(D, exact), rel=1e-12)
    assert found.measured == ROWS


def test_layers_have_units_of_their_own_and_are_one_together():
    other = 100 * TABLE[:, 1:] + 5
    x, found = drawn([TABLE, other], 1, batch=ROWS)
    assert (found.d_in, found.layers) == (5, (3, 2))
    for part in (x[:, :3], x[:, 3:]):
        assert (part.astype(np.float64) ** 2).sum(1).mean() == pytest.approx(0.5, abs=1e-6)
    assert found.target_units is found.units
    alone, one = drawn(TABLE, 1, batch=ROWS)
    assert np.allclose(x[:, :3] * 2**0.5, alone, atol=1e-6)
    assert one.layers == ()


def test_a_target_stays_beside_its_sample():
    target = -3 * TABLE[:, :2] + 1
    with stream.open(TABLE, 64, 0, target) as found:
        x, y = found.batch()
        assert (found.d_in, found.d_out) == (3, 2)
        assert y is not x
        back = y * found.target_units.scale + found.target_units.centre
        assert np.allclose(
            back[:, 0], -3 * (x[:, 0] * found.units.scale[0] + found.units.centre[0]) + 1
        )
    with stream.open(TABLE, 64, 0) as found:
        x, y = found.batch()
        assert y is x


KINDS = ["float16", "float32", "float64"]
FILES = [(suffix, kind) for suffix in (".npy", ".npz", ".safetensors") for kind in KINDS]


@pytest.mark.parametrize(("suffix", "kind"), [*FILES, (".safetensors", "bfloat16")])
def test_every_kind_of_float_is_read_as_it_is(suffix, kind, tmp_path):
    tensor = torch.tensor(TABLE[:60]).to(getattr(torch, kind)).reshape(2, 30, D)
    path = tmp_path / f"acts{suffix}"
    if suffix == ".npy":
        np.save(path, tensor.numpy())
    elif suffix == ".npz":
        np.savez(path, acts=tensor.numpy(), step=np.arange(3))
    else:
        save_file({"activations": tensor, "other": torch.ones(9, 9)}, path)
    x, found = drawn(path, 1, batch=60)
    memory, _ = drawn(tensor, 1, batch=60)
    assert np.array_equal(x, memory)
    assert np.allclose(found.units.centre, tensor.double().reshape(-1, D).mean(0).numpy())


def test_shards_of_several_kinds_become_the_widest(tmp_path):
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s" / "1.npy", TABLE[:50].astype(np.float16))
    np.save(tmp_path / "s" / "0.npy", TABLE[50:99])
    x, found = drawn(tmp_path / "s", 1, batch=99)
    expected = np.concatenate([TABLE[50:99], TABLE[:50].astype(np.float16)])
    assert np.array_equal(x, drawn(expected, 1, batch=99)[0])
    assert found.source.origin.tables[0].place(49).endswith("1.npy: row 0")


def test_what_is_held_out_is_the_same_for_every_seed_and_in_short_runs(monkeypatch):
    wide = np.stack([np.arange(100_000.0), np.zeros(100_000)], 1)
    source = stream.source(wide, held_out=0.05)
    held = source.held_out()[0][:, 0].numpy()
    assert len(held) == len(np.unique(held)) <= 5000
    assert len(held) > 4900
    assert (np.diff(held) == 1).mean() > 0.9
    assert np.histogram(held, 10, (0, 1e5))[0].min() > 100
    assert np.array_equal(held, stream.source(wide, held_out=0.05).held_out()[0][:, 0])
    assert len(stream.source(wide, held_out=0.5).held_out()[0]) <= tables.HELD_OUT
    assert len(stream.source(wide).held_out()[0]) == 0


def test_units_leave_out_what_is_held_out():
    source = stream.source(TABLE, held_out=0.2)
    with stream.open(source, 10, 0) as found:
        held = source.held_out()[0].double().sum(0).numpy()
        expected = (TABLE.astype(np.float64).sum(0) - held) / found.samples
        assert np.allclose(found.units.centre, expected)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1e-9, float("nan")])
def test_a_share_leaves_samples_on_both_sides(share):
    with pytest.raises(ValueError, match="at least one sample on either side"):
        stream.source(TABLE, held_out=share)


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, np.float32), (np.inf, np.float16), (1e30, np.float64)]
)
def test_a_value_of_no_use_is_named_by_file_and_row(value, kind, tmp_path):
    wrong = TABLE[:40].astype(kind)
    wrong[7, 1] = value
    folder = tmp_path / "s"
    folder.mkdir()
    np.save(folder / "a.npy", TABLE[:40])
    np.save(folder / "b.npy", wrong)
    with pytest.raises(
        ValueError, match=rf"b\.npy: row 7 has {re.escape(str(value))} in column 1; .*repair"
    ):
        stream.open(folder, 8, 0)
    with pytest.raises(ValueError, match="acts: row 7 has"):
        stream.open(wrong, 8, 0)


def test_equal_samples_have_no_units():
    with pytest.raises(
        ValueError, match="all samples of acts are equal, so there is nothing to un-mix"
    ):
        stream.open(np.ones((9, 2)), 3, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros(3), r"shape \[3\]"),
        (np.zeros((0, 2)), r"shape \[0, 2\]"),
        (np.array([["a"]]), "real numbers"),
        (np.array([[1j]]), "real numbers"),
        ([TABLE, TABLE[:9]], "layer 1 has 500 samples and layer 2 9"),
        (7, "acts is a int: pass"),
        ({"layer": TABLE}, "acts is a dict: pass"),
        ([TABLE, lambda: iter([TABLE])], "of different sorts"),
    ],
    ids=["line", "empty", "text", "complex", "rows", "number", "mapping", "sorts"],
)
def test_what_cannot_be_samples_is_refused_in_a_sentence(data, words):
    with pytest.raises(ValueError, match=words):
        stream.open(data, 4, 0)


def test_files_that_cannot_be_read_are_named(tmp_path):
    cases = {
        "text.npy": b"not an array",
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
        "cut.npz": b"PK\x03\x04",
        "acts.pt": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{name}: .*({'read' if name.endswith('pt') else 'not a readable'})"
        ):
            stream.source(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.npy: no such file"):
        stream.source(tmp_path / "none.npy")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"empty: no \.npy"):
        stream.source(empty)
    np.save(empty / "a.npy", np.ones((4, 3)))
    np.save(empty / "b.npy", np.ones((4, 2)))
    with pytest.raises(
        ValueError, match=r"b\.npy: its samples have 2 values, those of .*a\.npy have 3"
    ):
        stream.source(empty)
    for name, array in {"whole.npy": np.ones((3, 2), int), "line.npy": np.ones(3)}.items():
        np.save(tmp_path / name, array)
        with pytest.raises(ValueError, match=name):
            stream.source(tmp_path / name)
    np.save(tmp_path / "turned.npy", np.asfortranarray(np.ones((3, 4, 2))))
    with pytest.raises(ValueError, match=r"turned\.npy: in Fortran order"):
        stream.source(tmp_path / "turned.npy")
    np.savez(tmp_path / "two.npz", a=np.ones((3, 2)), b=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r'two\.npz: holds a .*name one "activations"'):
        stream.source(tmp_path / "two.npz")


def test_a_digest_tells_samples_apart(tmp_path):
    folder = in_shards(tmp_path / "shards")
    changed = TABLE.copy()
    changed[250, 2] += 1
    digests = [
        stream.source(data, held_out=share).digest()
        for data, share in (
            (TABLE, 0.0),
            (changed, 0.0),
            (TABLE[:-1], 0.0),
            (TABLE, 0.1),
            (folder, 0.0),
        )
    ]
    assert len({str(each) for each in digests}) == len(digests)
    assert digests[0] == stream.source(torch.tensor(TABLE)).digest()
