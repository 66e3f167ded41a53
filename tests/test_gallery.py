"""Every script of the gallery runs by itself, at small size, and leaves its figures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
SCRIPTS = sorted(GALLERY.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_leaves_its_figures(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", script, "--quick", "--out", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"SUPERPOSE_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        figures = list(tmp_path.glob(f"*{suffix}"))
        assert figures
        assert all(figure.read_bytes().startswith(start) for figure in figures)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short_and_listed(script):
    assert len(script.read_text("utf-8").splitlines()) <= 60
    assert f"`{script.name}`" in (GALLERY / "README.md").read_text("utf-8")
