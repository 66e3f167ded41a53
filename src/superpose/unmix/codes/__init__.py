"""Sparse codes: how an input becomes latents, and what its training minimises, one class each."""

from superpose.unmix.codes.batch import BatchTopK, Matryoshka
from superpose.unmix.codes.code import Code, Objective, largest
from superpose.unmix.codes.gated import Gated
from superpose.unmix.codes.jump import JumpReLU
from superpose.unmix.codes.penalised import L1
from superpose.unmix.codes.pursuit import MatchingPursuit
from superpose.unmix.codes.topk import TopK

CODES: dict[str, type[Code]] = {
    kind.__name__: kind
    for kind in (L1, TopK, BatchTopK, JumpReLU, Gated, Matryoshka, MatchingPursuit)
}
"""Every code by its name, as saved dictionaries name it."""

__all__ = [
    "CODES",
    "L1",
    "BatchTopK",
    "Code",
    "Gated",
    "JumpReLU",
    "MatchingPursuit",
    "Matryoshka",
    "Objective",
    "TopK",
    "largest",
]
