"""Folders that the other tools themselves saved: our dictionaries give their numbers."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from superpose.unmix import formats
from superpose.unmix.codes import (
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    TopK,
)

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"

CODES = {
    "saelens_standard": L1,
    "saelens_topk": TopK,
    "saelens_jumprelu": JumpReLU,
    "saelens_gated": Gated,
    "saelens_matching_pursuit": MatchingPursuit,
    "saelens_transcoder": L1,
    "saelens_jumprelu_transcoder": JumpReLU,
    "saelens_checkpoint_batchtopk": BatchTopK,
    "saelens_checkpoint_matryoshka_batchtopk": Matryoshka,
    "saelens_checkpoint_topk": TopK,
    "saelens_checkpoint_jumprelu": JumpReLU,
    "dictionary_learning_standard": L1,
    "dictionary_learning_standard_raw": L1,
    "dictionary_learning_april": L1,
    "dictionary_learning_top_k": TopK,
    "dictionary_learning_batch_top_k": BatchTopK,
    "dictionary_learning_short": BatchTopK,
    "dictionary_learning_matryoshka": Matryoshka,
    "dictionary_learning_jumprelu": JumpReLU,
    "dictionary_learning_gated": Gated,
    "dictionary_learning_batch_top_k_backup": BatchTopK,
    "dictionary_learning_jumprelu_backup": JumpReLU,
    "sparsify_topk": TopK,
    "sparsify_transcode": TopK,
    "sparsify_expansion": TopK,
    "sparsify_run/layers.0": TopK,
    "sparsify_run/layers.1.mlp/seed0": TopK,
    "sparsify_run/layers.1.mlp/seed1": TopK,
}
REFUSED = {
    "saelens_abstopk": "keep their sign",
    "saelens_skip_transcoder": "W_skip",
    "sparsify_skip": "W_skip",
    "sparsify_groupmax": "groupmax",
}


def read(name):
    with warnings.catch_warnings():
        # Which traps are told is the business of other tests.
        warnings.simplefilter("ignore", formats.FormatWarning)
        return formats.read(PEERS / name, raw=name.endswith("_raw"))


def expected(name):
    with np.load(PEERS / name / "expected.npz") as found:
        return tuple(torch.from_numpy(found[key]) for key in "xzy")


def close(ours, theirs):
    scale = theirs.abs().max()
    assert torch.allclose(ours, theirs, rtol=2e-5, atol=2e-6 * float(scale))


@pytest.mark.parametrize("name", CODES)
def test_a_folder_gives_the_numbers_of_the_tool_that_saved_it(name):
    found = read(name)
    x, z, y = expected(name)
    ours = found.sae.encode(x)
    close(ours, z)
    assert torch.equal(ours > 0, z > 0)
    close(found.sae.decode(z), y)
    assert isinstance(found.sae.code, CODES[name])
    assert name.startswith(found.format)


@pytest.mark.parametrize("name", CODES)
def test_its_certificate_says_so(name):
    found = read(name)
    certificate = found.certificate
    assert certificate.passed
    assert certificate.supports_equal
    # Rounding of float32, and not a vacuous comparison.
    assert max(certificate.encode_relative, certificate.decode_relative) < 1e-6
    assert 1 <= certificate.active <= found.sae.code.d_sae - 1
    assert certificate.probes >= 90


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_here_is_refused_in_a_sentence(name):
    with pytest.raises(formats.FormatError, match=REFUSED[name]) as raised:
        formats.read(PEERS / name)
    assert "\n" not in str(raised.value)


def test_seeds_of_a_hookpoint_are_a_stack():
    stack = read("sparsify_run/layers.1.mlp").sae
    for number in range(2):
        alone = read(f"sparsify_run/layers.1.mlp/seed{number}").sae
        assert torch.equal(stack[number].W_dec, alone.W_dec)
    x, _, _ = expected("sparsify_run/layers.0")
    assert stack.encode(x).shape == (2, len(x), 10)


def test_of_several_hookpoints_one_has_to_be_chosen():
    with pytest.raises(formats.FormatError, match=r"choose one of layers\.0, layers\.1\.mlp"):
        formats.read(PEERS / "sparsify_run")


@pytest.mark.parametrize("name", [*CODES, *REFUSED])
def test_fixtures_are_small(name):
    folder = PEERS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000


def test_every_fixture_is_checked_and_its_maker_is_there():
    folders = {str(path.parent.relative_to(PEERS)) for path in PEERS.rglob("expected.npz")}
    assert folders == {*CODES, *REFUSED}
    tools = ("saelens", "dictionary_learning", "sparsify")
    assert all((PEERS / f"make_{tool}.py").is_file() for tool in tools)
