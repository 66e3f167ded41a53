"""Worlds of SAELens: built as it builds them, and folders read and written."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from superpose.features import Exponential, Features
from superpose.records import RecordError
from superpose.truth import (
    Circles,
    Firing,
    Folded,
    Forest,
    LowRank,
    Mixture,
    coherence,
    from_saelens,
    random_directions,
    read_saelens,
    synthsaebench,
    write_saelens,
    zipf,
)
from superpose.truth.saelens.hierarchies import formatted, parsed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fixtures" / "peers" / "synthetic_model"
COUNT = 20_000  # samples that SAELens draws
PEER = ROOT / "benchmarks" / ".peers" / "saelens" / "bin" / "python"


def apart(found, expected, variance, samples):
    """Distances in standard errors of means over samples, the expected ones sampled as often."""
    error = np.sqrt(2.0 * np.maximum(variance, 1e-9) / samples)
    return np.abs(np.asarray(found) - np.asarray(expected)) / error


@pytest.fixture(scope="module")
def world():
    return read_saelens(FOLDER)


@pytest.fixture(scope="module")
def small():
    return synthsaebench(scale=1 / 16)


def test_a_folder_of_saelens_draws_the_same_law(world):
    known = json.loads((FOLDER / "statistics.json").read_text("utf-8"))
    count = known["samples"]
    drawn = world.draw(count, 0, 3)
    f, on = drawn.f().double(), drawn.active().double()
    rate, together = np.array(known["rate"]), np.array(known["together"])
    assert (apart(on.mean(0), rate, rate * (1 - rate), count) < 5).all()
    met = (on.T @ on / count).numpy()
    assert (apart(met, together, together * (1 - together), count) < 5).all()
    variance = np.array(known["square"]) - np.array(known["mean"]) ** 2
    assert (apart(f.mean(0), known["mean"], variance, count) < 5).all()
    assert world.probability == pytest.approx(rate, abs=5e-3)


def test_a_configuration_builds_what_saelens_built_from_it(world):
    built = from_saelens(world.configuration)
    assert torch.allclose(built.directions, world.directions, atol=1e-6)
    assert torch.equal(built.bias, world.bias)
    assert built.features.p == pytest.approx(world.features.p, abs=1e-6)
    ours, theirs = built.features, world.features
    assert np.array_equal(ours.correlation.factor, theirs.correlation.factor)
    for name in ("parent", "exclusive", "scaled", "feature"):
        assert np.array_equal(getattr(ours.forest, name), getattr(theirs.forest, name))


def plain():
    """A world that was not made by SAELens, with a group in its forest."""
    forest = Forest(
        [-1, 0, 0, -1, -1, 6, 3],
        exclusive=[True, False, False, False, False, False, False],
        scaled=[True, False, False, True, False, False, False],
        feature=[0, 1, 2, 3, 4, 5, -1],
    )
    law = Folded(np.linspace(1.0, 2.0, 6), np.geomspace(0.1, 0.4, 6))
    firing = Firing(p=[0.5, 0.4, 0.3, 0.2, 0.1, 0.6], amplitude=law, forest=forest)
    return Mixture(firing, random_directions(6, 3), bias=torch.ones(3))


@pytest.mark.parametrize("name", ["read", "plain", "independent", "small"])
def test_what_is_written_is_read_again(name, world, small, tmp_path):
    several = {
        "read": world,
        "plain": plain(),
        "independent": Mixture(Firing(p=zipf(5)), random_directions(5, 3)),
        "small": small,
    }
    given = several[name]
    again = read_saelens(write_saelens(given, tmp_path / "world"))
    one, other = given.draw(200, 0, 0), again.draw(200, 0, 0)
    assert np.array_equal(one.index, other.index)
    assert torch.allclose(one.x, other.x, atol=1e-5)
    assert again.probability == pytest.approx(given.probability, abs=1e-6)
    assert (tmp_path / "world" / "hierarchy.json").exists() == (name != "independent")


@pytest.fixture(scope="module")
def described(small, tmp_path_factory):
    """What SAELens finds in two folders that were written for it, both in one process."""
    if not PEER.exists():
        pytest.skip("benchmarks/peers/make.py has not made the environment of saelens")
    home = tmp_path_factory.mktemp("written")
    folders = [write_saelens(plain(), home / "plain"), write_saelens(small, home / "small")]
    done = subprocess.run(
        [PEER, FOLDER.with_name("describe_synthetic_model.py"), str(COUNT), *folders],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return home


@pytest.mark.parametrize("name", ["plain", "small"])
def test_saelens_reads_what_is_written(name, small, described):
    given = small if name == "small" else plain()
    found = json.loads((described / name / "found.json").read_text("utf-8"))
    assert torch.equal(torch.tensor(found["feature_vectors"]), given.directions)
    assert torch.equal(torch.tensor(found["bias"]), given.bias)
    law = given.features.amplitude
    assert found["firing_probabilities"] == pytest.approx(given.features.p.astype(np.float32))
    assert found["mean_firing_magnitudes"] == pytest.approx(law.mean, rel=1e-5)
    assert found["std_firing_magnitudes"] == pytest.approx(law.std, rel=1e-5, abs=1e-6)
    drawn = given.draw(COUNT, 0, 1)
    f, rate = drawn.f().double(), np.array(found["rate"])
    # Two counts of a few each are not normal: features that fire less often are left out.
    often = rate * COUNT > 50
    distance = apart(drawn.active().double().mean(0), rate, rate * (1 - rate), COUNT)
    assert (distance[often] < 5).all()
    variance = np.array(found["square"]) - np.array(found["mean"]) ** 2
    assert (apart(f.mean(0), found["mean"], variance, COUNT)[often] < 5).all()


def test_the_small_benchmark_has_the_statistics_of_its_page(small):
    drawn, overlap = small.sample(50_000, seed=0), coherence(small.directions)
    assert (small.n, small.d) == (1024, 64)
    expected, error = small.probability.sum(), np.diff(drawn.indptr).std() / 50_000**0.5
    assert expected == pytest.approx(7.263, abs=1e-3)
    assert drawn.l0() == pytest.approx(expected, abs=5 * error)
    assert overlap.mean_max == pytest.approx(0.407, abs=2e-3)
    assert small.features.p[:2] == pytest.approx([0.4, 0.2792], abs=1e-4)
    assert small.bias.norm() == pytest.approx(0.5)
    forest = small.features.forest
    assert np.count_nonzero(np.diff(forest.start)[:8]) == 8
    assert forest.exclusive.sum() == forest.scaled.sum() == 8 * (1 + 4 + 16)


@pytest.mark.slow
def test_the_benchmark_has_the_statistics_that_were_published():
    full = synthsaebench()
    drawn, probability = full.draw(4096, 0, 0), full.probability
    assert drawn.l0() == pytest.approx(34.5, abs=0.5)
    assert probability.sum() == pytest.approx(34.55, abs=0.1)  # published: about 34,
    assert probability[:4096].sum() == pytest.approx(25.1, abs=0.1)  # and about 25
    assert coherence(full.directions).mean_max == pytest.approx(0.145, abs=2e-3)  # about .15


def test_other_scales_are_refused():
    with pytest.raises(ValueError, match="1, as published, or 1/16"):
        synthsaebench(scale=0.5)


@pytest.mark.parametrize(
    ("features", "law"),
    [
        (Features(n=4, p=0.1, amplitude=Exponential()), "of constant or Folded magnitudes"),
        (Features.exactly_one(n=4), "of constant or Folded magnitudes"),
        (Circles(count=2), "not Circles"),
        (Firing(n=4, p=0.1, amplitude=Folded([1.0, 2.0, 1.0, 3.0])), "values of mean"),
        (Firing(n=4, p=0.1, correlation=LowRank.random(4, 2, 0.1)), "thresholds of correlated"),
    ],
    ids=["exponential", "sets", "circles", "any means", "correlated"],
)
def test_worlds_that_saelens_does_not_know_are_refused(features, law, tmp_path):
    with pytest.raises(ValueError, match=law):
        write_saelens(Mixture(features, torch.eye(4)), tmp_path / "world")
    assert not (tmp_path / "world").exists()


def test_noise_is_refused_and_a_folder_is_not_overwritten(tmp_path):
    noisy = Mixture(Firing(n=2, p=0.1), torch.eye(2), noise=0.1)
    with pytest.raises(ValueError, match="no noise"):
        write_saelens(noisy, tmp_path / "world")
    (tmp_path / "kept").write_text("mine", "utf-8")
    with pytest.raises(FileExistsError, match="not empty"):
        write_saelens(Mixture(Firing(n=2, p=0.1), torch.eye(2)), tmp_path)


def changed(folder, tmp_path, file, change):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    about = json.loads((copy / file).read_text("utf-8"))
    change(about)
    (copy / file).write_text(json.dumps(about), "utf-8")
    return copy


@pytest.mark.parametrize(
    ("file", "change", "law"),
    [
        ("synthetic_model_config.json", lambda c: c.update(num_features=25), "feature_vectors"),
        ("synthetic_model_config.json", lambda c: c.pop("hidden_dim"), "hidden_dim"),
        ("synthetic_model_config.json", lambda c: c.update(seed=None), "without a seed"),
        ("hierarchy.json", lambda h: h["roots"][0].update(feature_index=99), "no feature of 24"),
        ("hierarchy.json", lambda h: h["roots"].append(h["roots"][0]), "there twice"),
        ("hierarchy.json", lambda h: h.update(roots={}), "a list of nodes"),
    ],
    ids=["sizes", "missing key", "no seed", "no feature", "twice", "no list"],
)
def test_damaged_folders_are_refused(file, change, law, tmp_path):
    with pytest.raises(RecordError, match=law):
        read_saelens(changed(FOLDER, tmp_path, file, change))


@pytest.mark.parametrize("file", ["synthetic_model_config.json", "synthetic_model.safetensors"])
def test_files_that_cannot_be_read_are_named(file, tmp_path):
    copy = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    (copy / file).write_bytes(b"\xff{")
    with pytest.raises(RecordError, match=file):
        read_saelens(copy)
    (copy / file).unlink()
    with pytest.raises(RecordError, match=file):
        read_saelens(copy)


def test_probabilities_that_saelens_would_not_use_are_told(tmp_path):
    def rarer(configuration):
        configuration["firing_probability"]["max_prob"] = 0.2

    copy = changed(FOLDER, tmp_path, "synthetic_model_config.json", rarer)
    with pytest.warns(UserWarning, match="so does this world"):
        assert read_saelens(copy).features.p[0] == pytest.approx(0.2)


def test_groups_do_not_compete_with_exclusive_features():
    leaf = {"feature_index": 1}
    group = {"feature_index": None, "children": [{"feature_index": 3}]}
    root = {"feature_index": 0, "children": [leaf, {"feature_index": 2}, group]}
    forest = parsed(4, [root | {"mutually_exclusive_children": True}])
    assert Firing(p=[0.5, 1.0, 1.0, 1.0], forest=forest).probability == pytest.approx(
        [0.5, 0.25, 0.25, 0.5]
    )
    again = Firing(p=[0.5, 1.0, 1.0, 1.0], forest=parsed(4, formatted(forest)))
    assert again.probability == pytest.approx([0.5, 0.25, 0.25, 0.5])
    competing = Forest([-1, 0, 0, 1], exclusive=[True, False, False, False], feature=[0, -1, 1, 2])
    with pytest.raises(ValueError, match="groups do not compete"):
        formatted(competing)


FLAT = {"generator_name": "linear", "max_prob": 0.2, "min_prob": 0.1}
BARE = {"num_features": 6, "hidden_dim": 3, "firing_probability": FLAT, "seed": 1}


def test_every_law_of_saelens_is_known():
    random = {"generator_name": "random", "max_prob": 0.5, "min_prob": 0.4}
    sizes = {"generator_name": "exponential", "start": 1.0, "end": 4.0}
    constant = {"generator_name": "constant", "value": 0.5}
    built = from_saelens(
        BARE
        | {"firing_probability": random, "mean_firing_magnitudes": sizes}
        | {"std_firing_magnitudes": constant, "bias": True}
    )
    assert ((built.probability > 0.38) & (built.probability < 0.5)).all()
    assert built.features.amplitude.mean[[0, -1]] == pytest.approx([1.0, 4.0])
    assert built.features.amplitude.std == pytest.approx(np.full(6, 0.5))
    assert built.bias.norm() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"seed": None}, "no seed"),
        ({"firing_probability": {"generator_name": "other"}}, "kind 'other'"),
        ({"mean_firing_magnitudes": {"generator_name": "other"}}, "kind 'other'"),
    ],
    ids=["seed", "probabilities", "magnitudes"],
)
def test_configurations_that_say_no_world_are_refused(change, law):
    with pytest.raises(ValueError, match=law):
        from_saelens(BARE | change)
