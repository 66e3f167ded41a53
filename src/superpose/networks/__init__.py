"""Your own network: harvest activations, measure superposition against nulls, name features."""

from superpose.networks.harvest import harvest
from superpose.networks.measure import Measurement, measure
from superpose.networks.naming import Name, Names, name

__all__ = ["Measurement", "Name", "Names", "harvest", "measure", "name"]
