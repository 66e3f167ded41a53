"""Your own network: harvest activations, measure superposition against nulls, name features."""

from superpose.networks.harvest import harvest
from superpose.networks.measure import Measurement, measure
from superpose.networks.naming import Detection, Name, Names, name
from superpose.networks.neurons import Neuron, Neurons, untangle

__all__ = [
    "Detection",
    "Measurement",
    "Name",
    "Names",
    "Neuron",
    "Neurons",
    "harvest",
    "measure",
    "name",
    "untangle",
]
