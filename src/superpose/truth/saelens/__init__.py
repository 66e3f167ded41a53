"""Worlds of SAELens: built from its configurations, and folders of its `SyntheticModel`."""

from superpose.truth.saelens.benchmark import synthsaebench
from superpose.truth.saelens.configurations import from_saelens
from superpose.truth.saelens.folders import read_saelens, write_saelens

__all__ = ["from_saelens", "read_saelens", "synthsaebench", "write_saelens"]
