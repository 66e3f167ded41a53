"""Un-mixing: sparse autoencoders and what they are compared with, scored against the truth.

The package is also its main verb: `sp.unmix(acts, code)` trains, `sp.unmix.TopK` is a name in it.
"""

import sys
from types import ModuleType

from superpose.unmix import formats
from superpose.unmix.baselines import (
    Lasso,
    ica,
    neurons,
    pca,
    random_dictionary,
    sparse_dictionary,
)
from superpose.unmix.codes import (
    L1,
    BatchTopK,
    Code,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    TopK,
)
from superpose.unmix.comparison import Rules
from superpose.unmix.confusion import Confusion, confusion
from superpose.unmix.faithfulness import Faithfulness, faithfulness
from superpose.unmix.firing import Activity
from superpose.unmix.formats import Certificate, FormatError, FormatWarning, convert
from superpose.unmix.matching import Match, match, random_mmcs
from superpose.unmix.oracle import Attainable, OrthogonalPursuit, attainable
from superpose.unmix.recipe import SAETraining
from superpose.unmix.reconstruction import Reconstruction, reconstruction
from superpose.unmix.sae import SAE, Dictionary, load
from superpose.unmix.saelens_scores import saelens_scores
from superpose.unmix.shrinkage import soft_threshold
from superpose.unmix.stability import Stability, stability
from superpose.unmix.stream import source
from superpose.unmix.training import unmix
from superpose.unmix.weights import Weights

__all__ = [
    "L1",
    "SAE",
    "Activity",
    "Attainable",
    "BatchTopK",
    "Certificate",
    "Code",
    "Confusion",
    "Dictionary",
    "Faithfulness",
    "FormatError",
    "FormatWarning",
    "Gated",
    "JumpReLU",
    "Lasso",
    "Match",
    "MatchingPursuit",
    "Matryoshka",
    "OrthogonalPursuit",
    "Reconstruction",
    "Rules",
    "SAETraining",
    "Stability",
    "TopK",
    "Weights",
    "attainable",
    "confusion",
    "convert",
    "faithfulness",
    "formats",
    "ica",
    "load",
    "match",
    "neurons",
    "pca",
    "random_dictionary",
    "random_mmcs",
    "reconstruction",
    "saelens_scores",
    "soft_threshold",
    "source",
    "sparse_dictionary",
    "stability",
    "unmix",
]


class _Callable(ModuleType):
    # Python looks `__call__` up on the type of a module, never in the module, so that a module
    # which is both a verb and a namespace needs a type of its own.
    __call__ = staticmethod(unmix)


sys.modules[__name__].__class__ = _Callable
