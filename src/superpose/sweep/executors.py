"""Which executor the options of a command mean."""

from superpose.sweep.here import Here
from superpose.sweep.processes import Processes
from superpose.sweep.work import Executor


def executor_of(name: str, workers: int | None = None, address: str | None = None) -> Executor:
    """The executor called `name`: "local", "ray" or "here".

    Raises ValueError for options that it does not have.

    >>> executor_of("local", workers=2)
    Processes(workers=2)
    """
    if address is not None and name != "ray":
        raise ValueError(f"--address {address} goes with --executor ray")
    if name == "ray":
        from superpose.sweep.cluster import Ray

        return Ray(address=address, workers=workers)
    if name == "local":
        return Processes(workers=workers)
    if workers is not None:
        raise ValueError(f"--workers {workers} goes with --executor local or ray")
    return Here()
