"""In the environments of the other tools: they load what we write, and compute the same numbers.

`python benchmarks/peers/make.py` makes these environments; without one its tests are skipped.
"""

import json
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from test_formats_export import CODES, PAIRS, inputs, make

from superpose.unmix import formats

ROOT = Path(__file__).parents[2]
EVALUATE = ROOT / "tests" / "fixtures" / "peers" / "evaluate.py"
TOOLS = ("saelens", "dictionary_learning", "sparsify")

CASES = {(name, format): make(CODES[name]) for name, format in PAIRS}
CASES |= {
    ("transcoder of L1", "saelens"): make(CODES["L1"], d_out=4, subtract=False),
    ("transcoder of JumpReLU", "saelens"): make(CODES["JumpReLU"], d_out=4, subtract=False),
    ("L1 without b_dec", "dictionary_learning"): make(CODES["L1"], subtract=False),
    ("TopK without b_dec", "saelens"): make(CODES["TopK"], subtract=False),
    ("TopK without b_dec", "dictionary_learning"): make(CODES["TopK"], subtract=False),
    ("TopK without b_dec", "sparsify"): make(CODES["TopK"], subtract=False),
    ("member 1 of a stack", "saelens"): make(CODES["TopK"], runs=(2,)),
}


def python(tool):
    return ROOT / "benchmarks" / ".peers" / tool / "bin" / "python"


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """What each tool computes from our folders: all of them at once, as each starts for seconds."""
    folder, processes = tmp_path_factory.mktemp("exports"), {}
    for tool in TOOLS:
        if not python(tool).exists():
            continue
        jobs = []
        for number, ((_, format), sae) in enumerate(CASES.items()):
            if format != tool:
                continue
            place = folder / f"{number}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", formats.FormatWarning)
                formats.save(sae, place, format)
            np.save(folder / f"{number}.npy", inputs(sae).numpy())
            member = place if sae.W_enc.ndim == 2 else place / "seed_1"
            jobs.append([str(each) for each in (member, f"{place}.npy", f"{place}.npz")])
        (folder / f"{tool}.json").write_text(json.dumps(jobs))
        command = [python(tool), EVALUATE, tool, folder / f"{tool}.json"]
        processes[tool] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for tool, process in processes.items():
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, f"{tool}: {said[-2000:]}"
    return folder


@pytest.mark.parametrize(("name", "format"), CASES)
def test_the_tool_itself_gets_our_numbers_from_our_folder(name, format, computed):
    if not python(format).exists():
        pytest.skip(f"no environment of {format}; benchmarks/peers/make.py makes it")
    sae = CASES[name, format]
    with np.load(computed / f"{list(CASES).index((name, format))}.npz") as found:
        z, y = (torch.from_numpy(found[key]) for key in "zy")
    x = inputs(sae)
    sae = sae if sae.W_enc.ndim == 2 else sae[1]
    ours = sae.encode(x)
    assert torch.equal(ours > 0, z > 0)
    assert torch.allclose(ours, z, rtol=1e-5, atol=2e-5)
    assert torch.allclose(sae.decode(ours), y, rtol=1e-5, atol=2e-5)
