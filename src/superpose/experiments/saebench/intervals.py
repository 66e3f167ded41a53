"""Rows of single runs to means with intervals over seeds."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from superpose.experiments.packing import plain
from superpose.statistics import mean_interval


def over_seeds(table: pa.Table, by: Sequence[str]) -> pa.Table:
    """The mean of every other column but `seed` with its 95 % interval, for each value of `by`.

    One row a group and quantity: the columns of `by`, `quantity`, `estimate`, `low`, `high` and
    `runs`, how many seeds it could be measured in; NaN marks those in which it could not.

    >>> rows = pa.table({"code": ["a", "a", "b"], "seed": [0, 1, 0], "l0": [1.0, 3.0, 5.0]})
    >>> over_seeds(rows, ["code"])["estimate"].to_pylist()
    [2.0, 5.0]
    """
    quantities = [name for name in table.column_names if name not in (*by, "seed")]
    groups: dict[tuple, dict[str, list]] = {}
    for row in table.to_pylist():
        group = groups.setdefault(tuple(row[name] for name in by), {q: [] for q in quantities})
        for name in quantities:
            group[name].append(np.nan if row[name] is None else float(row[name]))
    rows = [
        dict(zip(by, key, strict=True))
        | {"quantity": name}
        | plain(mean_interval(values))
        | {"runs": int(np.isfinite(values).sum())}
        for key, group in groups.items()
        for name, values in group.items()
    ]
    return pa.Table.from_pylist(rows)
