"""Sparse autoencoders held against worlds whose truth is known: codes × L0 × worlds.

Must show: what each code recovers of the truth, with intervals over seeds, between what needs no
training and what is possible; which differences so many seeds can tell; and, each with the control
in which it is absent, the known ways in which a dictionary goes wrong (`pathologies`).
"""

from superpose.experiments.saebench.bench import Bench, Findings, run
from superpose.experiments.saebench.codes import CODES
from superpose.experiments.saebench.comparison import differences, least_paired_difference
from superpose.experiments.saebench.worlds import WORLDS

__all__ = [
    "CODES",
    "WORLDS",
    "Bench",
    "Findings",
    "differences",
    "least_paired_difference",
    "run",
]
