"""Compiled code on disk: found again by another process, and never older than what it holds."""

import subprocess
import sys
from pathlib import Path

from superpose.compilation import Compiler
from superpose.kernels import draws, small
from superpose.theory import relu

CALLS = """
import logging, sys
import numba.core.event as event
import superpose as sp

class Count(event.Listener):
    starts = 0
    def on_start(self, happened): Count.starts += 1
    def on_end(self, happened): pass

event.register("numba:compile", Count())
sp.train(sp.ToyModel(n=4, m=3), sp.Features(n=4, p=0.5), sp.Training(steps=1), runs=1)
print(Count.starts)
"""


def test_compiled_code_is_as_fresh_as_what_it_calls(tmp_path):
    # Otherwise a new version of one module would run what was compiled from an old one.
    stamps = []
    for text in ("a = 1", "a = 2"):
        (tmp_path / "called.py").write_text(text)
        (tmp_path / "calling.py").write_text("from called import a")
        stamps.append(Compiler(tmp_path).stamp)
    assert stamps[0] != stamps[1]
    for function, module in ((relu.row_losses, relu), (draws.draw_tile, draws)):
        stamp = Compiler(Path(module.__file__).parent).stamp
        assert function._cache._cache_file._source_stamp == stamp
    kept = small.gradient(2, 1, small.OUTPUT_RELU)._cache
    assert kept._cache_file._source_stamp == Compiler(Path(small.__file__).parent).stamp


def test_a_second_process_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    counts = [
        int(subprocess.run([sys.executable, "-c", CALLS], capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert counts[0] > 0
    assert counts[1] == 0
