"""What a sweep will take and what became of it, in words for people and as plain JSON values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from superpose.records.folders import Folder
from superpose.sweep.calibration import Estimate, calibrate, estimate, sizes
from superpose.sweep.configuration import SweepConfiguration
from superpose.sweep.index import SWEEP
from superpose.sweep.plan import Plan
from superpose.sweep.run import Outcome
from superpose.sweep.store import Sweep

# Shards that are named in a summary, at most.
_NAMED = 10


def estimates(configuration: SweepConfiguration, workers: int | None = None) -> list[Estimate]:
    """What a sweep will take on this machine, and on so many `workers` too; measures a little."""
    speed = calibrate(configuration)
    plan = Plan(configuration, sizes(configuration, speed, workers))
    return [estimate(plan, speed, number) for number in ([None, workers] if workers else [None])]


def models_there(where: str, configuration: SweepConfiguration) -> int:
    """How many models of a plan a folder holds by now.

    Raises ConfigurationError where it holds a sweep of another configuration.
    """
    if not Folder(where).has(SWEEP):
        return 0
    sweep = Sweep.create(where, configuration)
    return sum(sweep.plan.shard(number).models for number in sweep.done())


def describe_estimates(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Estimates of one plan for several numbers of workers, as plain JSON values."""
    first = asdict(estimates[0])
    workers = [{"workers": each.workers, "hours": each.hours} for each in estimates]
    del first["workers"]
    first["shard_seconds"] = list(first["shard_seconds"])
    return first | {"dollars": estimates[0].dollars, "time": workers}


def estimate_lines(estimates: Sequence[Estimate]) -> list[tuple[str, str]]:
    """Estimates of one plan for several numbers of workers, as pairs of a name and words."""
    one = estimates[0]
    models = f"{one.models:,} in {one.cells:,} cells"
    if one.models_at_most > one.models:
        models += f" to begin with; {one.models_at_most:,} on the whole grid, were all refined"
    mean, longest = map(duration, one.shard_seconds)
    lines = [("models", models), ("shards", f"{one.shards:,} of {mean}, the longest {longest}")]
    for each in estimates:
        cores = "1 core" if each.workers == 1 else f"{each.workers:,} cores"
        lines.append(("time", f"{duration(each.hours * 3600)} on {cores} like these"))
    return [
        *lines,
        ("bytes", f"{amount(one.table_bytes)} of tables, {amount(one.weight_bytes)} of weights"),
        (
            "cost",
            f"${one.dollars:,.2f} for {one.core_hours:.3g} core hours, if one costs ${one.price}",
        ),
    ]


def describe_outcome(outcome: Outcome, where: str) -> dict[str, Any]:
    """How a run of the sweep in the folder `where` ended, as plain JSON values."""
    return {
        "sweep": where,
        "models": {"done": outcome.models, "planned": outcome.planned},
        "shards": {"done": outcome.done, "missing": outcome.missing},
        "refinement": outcome.rounds
        and dict(zip(("rounds", "models of the whole grid"), outcome.rounds, strict=True)),
        "failed": {str(shard): why for shard, why in sorted(outcome.failed.items())},
        "interrupted": outcome.interrupted,
        "broken": outcome.broken or None,
        "complete": outcome.complete,
        "again": outcome.resumable,
    }


def progress_line(outcome: Outcome, where: str) -> str:
    """How much of a sweep is there, in a sentence."""
    line = f"{outcome.models:,} of {outcome.planned:,} models are in {where}"
    if not outcome.rounds:
        return line
    rounds, grid = outcome.rounds
    return f"{line}, after {_rounds(rounds)}; the whole fine grid has {grid:,}"


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def troubles(outcome: Outcome) -> list[str]:
    """What went wrong, in sentences; what to do about it is the last."""
    if not outcome.missing:
        more = "refinement is not at its end; run the same command again to go on"
        return [more] if outcome.unrefined else []
    failed = sorted(outcome.failed.items())
    lines = [f"shard {shard} was given up: {why}" for shard, why in failed[:_NAMED]]
    if len(failed) > _NAMED:
        lines.append(f"and {len(failed) - _NAMED:,} more shards were given up")
    if outcome.broken:
        lines.append(f"stopped: {outcome.broken}")
    left = f"{outcome.planned - outcome.models:,} of {outcome.planned:,} models are missing"
    again = "run the same command again to go on"
    never = "they would fail again; change what the reasons name"
    return [*lines, f"{left}; {again if outcome.resumable else never}"]


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(0.25), duration(90), duration(7200), duration(1e6)
    ('0.25 s', '90 s', '2 h', '11.6 days')
    """
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{_short(seconds / unit)} {name}"
    return f"{_short(seconds / 86_400)} days"


def amount(count: float) -> str:
    """So many bytes in the unit that suits them.

    >>> amount(0), amount(2048), amount(3.2e9)
    ('0 B', '2.05 kB', '3.2 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{_short(count)} {unit}"
        count /= 1000
    return f"{_short(count)} TB"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
