"""Your own network: harvest activations, measure superposition against nulls, name features."""

from superpose.networks.harvest import harvest
from superpose.networks.measure import Measurement, measure
from superpose.networks.naming import Detection, Name, Names, name
from superpose.networks.neurons import Neuron, Neurons, untangle
from superpose.networks.presence import Presence, superposition_test

__all__ = [
    "Detection",
    "Measurement",
    "Name",
    "Names",
    "Neuron",
    "Neurons",
    "Presence",
    "harvest",
    "measure",
    "name",
    "superposition_test",
    "untangle",
]
