"""The command line as users meet it: in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

SMALL = """
seed = 3
[pack]
n = 6
m = 2
importance = 0.8
densities = [1.0, 0.3, 0.05]
runs = 3
steps = 1500
batch = 256
lr = 5e-3
[uniform]
n = 6
m = 2
sparsities = [3.0, 20.0]
runs = 2
steps = 500
batch = 256
[unmix]
samples = 5_000
activations = 2_000
scored = 1_000
seeds = 2
[network]
hidden = 12
samples = 5_000
seeds = 2
"""


def superpose(*arguments, cwd=None, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "superpose.cli", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configuration") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def job(tmp_path_factory, config):
    out = tmp_path_factory.mktemp("job") / "out"
    done = superpose("run", config, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _results(folder: Path) -> dict[str, bytes]:
    """The files without those that say who trained a shard, and how fast."""
    return {
        name: data
        for name, data in _files(folder).items()
        if Path(name).name not in ("DONE.json", "index.json")
    }


def test_the_main_job_ends_in_a_report_and_a_table_of_findings(job):
    out, done = job
    findings = json.loads((out / "findings.json").read_text())["findings"]
    page = (out / "report.html").read_text()
    assert len(findings) >= 7
    assert "1 Superposition" in done.stdout or "1 In most runs" in done.stdout
    assert str(out / "report.html") in done.stdout.replace("\n", "")
    assert "pack: 9 of 9" in done.stderr
    assert "small" not in page
    for name in ("phases", "gram", "recovery", "faithfulness"):
        for suffix in (".svg", "-dark.svg", ".png"):
            assert (out / "figures" / f"{name}{suffix}").is_file()
    for name in ("models", "features", "states", "changes", "shapes"):
        assert (out / "packing" / f"{name}.parquet").is_file()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_the_report_opens_offline_and_fits(job, visit, width, scheme):
    out, _ = job
    seen = visit((out / "report.html").read_text("utf-8"), width=width, scheme=scheme)
    assert seen.value("document.scrollingElement.scrollWidth") <= width
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
    assert seen.complaints == []
    # Every figure of the theme is there and drawn.
    shown = "[...document.images].filter(image => image.offsetParent !== null)"
    assert seen.value(f"{shown}.length") >= 7
    assert seen.value(f"{shown}.every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(job, config, tmp_path):
    out, _ = job
    again = tmp_path / "again"
    assert superpose("run", config, "--out", again, "--quiet").returncode == 0
    first, second = _results(out), _results(again)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_a_finished_job_is_not_run_again(job, config):
    out, _ = job
    before = (out / "models" / "shards" / "000000" / "DONE.json").stat().st_mtime_ns
    done = superpose("run", config, "--out", out, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["report"] == str(out / "report.html")
    assert done.stderr == ""
    assert (out / "models" / "shards" / "000000" / "DONE.json").stat().st_mtime_ns == before


def test_an_interrupted_job_goes_on_and_ends_as_an_uninterrupted_one(job, config, tmp_path):
    out, _ = job
    again = tmp_path / "again"
    command = [sys.executable, "-m", "superpose.cli", "run", str(config), "--out", str(again)]
    # A job started in the background may have been told to ignore interrupts, and so its children.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    piped = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed}
    with subprocess.Popen(command, **piped) as process:
        # Heard, not seen on disk: the parts of a quick sweep are there for a moment only.
        heard = next(line for line in process.stderr if line.startswith("pack: "))
        process.send_signal(signal.SIGINT)
        errors = heard + process.stderr.read()
    assert process.returncode == 130, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert superpose("run", config, "--out", again, "--quiet").returncode == 0
    assert _results(again) == _results(out)


def test_verify_finds_a_changed_byte_and_report_refuses_it(job, tmp_path):
    out, _ = job
    copy = tmp_path / "copy"
    for name, data in _files(out).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    assert superpose("verify", copy).returncode == 0
    table = copy / "packing" / "states.parquet"
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(bytes(data))
    found = superpose("verify", copy, "--json")
    assert found.returncode == 1
    assert any("states.parquet" in problem for problem in json.loads(found.stdout)["problems"])
    refused = superpose("report", copy)
    assert refused.returncode == 1
    assert "states.parquet" in refused.stderr.replace("\n", "")
    assert "Traceback" not in refused.stderr


def test_report_writes_the_same_page_again(job, tmp_path):
    out, _ = job
    before = (out / "report.html").read_bytes()
    done = superpose("report", out, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["findings"]) >= 7
    assert (out / "report.html").read_bytes() == before


def test_own_arrays_take_the_place_of_the_digits(config, job, tmp_path):
    out, _ = job
    rng = np.random.default_rng(0)
    labels = rng.choice(["cat", "<b>dog</b>"], 600)
    x = rng.exponential(size=(600, 6)) * (rng.random((600, 6)) < 0.3)
    x[labels == "cat", 0] += 2
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    np.save(tmp_path / "labels.npy", labels)
    own = tmp_path / "own"
    arrays = ("--activations", tmp_path / "x.npy", "--labels", tmp_path / "labels.npy")
    done = superpose("run", config, "--out", own, *arrays, "--quiet")
    assert done.returncode == 0, done.stderr
    page = (own / "report.html").read_text()
    assert "x.npy: 600 samples of 6 units" in page
    assert "<b>dog</b>" not in page
    assert _results(own / "models") == _results(out / "models")


BAD = {
    "unknown key": ("[pack]\nstep = 5\n", [], 2, "did you mean 'steps'"),
    "p out of range": ("[pack]\ndensities = [0.5, 1.5]\n", [], 2, "1.5"),
    "mismatched lengths": ("[pack]\nimportance = [1.0]\n", [], 2, "importance has shape"),
    "missing file": (None, ["no-such.toml"], 2, "no such file"),
    "unknown option": (None, ["--sed", "1"], 2, "--sed"),
    "labels alone": (None, ["--labels", "x.npy"], 2, "--activations"),
    "missing activations": (None, ["--activations", "no.npy"], 1, "no such file"),
    "NaN activations": (None, ["--activations", "nan.npy"], 2, "NaN"),
    "empty activations": (None, ["--activations", "empty.npy"], 2, "at least one of each"),
    "corrupt activations": (None, ["--activations", "corrupt.npz"], 2, "not a readable"),
    "pickled activations": (None, ["--activations", "pickle.npy"], 2, "not a readable"),
    "seed too large": (None, ["--seed", "4294967296"], 2, "less than 4294967296"),
    "too few samples": (None, ["--activations", "few.npy"], 2, "few.npy: measure: 20 samples"),
    "constant activations": (None, ["--activations", "same.npy"], 2, "all samples are equal"),
    "labels too short": (
        None,
        ["--activations", "good.npy", "--labels", "short.npy"],
        2,
        "labels of shape",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_an_exit_code(case, tmp_path):
    text, arguments, code, says = BAD[case]
    np.save(tmp_path / "good.npy", np.ones((5, 2), np.float32))
    np.save(tmp_path / "short.npy", np.arange(3))
    np.save(tmp_path / "few.npy", np.arange(40.0).reshape(20, 2))
    np.save(tmp_path / "same.npy", np.ones((200, 2)))
    np.save(tmp_path / "nan.npy", np.full((5, 2), np.nan))
    np.save(tmp_path / "empty.npy", np.empty((0, 2)))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "corrupt.npz").write_bytes(b"PK\x03\x04 nothing")
    if text is not None:
        (tmp_path / "bad.toml").write_text(text)
        arguments = ["bad.toml", *arguments]
    done = superpose("run", *arguments, "--out", "out", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("superpose: ")
    assert not (tmp_path / "out").exists()


def test_an_unwritable_or_foreign_folder_is_refused_and_left_alone(config, job, tmp_path):
    (tmp_path / "file").write_text("mine")
    below = superpose("run", config, "--out", tmp_path / "file" / "out")
    assert below.returncode == 1
    assert "Traceback" not in below.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    foreign = superpose("run", config, "--out", tmp_path / "full")
    assert foreign.returncode == 2
    assert "not empty" in foreign.stderr
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    out, _ = job
    other = superpose("run", config, "--seed", "9", "--out", out)
    assert other.returncode == 2
    assert "another configuration" in other.stderr
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((200, 3)))
    arrays = superpose("run", config, "--activations", tmp_path / "x.npy", "--out", out)
    assert arrays.returncode == 2
    assert "other arrays" in arrays.stderr


def test_a_stray_file_breaks_neither_the_report_nor_a_finished_job(config, job, tmp_path):
    out, _ = job
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "my notes.txt").write_text("mine")
    report = superpose("report", copy)
    assert report.returncode == 0, report.stderr
    (copy / "findings.json").unlink()
    again = superpose("run", config, "--out", copy, "--quiet")
    assert again.returncode == 0, again.stderr
    assert (copy / "my notes.txt").read_text() == "mine"
    listed, before = (
        json.loads((folder / "manifest.json").read_text())["files"].keys() for folder in (copy, out)
    )
    assert listed == before


def test_doctor_tells_the_installation(tmp_path):
    facts = json.loads(superpose("doctor", "--json").stdout)
    assert facts["installed"]["torch"]
    assert facts["compute"]["threads for training"] >= 1
    assert "can be written" in facts["folders"]["temporary"]
    bad = superpose("doctor", environment={"SUPERPOSE_THREADS": "many"})
    assert bad.returncode == 2
    assert "SUPERPOSE_THREADS" in bad.stderr
    run = superpose("run", "--out", tmp_path / "o", environment={"SUPERPOSE_THREADS": "many"})
    assert run.returncode == 2
    assert not (tmp_path / "o").exists()


def test_show_config_prints_a_configuration_that_runs(tmp_path):
    from superpose.experiments import configuration

    shown = superpose("run", "--show-config")
    (tmp_path / "default.toml").write_text(shown.stdout)
    assert configuration.read(tmp_path / "default.toml") == configuration.read()
