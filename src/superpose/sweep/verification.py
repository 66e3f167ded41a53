"""`superpose verify`: every byte of the records and sweeps in a folder."""

from pathlib import Path

from superpose import records
from superpose.records import RecordError
from superpose.records.folders import Folder
from superpose.sweep.index import SWEEP, Findings
from superpose.sweep.store import Sweep


def verify(where: str, *, reindex: bool = False) -> Findings:
    """Look at every byte of a sweep, or of the records and sweeps in a folder and below it.

    With `reindex` the indices of sweeps are written anew first, and what killed attempts left
    more than an hour ago is removed. Raises RecordError where the folder cannot be read.
    """
    folder = Folder(where)
    names = folder.names()
    inside = [name.removesuffix(SWEEP) for name in names if f"/{name}".endswith(f"/{SWEEP}")]
    below = [""] if "" in inside else [name.rstrip("/") for name in inside]
    problems, leftovers = [], []
    for name in below:
        try:
            sweep = Sweep.open(f"{folder.where}/{name}" if name else folder.where)
            if reindex:
                sweep.reindex()
        except RecordError as error:
            problems.append(str(error))
        else:
            found = sweep.findings()
            problems += found.problems
            leftovers += found.leftovers
    prefixes = tuple(f"{name}/" for name in below)
    if not below or ("" not in below and any(not name.startswith(prefixes) for name in names)):
        problems += records.verify(where, apart=[Path(where, name) for name in below])
    return Findings(problems, leftovers)
