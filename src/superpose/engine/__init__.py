"""The engine: `train` turns a model, worlds and a recipe into a `Run`."""

from superpose.engine.loop import SAMPLES_FOR_LOSS, Progress, threads, train
from superpose.engine.run import Run, Snapshots, describe_world, load, stack, world_from
from superpose.engine.training import Training

__all__ = [
    "SAMPLES_FOR_LOSS",
    "Progress",
    "Run",
    "Snapshots",
    "Training",
    "describe_world",
    "load",
    "stack",
    "threads",
    "train",
    "world_from",
]
