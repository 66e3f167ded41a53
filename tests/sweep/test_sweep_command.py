"""`superpose sweep` as people meet it: what it prints, and what its exit code says."""

import errno
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import pytest

from superpose import cli
from superpose.records import RecordError
from superpose.sweep import work
from superpose.sweep.here import Here
from superpose.sweep.run import run
from superpose.sweep.store import Sweep
from superpose.sweep.words import amount, duration

SMALL = """
seeds = 4
model = { n = 2, m = 1 }
training = { steps = 20, batch = 16 }
shards = { models = 4 }
[axes]
"world.p" = [1.0, 0.5, 0.25, 0.1]
"""
LONG = SMALL.replace("steps = 20", "steps = 100_000").replace("0.1]", "0.1, 0.05, 0.02, 0.01]")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def superpose(folder, monkeypatch, capsys):
    """The command, in this process: `superpose("sweep", …)` gives exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["superpose", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        heard = capsys.readouterr()
        return ended.value.code, heard.out, heard.err

    return partial(call, "sweep")


def test_a_sweep_is_trained_and_going_on_finds_it_done(superpose, folder):
    code, out, errors = superpose("small.toml", "--out", "s", "--executor", "here")
    assert (code, out) == (0, "16 of 16 models are in s\n")
    assert errors.splitlines()[0] == "models: 0 of 16"
    assert errors.splitlines()[-1].startswith("models: 16 of 16")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("s/shards/*/*")}
    code, out, errors = superpose("--out", "s", "--executor", "here", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(out) == {
        "sweep": "s",
        "models": {"done": 16, "planned": 16},
        "shards": {"done": 4, "missing": 0},
        "refinement": None,
        "failed": {},
        "interrupted": False,
        "broken": None,
        "again": False,
        "complete": True,
    }
    assert {path: path.stat().st_mtime_ns for path in folder.glob("s/shards/*/*")} == before
    assert superpose("small.toml", "--out", "s", "--executor", "here", "-q") == (0, "", "")
    assert sorted(path.name for path in (folder / "s").iterdir())[-2:] == ["shards", "sweep.json"]
    assert (folder / "s" / "index.json").is_file()


def test_a_dry_run_writes_nothing(superpose, folder):
    code, out, _ = superpose("small.toml", "--out", "s", "--dry-run", "--workers", "100")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert {"models", "shards", "time", "bytes", "cost"} <= lines.keys()
    assert "16 in 4 cells" in lines["models"]
    assert "100 cores" in lines["time"]
    assert "if one costs $" in lines["cost"]
    code, out, _ = superpose("small.toml", "--out", "s", "--dry-run", "--json")
    found = json.loads(out)
    assert (found["models"], found["cells"], found["shards"]) == (16, 4, 4)
    assert found["time"][0]["hours"] > 0
    assert not (folder / "s").exists()


BAD = {
    "unknown key": (["bad.toml"], "seedz = 3", 2, "did you mean 'seed'"),
    "no such file": (["no.toml"], "", 2, "no such file"),
    "no sweep there": (["--out", "none"], "", 1, "there is no sweep here"),
    "seed alone": (["--seed", "3"], "", 2, "--seed goes with a configuration"),
    "seed too large": (["small.toml", "--seed", "4294967296"], "", 2, "4294967296"),
    "address alone": (["small.toml", "--address", "x"], "", 2, "--executor ray"),
    "no workers": (["small.toml", "--workers", "0"], "", 2, "workers=0"),
    "workers here": (["small.toml", "--executor", "here", "--workers", "2"], "", 2, "--workers 2"),
    "unknown executor": (["small.toml", "--executor", "slurm"], "", 2, "slurm"),
    "memory": (["small.toml", "--out", "memory://command"], "", 2, "other processes cannot see"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_an_exit_code(superpose, folder, case):
    arguments, text, code, says = BAD[case]
    (folder / "bad.toml").write_text(text)
    found, out, errors = superpose(*arguments)
    assert (found, out) == (code, "")
    assert says in errors
    assert errors.startswith("superpose: ")
    assert not (folder / "superpose-sweep").exists()


def test_another_configuration_in_the_folder_is_refused(superpose):
    assert superpose("small.toml", "--out", "s", "--executor", "here", "-q")[0] == 0
    code, _, errors = superpose("small.toml", "--out", "s", "--executor", "here", "--seed", "9")
    assert code == 2
    assert "another configuration" in errors


def test_a_full_disk_is_one_sentence_and_exit_code_3(superpose, monkeypatch):
    def refuse(*_):
        cause = OSError(errno.ENOSPC, "No space left on device")
        raise RecordError("x.parquet: cannot write (No space left on device)") from cause

    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "write", refuse)
        code, out, errors = superpose("small.toml", "--out", "s", "--executor", "here")
    assert code == 3
    assert errors.count("No space left on device") == 1
    assert "16 of 16 models are missing; run the same command again" in errors
    assert out == "0 of 16 models are in s\n"
    assert superpose("small.toml", "--out", "s", "--executor", "here", "-q")[0] == 0


def test_a_file_where_the_folder_should_be_is_exit_code_1(superpose, folder):
    (folder / "file").write_text("mine")
    code, _, errors = superpose("small.toml", "--out", "file/s", "--executor", "here")
    assert code == 1  # to run it again would mend nothing
    assert errors.count("\n") == 1
    assert "choose another folder" in errors


def test_shards_that_fail_for_good_are_named_and_exit_code_1(superpose, monkeypatch):
    train = work.train

    def refuse(model, worlds, *rest, **more):
        if worlds[0].p == 0.25:
            raise ValueError("this cannot be")
        return train(model, worlds, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(work, "train", refuse)
        code, out, errors = superpose("small.toml", "--out", "s", "--executor", "here")
    assert code == 1
    assert "shard 2 was given up: ValueError: this cannot be" in errors
    assert "4 of 16 models are missing; they would fail again" in errors
    assert out == "12 of 16 models are in s\n"


def _claims(folder):
    found = []
    for path in (folder / "s" / "claims").glob("[!.]*.json"):
        with suppress(FileNotFoundError):
            found.append(path.read_text())
    return found


def test_ctrl_c_saves_what_is_in_training_and_the_same_command_does_the_rest(folder):
    (folder / "long.toml").write_text(LONG)
    command = [sys.executable, "-m", "superpose.cli", "sweep", "long.toml", "--out", "s"]
    # A job started in the background may have been told to ignore interrupts, and so its children.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    piped = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed}
    with subprocess.Popen([*command, "--workers", "1"], **piped) as process:
        heard = next(line for line in process.stderr if line.startswith("models: "))
        # Its claim says that a shard has been given to the worker.
        while process.poll() is None and not any("[]" not in text for text in _claims(folder)):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = heard + process.stderr.read()
    assert process.returncode == 3, errors
    assert "finishing the shards in training" in errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    sweep = Sweep.open("s")
    assert len(sweep.done()) < 7
    assert run(sweep, Here()).missing == 0
    assert sweep.verify() == []


def test_help_names_every_option(superpose):
    code, out, _ = superpose("--help")
    assert code == 0
    options = "--out --seed --dry-run --executor --workers --address --json --quiet"
    assert [option for option in options.split() if option not in out] == []


def test_numbers_are_said_in_the_unit_that_suits_them():
    assert [duration(s) for s in (0.1, 119, 120, 86_400, 8.64e6)] == [
        "0.1 s",
        "119 s",
        "2 min",
        "24 h",
        "100 days",
    ]
    assert [amount(n) for n in (5, 1000, 1e15)] == ["5 B", "1 kB", "1,000 TB"]
