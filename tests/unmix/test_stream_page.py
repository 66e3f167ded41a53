"""The page on bringing one's own activations: its code runs, and does what it says."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "activations.md"


def test_activations_are_brought_as_the_page_says(capsys):
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(code, names)
    assert len(names["sae"]) == 2
    assert names["scores"].interval("explained_variance").estimate > 0.3
    assert len(names["x"]) == names["scores"].samples == 300
    assert names["streamed"].W_dec.shape == (1, 64, 32)
    assert (names["transcoder"].W_enc.shape[1], names["transcoder"].W_dec.shape[2]) == (10, 4)
    assert names["crosscoder"].layers == (10, 4, 32)
    assert torch.equal(names["resumed"].W_dec, names["sae"].W_dec)
    assert "(10, 4, 32)" in capsys.readouterr().out
