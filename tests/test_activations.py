"""Activations: what is accepted, what is refused and why, and the two parts of a split."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from superpose import Activations

TABLE = np.arange(12.0).reshape(6, 2)


def test_numbers_become_float32_and_names_become_arrays():
    acts = Activations(TABLE, tokens=list("abcdef"), labels=range(6))
    assert acts.x.dtype == torch.float32
    assert len(acts) == 6
    assert acts.tokens.tolist() == list("abcdef")
    assert acts.labels.tolist() == list(range(6))


def test_all_zero_activations_are_activations():
    assert not Activations(np.zeros((3, 2))).x.any()


@pytest.mark.parametrize(
    "x", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 2)), np.zeros((2, 0))]
)
def test_other_shapes_are_refused(x):
    with pytest.raises(ValueError, match=r"x is \[samples, d\]"):
        Activations(x)


@pytest.mark.parametrize("x", [np.array([["a"]]), np.array([[1j]])])
def test_what_is_not_a_real_number_is_refused(x):
    with pytest.raises(ValueError, match="real numbers"):
        Activations(x)


def test_missing_numbers_are_counted_and_located():
    x = TABLE.copy()
    x[2, 1], x[4, 0], x[5, 1] = np.nan, np.inf, np.nan
    with pytest.raises(ValueError, match=r"2 NaN and 1 infinite values, the first at \[2, 1\]"):
        Activations(x)


@pytest.mark.parametrize("name", ["tokens", "labels"])
def test_names_are_one_a_sample(name):
    with pytest.raises(ValueError, match=f"{name} of shape .* for 6 samples"):
        Activations(TABLE, **{name: ["only", "two"]})
    with pytest.raises(ValueError, match="whole numbers or strings"):
        Activations(TABLE, **{name: np.linspace(0, 1, 6)})


def _save(path, arrays):
    if path.suffix == ".npy":
        np.save(path, arrays["activations"])
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.tensor(array) for name, array in arrays.items()}, path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_files_hold_what_was_saved(tmp_path, suffix):
    path = tmp_path / f"acts{suffix}"
    _save(path, {"activations": TABLE, "other": TABLE + 1})
    acts = Activations.from_file(path, labels=list("abcdef"))
    assert torch.equal(acts.x, torch.tensor(TABLE, dtype=torch.float32))
    assert acts.labels.tolist() == list("abcdef")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_only_table_is_taken_and_two_are_a_question(tmp_path, suffix):
    path = tmp_path / f"acts{suffix}"
    _save(path, {"hidden": TABLE, "bias": np.zeros(2)})
    assert Activations.from_file(path).x.shape == (6, 2)
    _save(path, {"hidden": TABLE, "more": TABLE})
    with pytest.raises(ValueError, match=r'acts.*hidden .*name one "activations"'):
        Activations.from_file(path)


def test_half_precision_tensors_are_read(tmp_path):
    path = tmp_path / "acts.safetensors"
    save_file({"activations": torch.ones(2, 3, dtype=torch.bfloat16)}, path)
    assert Activations.from_file(path).x.dtype == torch.float32


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not an array", bytes(200)])
def test_corrupt_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"acts{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"acts\{suffix}: not a readable"):
        Activations.from_file(path)


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / "acts.npz"
    np.savez(path, activations=TABLE)
    path.write_bytes(path.read_bytes()[:120])
    with pytest.raises(ValueError, match=r"acts\.npz: not a readable"):
        Activations.from_file(path)


def test_pickles_are_never_loaded(tmp_path):
    path = tmp_path / "acts.npy"
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a readable"):
        Activations.from_file(path)


def test_missing_files_other_suffixes_and_text_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npy: no such file"):
        Activations.from_file(tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"\.npy, \.npz, \.safetensors"):
        Activations.from_file(tmp_path / "acts.pt")
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    with pytest.raises(ValueError, match=r"text\.npy"):
        Activations.from_file(tmp_path / "text.npy")


def test_a_split_is_disjoint_complete_and_repeatable():
    acts = Activations(TABLE, tokens=range(6), labels=list("abcdef"))
    first, second = acts.split(0.5, seed=3)
    assert sorted([*first.labels, *second.labels]) == list("abcdef")
    assert len(first) == 3
    for part in (first, second):
        assert torch.equal(part.x, acts.x[torch.tensor(part.tokens)])
    assert acts.split(0.5, seed=3)[0].labels.tolist() == first.labels.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 0.01, float("nan")])
def test_a_split_leaves_samples_on_both_sides(fraction):
    with pytest.raises(ValueError, match="at least one sample on either side"):
        Activations(TABLE).split(fraction)
