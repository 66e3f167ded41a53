"""Un-mixing: sparse autoencoders and what they are compared with, scored against the truth.

The package is also its main verb: `sp.unmix(acts, code)` trains, `sp.unmix.TopK` is a name in it.
"""

import sys
from types import ModuleType

from superpose.unmix.baselines import ica, neurons, random_dictionary
from superpose.unmix.codes import L1, Code, TopK
from superpose.unmix.faithfulness import Faithfulness, faithfulness
from superpose.unmix.matching import Match, match, random_mmcs
from superpose.unmix.sae import SAE, Dictionary, load
from superpose.unmix.training import SAETraining, unmix

__all__ = [
    "L1",
    "SAE",
    "Code",
    "Dictionary",
    "Faithfulness",
    "Match",
    "SAETraining",
    "TopK",
    "faithfulness",
    "ica",
    "load",
    "match",
    "neurons",
    "random_dictionary",
    "random_mmcs",
    "unmix",
]


class _Callable(ModuleType):
    # Python looks `__call__` up on the type of a module, never in the module, so that a module
    # which is both a verb and a namespace needs a type of its own.
    __call__ = staticmethod(unmix)


sys.modules[__name__].__class__ = _Callable
