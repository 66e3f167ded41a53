"""The engine: `train` turns a model, worlds and a recipe into a `Run`."""

from superpose.engine.files import describe_world, world_from
from superpose.engine.loop import train
from superpose.engine.losses import SAMPLES_FOR_LOSS
from superpose.engine.run import Run, Snapshots, load, stack
from superpose.engine.shards import Progress, threads
from superpose.engine.states import State
from superpose.engine.stopping import Plateau
from superpose.engine.training import Training, log_steps

__all__ = [
    "SAMPLES_FOR_LOSS",
    "Plateau",
    "Progress",
    "Run",
    "Snapshots",
    "State",
    "Training",
    "describe_world",
    "load",
    "log_steps",
    "stack",
    "threads",
    "train",
    "world_from",
]
