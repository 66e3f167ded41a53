"""Batteries of faults from a test: in a process of their own, and what they found."""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

KEPT = {"lost": 0, "torn": 0, "duplicates": 0, "unequal": 0, "errors": 0, "problems": []}
"""What a battery finds where every promise is kept."""


@cache
def _process() -> subprocess.Popen[str]:
    threads = ("SUPERPOSE_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    started = subprocess.Popen(
        [sys.executable, "-m", "faults"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **dict.fromkeys(threads, "1")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_end, started)
    return started


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def battery(*words: str | int) -> dict[str, Any]:
    """What `python -m faults …` found; None where the machine has not what it needs."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, f"the process of the battery {words} has ended; see its errors above"
    return json.loads(answer)


def broken(found: dict[str, Any]) -> dict[str, Any]:
    """The part of what was found that compares with `KEPT`."""
    return {key: found[key] for key in KEPT}
