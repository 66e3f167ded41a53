"""The optima that are known: a small table kept with the package."""

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from superpose.features import Anticorrelated, Correlated, Features, Independent

_LAWS = {"independent": Independent, "correlated": Correlated, "anticorrelated": Anticorrelated}


class KnownOptimum(NamedTuple):
    """The lowest loss found for one world with m hidden dimensions, and how it looks.

    `shape` names the orthogonal factors of its represented features (norm above 1/2), with
    "k in d" for those without a name of their own; `squared_norm` is $\\|W\\|_F^2$.
    """

    world: Features
    m: int
    loss: float
    squared_norm: float
    shape: str


@cache
def known_optima() -> tuple[KnownOptimum, ...]:
    """Worlds of up to ten features with the lowest exact loss that a search has found.

    Each is the best of at least 6 random starts of `optimum` and of its neighbours in the table;
    a slow test searches all again from 64 others, or up to 1,024 where those do not reach it, and
    must end at the same losses and at none lower, to 1e-6 of the loss of a model that outputs 0.
    A loss below 1e-7 is kept as 0. They bound the least loss from above: no search proves a
    minimum global.

    >>> pentagon = next(each for each in known_optima() if each.shape == "pentagon")
    >>> pentagon.world.n, pentagon.m
    (5, 2)
    """
    text = files("superpose.theory").joinpath("known_optima.json").read_text("utf-8")
    return tuple(
        KnownOptimum(_world(row), row["m"], row["loss"], row["squared_norm"], row["shape"])
        for row in json.loads(text)
    )


def _world(row: dict) -> Features:
    law = _LAWS[row["law"]]
    return Features(
        n=row["n"],
        p=row["p"],
        importance=row["importance"],
        law=law(row["size"]) if row["size"] > 1 else law(),
    )
