"""What is written for other tools: the same function, or nothing at all."""

import hashlib
import json
import warnings
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

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
from superpose.unmix.formats.certificate import TOLERANCE, certify
from superpose.unmix.formats.formulas import Encoded, Formula
from superpose.unmix.sae import SAE
from superpose.unmix.sae import load as load_any

D = 10


def make(code, *, d_in=6, d_out=None, runs=(), subtract=True, seed=0):
    """A dictionary with unit rows and nothing else special about it."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*runs, *shape, generator=draw)

    d_out = d_in if d_out is None else d_out
    W_dec = torch.nn.functional.normalize(normal(D, d_out), dim=-1)
    tied = code.tied
    W_enc = W_dec.mT.clone() if tied else 0.7 * normal(d_in, D)
    extra = {}
    if isinstance(code, BatchTopK | Matryoshka):
        extra = {"threshold": torch.full((*runs, D), 0.3)}
    if isinstance(code, JumpReLU):
        extra = {"threshold": normal(D).abs()}
    if isinstance(code, Gated):
        extra = {"log_gain": 0.3 * normal(D), "shift": 0.3 * normal(D)}
    b_enc = torch.zeros(*runs, D) if tied else 0.2 * normal(D)
    return SAE(W_enc, b_enc, W_dec, 2.0 * normal(d_out), code, extra=extra, subtract=subtract)


CODES = {
    "L1": L1(d_sae=D, coefficient=0.1, penalty="sqrt"),
    "TopK": TopK(d_sae=D, k=3, auxk=0.125),
    "BatchTopK": BatchTopK(d_sae=D, k=3),
    "Matryoshka": Matryoshka(d_sae=D, k=3, widths=(2, 5, 10)),
    "JumpReLU": JumpReLU(d_sae=D, l0=2.5, strength=0.5, bandwidth=0.1),
    "Gated": Gated(d_sae=D, coefficient=0.1),
    "MatchingPursuit": MatchingPursuit(d_sae=D, k=4),
}
KNOWN = {
    "saelens": tuple(CODES),
    "dictionary_learning": tuple(name for name in CODES if name != "MatchingPursuit"),
    "sparsify": ("TopK",),
}
PAIRS = [(name, format) for format, names in KNOWN.items() for name in names]
STRANGERS = [(name, format) for format in KNOWN for name in CODES if name not in KNOWN[format]]


def save(sae, folder, format, **details):
    """Save, expecting the warning that goes with every sparsify folder."""
    told = pytest.warns(formats.FormatWarning, match="transposed")
    with told if format == "sparsify" else nullcontext():
        return formats.save(sae, folder, format, **details)


def inputs(sae, seed=1):
    draw = torch.Generator().manual_seed(seed)
    x = 2.0 * torch.randn(50, sae.W_enc.shape[-2], generator=draw)
    return x + sae.b_dec if sae.subtract and sae.b_dec.ndim == 1 else x


def same_function(one, other):
    x = inputs(one)
    z = one.encode(x)
    assert torch.allclose(z, other.encode(x), atol=1e-5)
    assert torch.allclose(one.decode(z), other.decode(z), atol=1e-5)
    assert (z > 0).any()


@pytest.mark.parametrize(("name", "format"), PAIRS)
def test_there_and_back_is_the_same_function_and_the_same_code(name, format, tmp_path):
    sae = make(CODES[name])
    certificate = save(sae, tmp_path / "sae", format)
    assert certificate.passed
    assert certificate.active >= 1
    back = formats.load(tmp_path / "sae")
    same_function(sae, back)
    assert back.code == sae.code
    assert formats.recognise(tmp_path / "sae") == format


@pytest.mark.parametrize(("name", "format"), STRANGERS)
def test_a_code_that_a_format_does_not_know_is_refused_and_nothing_is_left(name, format, tmp_path):
    with pytest.raises(formats.FormatError, match=f"{name} is not known there") as raised:
        formats.save(make(CODES[name]), tmp_path / "sae", format)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format"), [pair for pair in PAIRS if pair[0] != "MatchingPursuit"]
)
def test_without_b_dec_in_the_input_it_stays_the_same_function(name, format, tmp_path):
    sae = make(CODES[name], subtract=False)
    save(sae, tmp_path / "sae", format)
    back = formats.load(tmp_path / "sae")
    x = inputs(sae)
    assert torch.allclose(sae.encode(x), back.encode(x), atol=2e-5)


@pytest.mark.parametrize("name", ["L1", "BatchTopK", "Matryoshka", "JumpReLU"])
def test_a_transcoder_of_two_sizes_goes_to_saelens_and_nowhere_else(name, tmp_path):
    sae = make(CODES[name], d_out=4, subtract=False)
    formats.save(sae, tmp_path / "sae", "saelens")
    same_function(sae, formats.load(tmp_path / "sae"))
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert config["architecture"].endswith("transcoder")
    assert (config["d_out"], config["apply_b_dec_to_input"]) == (4, False)
    with pytest.raises(formats.FormatError, match="6 and 4 dimensions"):
        formats.save(sae, tmp_path / "other", "dictionary_learning")


@pytest.mark.parametrize("name", ["TopK", "Gated"])
def test_a_transcoder_that_saelens_does_not_know_is_refused(name, tmp_path):
    sae = make(CODES[name], d_out=4, subtract=False)
    with pytest.raises(formats.FormatError, match=f"transcoder with the code {name}"):
        formats.save(sae, tmp_path / "sae", "saelens")


@pytest.mark.parametrize("format", KNOWN)
def test_a_stack_is_a_folder_a_member_and_comes_back_as_a_stack(format, tmp_path):
    stack = make(CODES["TopK"], runs=(3,))
    certificate = save(stack, tmp_path / "stack", format)
    assert certificate.members == 3
    names = sorted(path.name for path in (tmp_path / "stack").iterdir())
    assert names == ["seed_0", "seed_1", "seed_2"]
    found = formats.read(tmp_path / "stack")
    assert found.certificate.members == 3
    for number in range(3):
        same_function(stack[number], found.sae[number])
        save(stack[number], tmp_path / "alone", format)
        for name in ("cfg.json", "config.json"):
            path = tmp_path / "stack" / f"seed_{number}" / name
            if path.exists():
                assert path.read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_members_that_differ_do_not_stack(tmp_path):
    formats.save(make(TopK(d_sae=D, k=3)), tmp_path / "runs" / "seed_0", "saelens")
    formats.save(make(TopK(d_sae=D, k=2)), tmp_path / "runs" / "seed_1", "saelens")
    with pytest.raises(formats.FormatError, match=r"k=2.* does not stack with .*k=3"):
        formats.load(tmp_path / "runs")


def test_two_axes_of_members_and_layers_are_refused(tmp_path):
    with pytest.raises(formats.FormatError, match="2 axes"):
        formats.save(make(CODES["L1"], runs=(2, 2)), tmp_path / "sae", "saelens")
    crosscoder = make(CODES["L1"])
    crosscoder = SAE(
        crosscoder.W_enc,
        crosscoder.b_enc,
        crosscoder.W_dec,
        crosscoder.b_dec,
        crosscoder.code,
        layers=(3, 3),
    )
    with pytest.raises(formats.FormatError, match=r"crosscoder of layers \[3, 3\]"):
        formats.save(crosscoder, tmp_path / "sae", "saelens")
    with pytest.raises(formats.FormatError, match="the formats are"):
        formats.save(make(CODES["L1"]), tmp_path / "sae", "safetensors")


def test_weights_that_diverged_are_refused(tmp_path):
    sae = make(CODES["L1"])
    sae.b_enc[3] = torch.nan
    with pytest.raises(formats.FormatError, match=r"b_enc holds NaN .* diverged"):
        formats.save(sae, tmp_path / "sae", "saelens")


def tensors_of(name, format):
    """The names of the tensors in a folder of this code, and where they lie."""
    draft = formats._draft(make(CODES[name]), format, None)
    return sorted(key for key, value in draft.tensors.items() if value.is_floating_point())


SPOILT = [
    (name, format, key)
    for name, format in PAIRS
    for key in tensors_of(name, format)
    # TopK there has a threshold that its per-sample selection does not use.
    if (name, key) != ("TopK", "threshold")
]


@pytest.mark.parametrize(("name", "format", "key"), SPOILT)
def test_a_certificate_sees_each_tensor_and_a_failed_one_leaves_nothing(
    name, format, key, tmp_path, monkeypatch
):
    write = formats._WRITERS[format]

    def spoil(folder, draft):
        draft.tensors[key] = draft.tensors[key] * 1.01 + 0.01
        write(folder, draft)

    monkeypatch.setitem(formats._WRITERS, format, spoil)
    refused = pytest.raises(formats.FormatError, match="not the same function")
    told = pytest.warns(formats.FormatWarning) if format == "sparsify" else nullcontext()
    with told, refused:
        formats.save(make(CODES[name]), tmp_path / "sae", format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "key", "value"),
    [
        ("TopK", "saelens", "k", 4),
        ("TopK", "saelens", "apply_b_dec_to_input", False),
        ("JumpReLU", "saelens", "apply_b_dec_to_input", False),
        ("MatchingPursuit", "saelens", "max_iterations", 3),
        ("TopK", "sparsify", "k", 2),
        ("TopK", "sparsify", "transcode", True),
    ],
)
def test_a_certificate_sees_the_configuration(name, format, key, value, tmp_path, monkeypatch):
    write = formats._WRITERS[format]

    def spoil(folder, draft):
        config = draft.config
        metadata = config.get("metadata", config)
        metadata.pop("superpose_code")
        config[key] = value
        write(folder, draft)

    monkeypatch.setitem(formats._WRITERS, format, spoil)
    told = pytest.warns(formats.FormatWarning) if format == "sparsify" else nullcontext()
    with told, pytest.raises(formats.FormatError, match="not the same function"):
        formats.save(make(CODES[name]), tmp_path / "sae", format)


def test_a_certificate_lies_beside_the_files_with_their_digests(tmp_path):
    certificate = formats.save(make(CODES["JumpReLU"]), tmp_path / "sae", "saelens")
    kept = json.loads((tmp_path / "sae" / "certificate.json").read_text())
    assert kept["passed"] is True
    assert kept["encode_absolute"] == certificate.encode_absolute
    for name, digest in kept["files"].items():
        assert hashlib.sha256((tmp_path / "sae" / name).read_bytes()).hexdigest() == digest
    assert set(kept["files"]) == {"cfg.json", "sae_weights.safetensors"}


def test_an_earlier_export_is_replaced_and_other_files_are_left_alone(tmp_path):
    folder = tmp_path / "sae"
    formats.save(make(CODES["L1"], runs=(2,)), folder, "saelens")
    formats.save(make(CODES["TopK"]), folder, "dictionary_learning")
    assert sorted(path.name for path in folder.iterdir()) == [
        "ae.pt",
        "certificate.json",
        "config.json",
    ]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(formats.FormatError, match=r"notes\.txt.* other origin"):
        formats.save(make(CODES["TopK"]), folder, "dictionary_learning")
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]


def test_a_failed_export_keeps_the_earlier_one(tmp_path, monkeypatch):
    folder = tmp_path / "sae"
    formats.save(make(CODES["L1"]), folder, "saelens")
    before = (folder / "sae_weights.safetensors").read_bytes()

    def break_off(folder, draft):
        (folder / "cfg.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setitem(formats._WRITERS, "saelens", break_off)
    with pytest.raises(KeyboardInterrupt):
        formats.save(make(CODES["L1"], seed=1), folder, "saelens")
    assert (folder / "sae_weights.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]


def test_firing_goes_to_saelens_as_logarithms_and_comes_back(tmp_path):
    firing = torch.tensor([[0.0, 1.0, 0.5, 1e-3, *[0.25] * 6]] * 2)
    formats.save(make(CODES["L1"], runs=(2,)), tmp_path / "sae", "saelens", firing=firing)
    logarithms = load_file(tmp_path / "sae" / "seed_1" / "sparsity.safetensors")["sparsity"]
    assert torch.allclose(logarithms[1:], torch.log10(firing[1, 1:]), atol=1e-6)
    assert torch.isfinite(logarithms).all()
    assert torch.allclose(formats.read(tmp_path / "sae").firing, firing, atol=1e-6)
    with pytest.raises(formats.FormatError, match="between 0 and 1"):
        formats.save(make(CODES["L1"]), tmp_path / "one", "saelens", firing=firing[0] - 1.0)
    with pytest.raises(formats.FormatError, match="2 rows for 3 members"):
        formats.save(make(CODES["L1"], runs=(3,)), tmp_path / "one", "saelens", firing=firing)


def test_conversion_goes_through_every_format_and_back(tmp_path):
    sae = make(CODES["TopK"])
    sae.save(tmp_path / "0")
    route = ["saelens", "dictionary_learning", "sparsify", "saelens", "superpose"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", formats.FormatWarning)
        for number, format in enumerate(route):
            certificate = formats.convert(
                tmp_path / f"{number}", tmp_path / f"{number + 1}", format
            )
            assert certificate.passed
            assert formats.recognise(tmp_path / f"{number + 1}") == format
    same_function(sae, load_any(tmp_path / "5"))
    kept = json.loads((tmp_path / "2" / "certificate.json").read_text())
    assert (kept["format"], kept["source"]["format"]) == ("dictionary_learning", "saelens")
    with pytest.raises(formats.FormatError, match="the formats are"):
        formats.convert(tmp_path / "0", tmp_path / "6", "gguf")


def test_records_of_members_are_a_stack_too(tmp_path):
    for number in range(2):
        make(CODES["L1"], seed=number).save(tmp_path / "runs" / f"seed_{number}")
    assert len(formats.load(tmp_path / "runs")) == 2
    assert formats.read(tmp_path / "runs").certificate is None


def test_a_dictionary_saves_and_loads_itself_in_any_format(tmp_path):
    sae = make(CODES["Gated"])
    for format in formats.FORMATS[:3]:
        sae.save(tmp_path / format, format=format)
        same_function(sae, load_any(tmp_path / format))


def test_a_latent_on_its_very_edge_is_told_apart_from_a_wrong_one(tmp_path):
    sae = make(CODES["JumpReLU"])
    formats.save(sae, tmp_path / "sae", "saelens")
    formula = formats.saelens.parse(tmp_path / "sae").formula
    x = formats.probes(sae)
    exact = formula.encode(x.double())

    def shifted(by):
        """The formula, with one active latent of one probe off and `by` from its edge."""
        z, margin = exact.z.clone(), exact.margin.clone()
        row, column = torch.nonzero(z > 0)[0]
        z[row, column] = 0.0
        margin[row, column] = by * exact.size[row, column]
        return Formula(lambda _: Encoded(z, margin, exact.size), formula.decode)

    assert certify(sae, shifted(0.5 * TOLERANCE), "saelens", "here").on_edge == 1
    with pytest.raises(formats.FormatError, match="supports differ"):
        certify(sae, shifted(2 * TOLERANCE), "saelens", "here")


def test_bf16_weights_are_read_exactly(tmp_path):
    formats.save(make(CODES["L1"]), tmp_path / "sae", "saelens")
    path = tmp_path / "sae" / "sae_weights.safetensors"
    save_file({key: value.bfloat16() for key, value in load_file(path).items()}, path)
    with pytest.warns(formats.FormatWarning) as told:
        sae = formats.load(tmp_path / "sae")
    assert torch.equal(sae.W_enc, sae.W_enc.bfloat16().float())
    said = " ".join(str(each.message) for each in told)
    assert "bfloat16, read as float32, exactly" in said
    assert "rounds the stored bfloat16" in said
