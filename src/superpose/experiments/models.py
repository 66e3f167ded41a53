"""The models of an experiment: a plan, trained in this process, kept and resumed by its store."""

from collections.abc import Callable
from pathlib import Path

from superpose import engine
from superpose.engine import Run
from superpose.records import RecordError
from superpose.sweep import Here, Sweep, SweepConfiguration
from superpose.sweep.run import run as carry_on

Progress = Callable[[int, int], None]
"""Called with (models done, models in all)."""


def trained(
    folder: Path, configuration: SweepConfiguration, progress: Progress | None = None
) -> Run:
    """Every model of a plan over worlds alone, `[worlds, runs]`; only those not there are trained.

    Raises ConfigurationError where the folder holds another plan, RecordError where it cannot be
    written, KeyboardInterrupt when interrupted; what was trained by then stays.
    """
    sweep = Sweep.create(folder, configuration)
    tell = (lambda done, total, _: progress(done, total)) if progress else None
    outcome = carry_on(sweep, Here(), tell)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.missing:
        # What is missing without a failure was lost or damaged since it was written.
        lost = f"{folder}: {outcome.missing} shards were lost as they were written; run it again"
        raise RecordError(outcome.broken or next(iter(outcome.failed.values()), lost))
    return engine.stack([sweep.runs(cell) for cell in range(sweep.plan.cells)])
