"""Going on with training where it ended or from a snapshot, as if it had never stopped."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from superpose.engine.shards import Start
from superpose.engine.states import Rows, State
from superpose.engine.training import Training
from superpose.features import Features, Finite


def check_agree(
    old: Training,
    new: Training,
    step: int,
    worlds: tuple[Features, ...],
    index: Int[np.ndarray, "*run"],
) -> None:
    """Raise ValueError where the recipe `new` would not have done the first `step` steps alike."""
    if not isinstance(new, Training):
        raise TypeError(f"resume: {new!r} is no Training; give Training(steps=…), or nothing")
    if new.steps <= step:
        raise ValueError(
            f"resume: {step} steps are done and the recipe has {new.steps}; give a longer "
            "Training(steps=…), or resume from a snapshot"
        )
    if step == 0:
        return
    drawn = any(not isinstance(world.law, Finite) for world in worlds)
    names = ("weight_decay", "l1", "stop", *(("batch",) if drawn else ()))
    for name in names:
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            raise ValueError(
                f"resume: {name} was {then!r} and is {now!r} in the recipe to go on with; the "
                f"{step} steps that are done need the same"
            )
    then, now = (
        each.learning_rates(index.ravel())[..., :step].astype(np.float32) for each in (old, new)
    )
    if (then != now).any():
        raise ValueError(
            f"resume: in the recipe to go on with, the learning rates of the {step} steps that are "
            "done were others (lr, schedule, warmup and, unless constant, steps decide them)"
        )


def start_from(states: Mapping[int, State], step: int, training: Training) -> Start:
    """The start after `step` steps, with the snapshots of `training` up to there.

    `states` are what was kept, by number of steps. Raises ValueError for what was not.
    """
    for needed in (step, *(s for s in training.snapshots if s <= step)):
        if needed not in states:
            raise ValueError(
                f"resume: there is no snapshot after {needed} steps, only after "
                f"{', '.join(map(str, states))}; ask for no others up to where training goes on"
            )
    if not states[step].moments.shape[-1]:
        raise ValueError(
            "resume: the record has no optimiser moments, which earlier versions did not keep; "
            "train it again from the start"
        )
    rows = Rows.of(states[step])
    count = sum(s <= step for s in training.snapshots)
    past = Rows.empty((count, len(rows.loss)), rows.theta.shape[-1])
    for k, kept in enumerate(training.snapshots[:count]):
        past.put(k, Rows.of(states[kept]))
    return Start(step, rows, past)
