"""What this machine and installation are like: the facts behind `superpose doctor`."""

import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba.core.caching import FunctionCache
from packaging.requirements import Requirement

from superpose import engine
from superpose.kernels import cpu, streams


def examine() -> dict[str, dict[str, Any]]:
    """Versions, devices, threads and folders, as plain values by section."""
    return {
        "installed": _installed(),
        "compute": {
            "processor": streams.processor(),
            "kernel": cpu.VERSION,
            "threads for training": engine.threads(),
            "threads of torch": torch.get_num_threads(),
            "CUDA device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
            "backend chosen": "cpu",
        },
        "folders": {
            "results (here)": _writable(Path.cwd()),
            "temporary": _writable(Path(tempfile.gettempdir())),
            "compiled kernels": _kernel_cache(),
        },
    }


def _installed() -> dict[str, str]:
    found = {"python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})"}
    for line in ["superpose", *(requires("superpose") or [])]:
        requirement = Requirement(line)
        if requirement.marker and "extra" in str(requirement.marker):
            continue
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            found[requirement.name] = "missing"
    return found


def _writable(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(np.zeros(1).tobytes())
    except OSError as error:
        return f"{folder}: cannot be written ({os.strerror(error.errno or 0)})"
    return f"{folder}: can be written"


def _kernel_cache() -> str:
    """Where numba keeps compiled kernels; unwritable means compiling in every process."""
    try:
        return _writable(Path(FunctionCache(streams.stream_key).cache_path).parent)
    except RuntimeError:
        return "nowhere: kernels compile in every process; set NUMBA_CACHE_DIR"
