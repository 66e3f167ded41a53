"""The main job: pack, see, un-mix, then the same on a real network, into one folder.

The models are two sweeps, and every other stage leaves a record that says what it was made from; a
stage whose record is sound and was made from the same is not computed again. So an interrupted job
goes on where it stopped.
"""

import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from superpose import records
from superpose.experiments import network, packing, unmixing
from superpose.experiments.configuration import Configuration, ConfigurationError, read
from superpose.kernels import cpu, streams
from superpose.sweep.stages import stage
from superpose.sweep.store import Sweep

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as a stage goes on."""

CONFIGURATION = "config.toml"
ARRAYS = "arrays.json"
SWEEPS = {"pack": "models", "uniform": "uniform-models"}


def run(
    configuration: Configuration,
    text: str,
    out: Path,
    *,
    own: network.OwnArrays | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run, or go on with, the main job in folder `out`; `text` is the configuration as written.

    `own` are a user's own activations, looked at in place of the digits. Raises
    ConfigurationError when `out` belongs to another configuration or to other arrays,
    records.RecordError when it cannot be written.
    """
    _claim(out, configuration, text)
    _claim_arrays(out, own)
    seed = configuration.seed
    swept = {}
    for name, section in (("pack", configuration.pack), ("uniform", configuration.uniform)):
        swept[name] = packing.pack(section, seed, out / SWEEPS[name], _named(progress, name))
        made_from = {"sweep": section.model_dump(mode="json"), "seed": seed}
        seen = out / ("packing" if name == "pack" else "shapes")
        _stage(seen, made_from, lambda to, made, name=name: packing.see(swept[name], to, made))
    _stage(
        out / "unmixing",
        {
            "sweep": configuration.pack.model_dump(mode="json"),
            "unmix": configuration.unmix.model_dump(mode="json"),
            "seed": seed,
        },
        lambda to, made: unmixing.unmix_all(
            swept["pack"], configuration.unmix, to, made, _named(progress, "unmix")
        ),
    )
    _stage(
        out / "network",
        {
            "network": configuration.network.model_dump(mode="json"),
            "seed": seed,
            "own": own.digest if own else None,
        },
        lambda to, made: network.look(
            configuration.network, own, seed, to, made, _named(progress, "network")
        ),
    )
    return out


def _stage(
    folder: Path, made_from: dict[str, Any], make: Callable[[Path, dict[str, Any]], object]
) -> None:
    try:
        stage(folder, made_from, make)
    except ValueError as error:
        raise ValueError(f"{folder.name}: {error}") from error


def _claim(out: Path, configuration: Configuration, text: str) -> None:
    """Make the folder ours: it holds this configuration, or nothing yet."""
    mine = out / CONFIGURATION
    if mine.exists():
        if read(mine) != configuration:
            raise ConfigurationError(
                f"{out}: holds a job of another configuration ({mine}); choose another --out"
            )
    else:
        if out.is_dir() and any(out.iterdir()):
            raise ConfigurationError(f"{out}: is not empty; choose another --out")
        records.write_text(mine, text)


def _claim_arrays(out: Path, own: network.OwnArrays | None) -> None:
    """The results of a folder are of the digits or of one user's arrays, never of both."""
    mine = out / ARRAYS
    source, digest = (own.source, own.digest) if own else ("digits", None)
    if not mine.exists():
        records.write_json(mine, {"source": source, "digest": digest})
        return
    try:
        held = json.loads(mine.read_text("utf-8"))
        same = held["digest"] == digest
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ConfigurationError(
            f"{out}: holds a job of other arrays ({mine}), not of {source}; choose another --out"
        )


def _named(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(stage, done, total)) if progress else None


def provenance(command: str, out: Path) -> Mapping[str, Any]:
    """What a reader needs to obtain the same results: versions, commit, processor, command.

    Kernel and processor are those of this run; of the `models` in folder `out`, which earlier runs
    may have trained, they are lists. Raises records.RecordError where the models cannot be read.
    """
    trained = [Sweep.open(out / folder).provenance() for folder in SWEEPS.values()]
    packages = ("superpose", "torch", "numpy", "scipy", "numba", "scikit-learn", "matplotlib")
    return {
        "command": command,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "kernel": cpu.VERSION,
        "processor": streams.processor(),
        "models": {
            name: sorted({each for table in trained for each in table[name].to_pylist()})
            for name in ("kernel", "processor")
        },
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit this package was run from, with a mark for changes; None outside a checkout."""
    checkout = Path(__file__).parents[3]
    # An installed copy may lie inside somebody else's repository.
    if not (checkout / "src" / "superpose").is_dir() or not (checkout / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
