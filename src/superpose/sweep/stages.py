"""Work of one piece, such as looking at a sweep: a record, made again when its sources change."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from superpose import records
from superpose.kernels import cpu


def stage(
    folder: Path,
    made_from: Mapping[str, Any],
    make: Callable[[Path, dict[str, Any]], object],
) -> None:
    """Have `make(folder, made_from)` write a record, unless a sound one of just that is there.

    The versions of superpose and of its kernel count among what it is made from, and the record
    is to keep it all under "made_from".
    """
    all_of_it = {**made_from, "kernel": cpu.VERSION, "superpose": version("superpose")}
    try:
        if records.load(folder).about["made_from"] == all_of_it:
            return
    except (records.RecordError, KeyError):
        pass
    make(folder, all_of_it)
