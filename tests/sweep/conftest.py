"""A sound sweep with all kinds of files, and a copy of it to damage."""

import shutil

import pytest
from tiny_sweeps import filled, made_up, refined

from superpose.sweep.store import Sweep


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A refined sweep with all kinds of files."""
    sweep = filled(tmp_path_factory.mktemp("sound") / "s", refined(), [6]).begin_round([2])
    for number in sweep.missing():
        shard = sweep.plan.shard(number)
        sweep.write(shard, made_up(sweep.plan, shard), 1.0)
    sweep.reindex()
    return Sweep.open(sweep.folder.where)


@pytest.fixture
def sweep(sound, tmp_path):
    shutil.copytree(sound.folder.where, tmp_path / "s")
    return Sweep.open(tmp_path / "s")
