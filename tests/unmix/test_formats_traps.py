"""Each trap of a format is told, and none where there is none."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from superpose.unmix import formats
from superpose.unmix.codes import L1, BatchTopK, JumpReLU, TopK
from superpose.unmix.sae import SAE

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
LIBRARY = Path(formats.__file__).parents[2]


@pytest.fixture
def copy(tmp_path):
    """A fixture to change: `copy(name, key=value, ...)`, a value of None takes the key out."""

    def copied(name, **changes):
        folder = tmp_path / name
        shutil.copytree(PEERS / name, folder)
        (path,) = (
            folder / each for each in ("cfg.json", "config.json") if (folder / each).exists()
        )
        config = json.loads(path.read_text())
        inside = config.get("trainer", config)
        inside.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del inside[key]
        path.write_text(json.dumps(config))
        return folder

    return copied


def told(folder, **details):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = formats.read(folder, **details)
    assert all(each.category is formats.FormatWarning for each in caught)
    # Whoever called is who is warned, not the library.
    assert all(not Path(each.filename).is_relative_to(LIBRARY) for each in caught)
    return found, " | ".join(str(each.message) for each in caught)


def expected(folder):
    with np.load(folder / "expected.npz") as held:
        return tuple(torch.from_numpy(held[key]) for key in "xzy")


def gives(sae, folder):
    x, z, _ = expected(folder)
    return torch.allclose(sae.encode(x), z, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "saelens_standard",
        "saelens_gated",
        "saelens_checkpoint_matryoshka_batchtopk",
        "dictionary_learning_top_k",
        "dictionary_learning_gated",
        "sparsify_topk",
        "sparsify_expansion",
    ],
)
def test_a_plain_folder_is_read_without_a_word(name):
    assert told(PEERS / name)[1] == ""


def test_a_version_before_6_is_rewritten_as_saelens_does(copy):
    folder = copy("saelens_standard", metadata=None, architecture=None, hook_point="blocks.0")
    found, said = told(folder)
    assert "not 6.0.0 or later" in said
    assert gives(found.sae, folder)
    older = copy(
        "saelens_topk",
        metadata={"sae_lens_version": "5.10.1"},
        architecture="standard",
        k=None,
        activation_fn_str="topk",
        activation_fn_kwargs={"k": 3},
        normalize_activations=False,
    )
    found, said = told(older)
    assert isinstance(found.sae.code, TopK)
    assert "5.10.1" in said
    assert gives(found.sae, older)


def test_an_old_configuration_with_heads_says_so(copy):
    details = {"metadata": None, "reshape_activations": None}
    folder = copy("saelens_standard", hook_name="blocks.0.attn.hook_z", **details)
    assert "heads · d_head" in told(folder)[1]


def test_an_old_scaling_of_latents_is_refused(copy):
    folder = copy("saelens_standard", metadata=None, finetuning_scaling_factor=True)
    with pytest.raises(formats.FormatError, match="finetuning_scaling_factor"):
        formats.read(folder)
    other = copy("saelens_gated", metadata=None, activation_fn="tanh-relu")
    with pytest.raises(formats.FormatError, match="tanh-relu"):
        formats.read(other)
    third = copy("saelens_topk")
    path = third / "sae_weights.safetensors"
    save_file(load_file(path) | {"scaling_factor": torch.full((10,), 2.0)}, path)
    with pytest.raises(formats.FormatError, match="scaling_factor"):
        formats.read(third)


def test_keys_that_saelens_drops_are_named(copy):
    folder = copy("saelens_standard", noise_scale=0.1, l1_coefficient=5.0)
    said = told(folder)[1]
    assert "noise_scale" in said
    assert "l1_coefficient" not in said  # a key of training, which it knows


def test_hook_z_needs_a_name_that_ends_in_z(copy):
    metadata = {"sae_lens_version": "6.5.0", "hook_name": "blocks.0.attn.hook_result"}
    folder = copy("saelens_standard", reshape_activations="hook_z", metadata=metadata)
    assert "cannot load it" in told(folder)[1]
    metadata["hook_name"] = "blocks.0.attn.hook_z"
    other = copy("saelens_jumprelu", reshape_activations="hook_z", metadata=metadata)
    said = told(other)[1]
    assert "flatten them" in said
    assert "cannot load it" not in said


def test_a_precision_that_saelens_would_round_to_is_told(copy):
    assert "rounds the stored float32" in told(copy("saelens_standard", dtype="bfloat16"))[1]
    folder = copy("saelens_gated")
    path = folder / "sae_weights.safetensors"
    save_file({key: value.double() for key, value in load_file(path).items()}, path)
    found, said = told(folder)
    assert "float64, rounded to float32" in said
    assert gives(found.sae, folder)


@pytest.mark.parametrize("mode", ["layer_norm", "constant_norm_rescale", "by_the_moon"])
def test_a_normalisation_that_no_weights_can_do_is_refused(mode, copy):
    with pytest.raises(formats.FormatError, match=f"{mode}.* cannot be folded"):
        formats.read(copy("saelens_standard", normalize_activations=mode))


def test_a_scale_comes_from_the_checkpoint_or_from_the_caller(copy):
    folder = copy("saelens_checkpoint_batchtopk")
    found, said = told(folder)
    assert "activations times 0.37" in said
    assert gives(found.sae, folder)
    (folder / "activation_scaler.json").unlink()
    with pytest.raises(formats.FormatError, match="read scale="):
        formats.read(folder)
    assert gives(told(folder, scale=0.37)[0].sae, folder)
    with pytest.raises(formats.FormatError, match="positive number"):
        formats.read(folder, scale=-1.0)
    with pytest.raises(formats.FormatError, match="no scale to give"):
        formats.read(PEERS / "saelens_standard", scale=2.0)
    with pytest.raises(formats.FormatError, match="of a transcoder cannot be"):
        formats.read(copy("saelens_transcoder", normalize_activations="covariance_whitening"))


def test_a_whitening_has_to_be_in_the_folder(copy):
    folder = copy("saelens_checkpoint_topk")
    assert "whitened activations" in told(folder)[1]
    (folder / "activation_whitening.safetensors").unlink()
    with pytest.raises(formats.FormatError, match="is not in the folder"):
        formats.read(folder)


def test_a_mean_k_that_is_a_fraction_becomes_a_threshold(copy):
    folder = copy("saelens_checkpoint_matryoshka_batchtopk", k=2.5)
    found, _ = told(folder)
    assert isinstance(found.sae.code, JumpReLU)
    assert gives(found.sae, folder)
    assert "terms of its code in training are not known" in found.sae.advice[0]


def test_a_pursuit_that_stops_early_is_refused(copy):
    for change in ({"residual_threshold": 0.01}, {"stop_on_duplicate_support": True}):
        folder = copy("saelens_matching_pursuit", **change)
        with pytest.raises(formats.FormatError, match="fixed number of rounds"):
            formats.read(folder)
        shutil.rmtree(folder)
    with pytest.raises(formats.FormatError, match="max_iterations"):
        formats.read(copy("saelens_matching_pursuit", max_iterations=11))


def test_a_transcoder_that_subtracts_what_it_writes_is_refused(copy):
    with pytest.raises(formats.FormatError, match="apply_b_dec_to_input"):
        formats.read(copy("saelens_transcoder", apply_b_dec_to_input=True))


def test_without_b_dec_at_the_input_nothing_is_subtracted(copy):
    folder = copy("saelens_standard", apply_b_dec_to_input=False)
    sae = formats.load(folder)
    x, _, _ = expected(folder)
    assert not sae.subtract
    assert torch.equal(sae.encode(x), (x @ sae.W_enc + sae.b_enc).relu())


def test_a_threshold_that_training_never_set_is_a_dense_relu():
    found, said = told(PEERS / "dictionary_learning_short")
    assert "threshold is still -1" in said
    assert "before step 1000" in said
    x, z, _ = expected(PEERS / "dictionary_learning_short")
    assert torch.equal(found.sae.encode(x) > 0, z > 0)
    assert (found.sae.extra["threshold"] == 0).all()


def test_a_decoder_that_the_library_renormalises_can_be_had_as_it_lies():
    found, said = told(PEERS / "dictionary_learning_standard")
    assert "raw=True to unmix.formats.read" in said
    norms = found.sae.W_dec.norm(dim=-1)
    assert torch.allclose(norms, torch.ones(10), atol=1e-6)
    raw, said = told(PEERS / "dictionary_learning_standard", raw=True)
    assert said == ""
    assert not torch.allclose(raw.sae.W_dec.norm(dim=-1), torch.ones(10), atol=0.1)
    x, _, y = expected(PEERS / "dictionary_learning_standard")
    for sae in (found.sae, raw.sae):
        assert torch.allclose(sae.decode(sae.encode(x)), y, atol=1e-4)


def test_a_row_of_zeros_cannot_be_renormalised(copy):
    folder = copy("dictionary_learning_standard")
    state = torch.load(folder / "ae.pt", weights_only=True)
    state["decoder.weight"][:, 4] = 0.0
    torch.save(state, folder / "ae.pt")
    with pytest.raises(formats.FormatError, match="raw=True"):
        formats.read(folder)
    assert formats.load(folder, raw=True).W_dec[4].norm() == 0


def test_a_backup_in_mid_training_is_brought_to_raw_units():
    said = told(PEERS / "dictionary_learning_batch_top_k_backup")[1]
    assert "backup of step 1500" in said
    assert "norm_factor, 3.7" in said


def test_a_backup_without_its_factor_says_that_it_is_missing(copy):
    folder = copy("dictionary_learning_batch_top_k_backup")
    state = torch.load(folder / "ae.pt", weights_only=True)
    del state["norm_factor"]
    torch.save(state, folder / "ae.pt")
    assert "has no norm_factor" in told(folder)[1]
    torch.save(state | {"norm_factor": 0.0}, folder / "ae.pt")
    with pytest.raises(formats.FormatError, match="positive number"):
        formats.read(folder)


def test_a_factor_that_is_in_the_weights_already_is_not_applied_again(copy):
    folder = copy("dictionary_learning_top_k", norm_factor=3.7)
    found, said = told(folder)
    assert "in the weights already" in said
    assert gives(found.sae, folder)


def test_the_two_k_of_a_folder_have_to_agree(copy):
    with pytest.raises(formats.FormatError, match=r"k is '4' here and '3' in ae\.pt"):
        formats.read(copy("dictionary_learning_top_k", k=4))


def test_an_unknown_class_is_named_with_the_known(copy):
    with pytest.raises(formats.FormatError, match=r"CrossCoder.* known are AutoEncoder"):
        formats.read(copy("dictionary_learning_top_k", dict_class="CrossCoder"))


def dictionary(code, norm=1.0, threshold=None):
    draw = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(10, 6, generator=draw), dim=-1)
    W_enc = W_dec.mT.clone()
    extra = {} if threshold is None else {"threshold": threshold}
    return SAE(
        W_enc, torch.zeros(10), norm * W_dec, torch.randn(6, generator=draw), code, extra=extra
    )


def test_decoder_rows_of_other_norms_are_told_on_the_way_to_saelens(tmp_path):
    with pytest.warns(formats.FormatWarning, match="differ from 1 by up to 1: SAEBench"):
        formats.save(dictionary(L1(d_sae=10, coefficient=0.1), 2.0), tmp_path / "a", "saelens")


def test_rows_of_other_norms_go_where_that_library_leaves_them_alone(tmp_path):
    sae = dictionary(L1(d_sae=10, coefficient=0.1), 2.0)
    formats.save(sae, tmp_path / "a", "dictionary_learning")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["trainer"]["dict_class"] == "AutoEncoderNew"
    back, said = told(tmp_path / "a")
    assert said == ""
    assert torch.equal(back.sae.W_dec, sae.W_dec)


def test_thresholds_of_their_own_go_where_there_is_one_for_each_latent(tmp_path):
    code = BatchTopK(d_sae=10, k=3)
    for threshold, name in (
        (torch.full((10,), 0.2), "BatchTopKSAE"),
        (torch.linspace(0.1, 0.3, 10), "JumpReluAutoEncoder"),
    ):
        sae = dictionary(code, threshold=threshold)
        formats.save(sae, tmp_path / name, "dictionary_learning")
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["trainer"]["dict_class"] == name
        assert formats.load(tmp_path / name).code == code


def test_saelens_misreads_sparsify_folders_and_that_is_told(tmp_path):
    with pytest.warns(formats.FormatWarning, match="decoder transposed"):
        formats.save(dictionary(TopK(d_sae=10, k=3)), tmp_path / "layers.0", "sparsify")


def test_traps_are_kept_with_the_dictionary():
    found, said = told(PEERS / "dictionary_learning_short")
    assert said in found.sae.advice
