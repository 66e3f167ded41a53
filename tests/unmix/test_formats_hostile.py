"""Files from strangers: nothing in them runs, and what is wrong is said in one sentence."""

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from superpose.unmix import formats

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
WEIGHTS = {
    "saelens_jumprelu": "sae_weights.safetensors",
    "dictionary_learning_top_k": "ae.pt",
    "sparsify_topk": "sae.safetensors",
}


@pytest.fixture(params=WEIGHTS)
def folder(request, tmp_path):
    return shutil.copytree(PEERS / request.param, tmp_path / request.param)


def weights_of(folder):
    return folder / WEIGHTS[folder.name]


def tensors_of(path):
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    return load_file(path)


def put(path, tensors):
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)


def sentence(folder, match):
    with pytest.raises(formats.FormatError, match=match) as raised:
        formats.read(folder)
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 800
    assert str(folder) in text
    return text


class Bomb:
    """Unpickling it makes a folder, which would show that it ran."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_a_pickle_that_would_run_something_does_not(tmp_path):
    folder = shutil.copytree(PEERS / "dictionary_learning_top_k", tmp_path / "a")
    mark = tmp_path / "it ran"
    torch.save({"encoder.weight": Bomb(mark)}, folder / "ae.pt")
    sentence(folder, "nothing of it was run")
    (folder / "ae.pt").write_bytes(pickle.dumps(Bomb(mark)))
    sentence(folder, "could run code")
    torch.save(
        {"encoder.weight": Bomb(mark)}, folder / "ae.pt", _use_new_zipfile_serialization=False
    )
    sentence(folder, "could run code")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb is a real one


def test_a_packed_archive_is_not_unpacked(tmp_path):
    folder = shutil.copytree(PEERS / "dictionary_learning_top_k", tmp_path / "a")
    with zipfile.ZipFile(folder / "ae.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", b"\0" * 10_000_000)
    sentence(folder, "packed archive")


def test_a_file_that_is_cut_short_is_refused(folder):
    path = weights_of(folder)
    path.write_bytes(path.read_bytes()[:-700])
    sentence(folder, path.name)


@pytest.mark.parametrize("length", [0, 1, 2**21, 2**40, 2**63])
def test_a_header_that_claims_too_much_is_refused_before_it_is_read(length, tmp_path):
    folder = shutil.copytree(PEERS / "sparsify_topk", tmp_path / "sparsify_topk")
    data = weights_of(folder).read_bytes()
    weights_of(folder).write_bytes(length.to_bytes(8, "little") + data[8:])
    sentence(folder, f"claims {length} bytes")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    folder = shutil.copytree(PEERS / "dictionary_learning_top_k", tmp_path / "a")
    state = tensors_of(folder / "ae.pt")
    state["encoder.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, folder / "ae.pt")
    sentence(folder, "not a plain table of real numbers")


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(10, 6).to_sparse(),
        torch.zeros(10, 6, dtype=torch.int64),
        torch.zeros(10, 6, dtype=torch.complex64),
        torch.zeros(10, 6, device="meta"),
    ],
    ids=["sparse", "whole", "complex", "meta"],
)
def test_tensors_of_other_kinds_are_refused(value, tmp_path):
    folder = shutil.copytree(PEERS / "dictionary_learning_top_k", tmp_path / "a")
    torch.save(tensors_of(folder / "ae.pt") | {"encoder.weight": value}, folder / "ae.pt")
    sentence(folder, "not a plain table|refused")


def test_a_missing_key_is_named_with_its_law(folder):
    tensors = tensors_of(weights_of(folder))
    for key in [key for key, value in tensors.items() if value.ndim]:
        put(weights_of(folder), {name: tensors[name] for name in tensors if name != key})
        sentence(folder, rf"'{key}' is missing among .*shape \[d_")


def test_a_wrong_shape_is_named_with_its_law(folder):
    tensors = tensors_of(weights_of(folder))
    for key, value in tensors.items():
        for wrong in (value[:-1], value.unsqueeze(0), value[..., None]) if value.ndim else ():
            put(weights_of(folder), tensors | {key: wrong.contiguous()})
            sentence(folder, r"where it should be \[d_|not a plain table")


def test_numbers_that_are_none_are_counted(folder):
    tensors = tensors_of(weights_of(folder))
    for number in (torch.nan, torch.inf):
        for key, value in tensors.items():
            if value.ndim and value.is_floating_point():
                spoilt = value.clone().contiguous()
                spoilt.view(-1)[1] = number
                put(weights_of(folder), tensors | {key: spoilt})
                sentence(folder, rf"'{key}' holds 1 NaN or infinite")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", "NaN", '"' * 9, "[" * 100_000, " " * 5_000_000, "\0"]
)
def test_a_configuration_that_is_no_object_is_refused(text, folder):
    (path,) = (path for path in folder.iterdir() if path.suffix == ".json")
    path.write_text(text)
    sentence(folder, "not a JSON object")


# What someone might write where a number, a text or a flag belongs.
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
KEYS = [
    ("saelens_jumprelu", "architecture"),
    ("saelens_jumprelu", "d_in"),
    ("saelens_jumprelu", "d_sae"),
    ("saelens_jumprelu", "apply_b_dec_to_input"),
    ("saelens_jumprelu", "normalize_activations"),
    ("saelens_jumprelu", "reshape_activations"),
    ("saelens_jumprelu", "metadata"),
    ("saelens_jumprelu", "dtype"),
    ("saelens_topk", "k"),
    ("saelens_topk", "rescale_acts_by_decoder_norm"),
    ("saelens_transcoder", "d_out"),
    ("saelens_matching_pursuit", "max_iterations"),
    ("saelens_matching_pursuit", "residual_threshold"),
    ("saelens_checkpoint_matryoshka_batchtopk", "matryoshka_widths"),
    ("saelens_checkpoint_matryoshka_batchtopk", "k"),
    ("dictionary_learning_top_k", "dict_class"),
    ("dictionary_learning_top_k", "k"),
    ("dictionary_learning_top_k", "norm_factor"),
    ("sparsify_topk", "activation"),
    ("sparsify_topk", "num_latents"),
    ("sparsify_topk", "expansion_factor"),
    ("sparsify_topk", "k"),
    ("sparsify_topk", "transcode"),
    ("sparsify_topk", "skip_connection"),
    ("sparsify_topk", "d_in"),
    ("sparsify_topk", "superpose_code"),
]


@pytest.mark.filterwarnings("ignore::superpose.unmix.formats.FormatWarning")
@pytest.mark.parametrize(("name", "key"), KEYS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(value=STRANGE)
def test_no_value_of_a_configuration_is_a_traceback(name, key, value, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange") / name
    shutil.copytree(PEERS / name, folder)
    (path,) = (folder / each for each in ("cfg.json", "config.json") if (folder / each).exists())
    config = json.loads(path.read_text())
    config.get("trainer", config)[key] = value
    path.write_text(json.dumps(config))
    try:
        formats.read(folder)
    except formats.FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017 - what is read is fine as well
    shutil.rmtree(folder)


def test_a_note_that_describes_another_code_is_refused(tmp_path):
    folder = shutil.copytree(PEERS / "sparsify_topk", tmp_path / "a")
    config = json.loads((folder / "cfg.json").read_text())
    for note in (
        {"name": "TopK", "d_sae": 10, "k": 99},
        {"name": "TopK", "d_sae": 4, "k": 3},
        {"name": "L1", "d_sae": 10, "coefficient": 0.1},
        {"name": "__import__"},
        {"d_sae": 10},
    ):
        (folder / "cfg.json").write_text(json.dumps(config | {"superpose_code": note}))
        sentence(folder, "superpose_code")
    # The right kind and size, but not what the files compute: the certificate sees it.
    note = {"name": "TopK", "d_sae": 10, "k": 7}
    (folder / "cfg.json").write_text(json.dumps(config | {"superpose_code": note}))
    sentence(folder, "not the same function")


def test_a_sparsity_of_the_wrong_length_is_refused(tmp_path):
    folder = shutil.copytree(PEERS / "saelens_standard", tmp_path / "a")
    save_file({"sparsity": torch.zeros(4)}, folder / "sparsity.safetensors")
    sentence(folder, "log10 of 10 frequencies")


def test_a_folder_of_nothing_known_says_what_is(tmp_path):
    with pytest.raises(formats.FormatError, match="there is no such folder"):
        formats.read(tmp_path / "none")
    with pytest.raises(formats.FormatError, match="not a dictionary of a known format"):
        formats.read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(formats.FormatError, match="give the folder that holds it"):
        formats.recognise(tmp_path / "file")


def test_a_state_that_is_no_mapping_of_names_is_refused(tmp_path):
    folder = shutil.copytree(PEERS / "dictionary_learning_top_k", tmp_path / "a")
    torch.save([torch.zeros(3)], folder / "ae.pt")
    sentence(folder, "holds a list")
    buffer = io.BytesIO()
    torch.save({1: torch.zeros(3)}, buffer)
    (folder / "ae.pt").write_bytes(buffer.getvalue())
    sentence(folder, "holds a dict and not tensors by name")
