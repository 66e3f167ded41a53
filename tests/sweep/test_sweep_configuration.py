import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.engine import Plateau, Training
from superpose.features import Correlated, Exponential, Features
from superpose.initialisation import Normal, Notebook, Xavier
from superpose.models import ToyModel
from superpose.sweep import configuration
from superpose.sweep.axes import FIELDS
from superpose.sweep.configuration import ConfigurationError, parse, read

SCHEMA = Path(__file__).parents[2] / "docs" / "sweep.schema.json"

WHOLE = """
name = "onset of superposition"
seed = 3
seeds = 4
restarts = 2
[model]
n = 6
m = 2
hidden = "relu"
tied = false
target = "abs"
init = { name = "normal", W = 0.5, b = 0.1 }
[world]
p = [0.1, 0.2, 0.3]
importance = [1.0, 1.0, 0.9, 0.9, 0.8, 0.8]
law = { name = "correlated", size = 2 }
amplitude = { name = "exponential", scale = 2 }
signed = true
[training]
steps = 2_000
batch = 64
lr = [1e-3, 2e-3, 3e-3, 4e-3, 1e-3, 2e-3, 3e-3, 4e-3]
weight_decay = -0.01
schedule = "cosine"
warmup = 10
final = 0.1
l1 = 0.01
snapshots = { log = 3 }
stop = { window = 100, patience = 2, relative = 0.01 }
[axes]
"world.signed" = [false, true]
[[axes.zipped]]
"model.n" = [6, 6]
"model.m" = [2, 3]
[keep]
weights = "sampled"
runs = 2
[shards]
models = 256
"""

MODEL = "[model]\nn = 5\nm = 2\n"
AXES = MODEL + "[axes]\n"
REFINE = AXES + '"world.p" = { log = [1, 0.1], count = 5 }\n[refine]\nmeasure = "represented"\n'
REFINE += 'axes = ["world.p"]\n'
RANGE = '"world.p" = { log = [1, 0.1], count = 5 }\n'

# What is wrong, and how the answer begins.
BAD = [
    ("seed = ", "is not valid TOML: Invalid value (at end of document)"),
    ("sed = 1", "unknown key 'sed'; did you mean 'seed'?"),
    ("seeds = 0", "seeds = 0: Input should be greater than or equal to 1"),
    ("seeds = true", "seeds = True: Input should be a valid integer"),
    ('seeds = "8"', "seeds = '8': Input should be a valid integer"),
    ("seeds = 2.5", "seeds = 2.5: Input should be a valid integer"),
    ("seed = -1", "seed = -1: Input should be greater than or equal to 0"),
    ("seed = 4294967296", "seed = 4294967296: Input should be less than 4294967296"),
    ("restarts = 0", "restarts = 0: Input should be greater than or equal to 1"),
    ("name = 5", "name = 5: Input should be a valid string"),
    ("nonsense", "is not valid TOML: Expected '=' after a key in a"),
    ("[model]\nm = 2", 'model: n is missing: set it in [model], or sweep "model.n"'),
    ("[model]\nn = 5", 'model: m is missing: set it in [model], or sweep "model.m"'),
    ("[model]\nn = 0\nm = 2", "model: ToyModel(n=0): n is a whole number of at least 1"),
    ("[model]\nn = 5.0\nm=2", "model.n = 5.0: Input should be a valid integer"),
    ('[model]\nn = "5"\nm=2', "model.n = '5': Input should be a valid integer"),
    ("[model]\nn=5\nm=2\nk=1", "unknown key 'model.k'; known here: n, m, hidden, output,"),
    ("[modle]\nn=5", "unknown key 'modle'; did you mean 'model'?"),
    (MODEL + 'hidden = "gelu"', "model.hidden = 'gelu': Input should be 'linear' or 'relu'"),
    (MODEL + "tied = 1", "model.tied = 1: Input should be a valid boolean"),
    (MODEL + 'target = "square"', "model.target = 'square': Input should be 'identity' or"),
    (MODEL + 'init = "xaver"', "model.init = 'xaver': did you mean 'xavier'?"),
    (MODEL + 'init = "normal"', "model.init.W is missing"),
    (
        MODEL + 'init = { name = "normal", W = -1.0 }',
        "model: Normal(W=-1.0): a standard deviation is finite and",
    ),
    (
        MODEL + 'init = { name = "normal", w = 1.0 }',
        "unknown key 'model.init.w'; known here: name, W, b",
    ),
    (MODEL + 'init = "notebook"', "model.init.instances is missing"),
    (
        MODEL + 'init = { name="notebook", instances = 0 }',
        "model: Notebook(instances=0): how many models the",
    ),
    (MODEL + "init = 3", "model.init = 3: Input should be a table"),
    (MODEL + "init = {}", "model.init = {}: name is one of xavier, notebook, normal"),
    (MODEL + "[world]\np = 1.5", "world: Features(p=1.5): p is the probability that a"),
    (MODEL + "[world]\np = 0", "world: Features(p=0): p is the probability that a feature"),
    (MODEL + "[world]\np = nan", "world.p = nan: Input should be a finite number"),
    (
        MODEL + "[world]\np = [0.1, 0.2]",
        "world: Features: p has shape [2], but there are 5 to give",
    ),
    (MODEL + "[world]\nn = 5", "unknown key 'world.n'; known here: p, importance, law,"),
    (MODEL + "[world]\nimportance = -1", "world: Features(importance=-1): importance weights the"),
    (
        MODEL + "[world]\nimportance = [1.0]",
        "world: Features: importance has shape [1], but there are",
    ),
    (MODEL + '[world]\nlaw = "correlated"', "world.law.size is missing"),
    (MODEL + '[world]\nlaw = "indep"', "world.law = 'indep': did you mean 'independent'?"),
    (
        MODEL + '[world]\nlaw = { name = "correlated", size = 2 }',
        "world: Features(n=5) with sets of 2: n must be a whole",
    ),
    (MODEL + "[world]\nlaw = { size = 2 }", "world.law = {'size': 2}: name is one of independent,"),
    (
        MODEL + '[world]\nlaw = "exactly_one"\np = 0.5',
        'world: p = 0.5 with law = "exactly_one": one feature is',
    ),
    (MODEL + '[world]\namplitude = "exponental"', "world.amplitude = 'exponental': did you mean"),
    (
        MODEL + '[world]\namplitude = { name = "exponential", scale = 0 }',
        "world: Exponential(scale=0.0): the scale of a magnitude",
    ),
    (
        MODEL + '[world]\namplitude={law="uniform"}',
        "world.amplitude = {'law': 'uniform'}: name is one of",
    ),
    (MODEL + '[world]\nsigned = "yes"', "world.signed = 'yes': Input should be a valid boolean"),
    (MODEL + "[training]\nsteps = 0", "training: Training(steps=0): a whole number of at least 1"),
    (MODEL + "[training]\nsteps = 1e3", "training.steps = 1000.0: Input should be a valid integer"),
    (MODEL + "[training]\nstep = 10", "unknown key 'training.step'; did you mean 'steps'?"),
    (MODEL + "[training]\nlr = 0", "training: Training(lr=0.0): a learning rate is positive"),
    (
        MODEL + "[training]\nlr = [0.1, 0.2]",
        "training.lr has 2 numbers for 8 seeds x 1 restarts; give",
    ),
    (
        MODEL + '[training]\nschedule = "cos"',
        "training.schedule = 'cos': Input should be 'constant',",
    ),
    (MODEL + "[training]\nfinal = 0.1", "training: Training(final=0.1): a constant schedule ends"),
    (
        MODEL + "[training]\nwarmup = 20_000",
        "training: Training(warmup=20000): it is part of the 10000",
    ),
    (
        MODEL + "[training]\nsnapshots = [5, 3]",
        "training: Training(snapshots=(5, 3)): increasing numbers",
    ),
    (
        MODEL + "[training]\nsnapshots = { log = 0 }",
        "training.snapshots.log = 0: Input should be greater than",
    ),
    (
        MODEL + "[training]\nsnapshots = { lg = 3 }",
        "unknown key 'training.snapshots.lg'; did you mean 'log'?",
    ),
    (MODEL + "[training]\nsnapshots = 5", "training.snapshots = 5: Input should be a table"),
    (
        MODEL + "[training]\nstop = { window = 0 }",
        "training: Plateau(window=0): a whole number of at least 1",
    ),
    (
        MODEL + "[training]\nstop = { patients = 2 }",
        "unknown key 'training.stop.patients'; did you mean",
    ),
    (MODEL + "[training]\nstop = true", "training.stop = True: Input should be a table"),
    (MODEL + "[training]\nl1=-1", "training: Training(l1=-1.0): at least 0 and finite"),
    (
        MODEL + "[training]\nweight_decay=inf",
        "training.weight_decay = inf: Input should be a finite",
    ),
    (AXES + '"world.pp" = [0.1]', "axes: unknown key 'world.pp'; did you mean 'world.p'?"),
    (AXES + '"p" = [0.1]', "axes: unknown key 'p'; did you mean 'world.p'?"),
    (AXES + '"world.n" = [5]', 'axes: "world.n": a world has the features of its model;'),
    (AXES + '"seeds" = [5]', "axes: unknown key 'seeds'; fields of the model, the world"),
    (AXES + '"world.p" = 0.1', 'axes: "world.p" = 0.1: an axis is a list [1, 2], { log ='),
    (AXES + '"world.p" = []', 'axes: "world.p" has no values; give at least one'),
    (AXES + '"world.p" = [0.1, 0.1]', 'axes: "world.p" repeats 0.1: each may stand once'),
    (AXES + '"world.p" = [0.1, 1.5]', "axes: at world.p = 1.5: world: Features(p=1.5): p is the"),
    (AXES + '"world.p" = ["a"]', "axes: \"world.p\"[0] = 'a': Input should be a valid number"),
    (
        AXES + '"world.p" = { log = [0, 1], count = 3 }',
        'axes: "world.p": log = [0, 1] has ends above 0; take grid',
    ),
    (
        AXES + '"world.p" = { log = [1, 2], count = 3 }',
        "axes: at world.p = 2.0: world: Features(p=2): p is the",
    ),
    (
        AXES + '"world.p" = { log = [1, 0.1] }',
        "axes: \"world.p\" = {'log': [1, 0.1]}: an axis is a list",
    ),
    (
        AXES + '"world.p" = { log = [1], count = 3 }',
        "axes: \"world.p\" = {'log': [1], 'count': 3}: log has two",
    ),
    (
        AXES + '"world.p" = { log = [1, 0.1], count = 0 }',
        'axes: "world.p": count = 0 is a whole number of at least 1',
    ),
    (
        AXES + '"world.p" = { log = [1, 0.1], count = 3.5 }',
        'axes: "world.p": count = 3.5 is a whole number of at',
    ),
    (
        AXES + '"world.p" = { lin = [1, 0.1], count = 3 }',
        "axes: \"world.p\" = {'lin': [1, 0.1], 'count': 3}: an axis",
    ),
    (
        AXES + '"world.p" = { log = [1, 0.1], grid=[1,2], count = 3 }',
        "axes: \"world.p\" = {'log': [1, 0.1], 'grid': [1, 2],",
    ),
    (
        AXES + '"world.p" = { log = [0.1, 0.1], count = 3 }',
        'axes: "world.p": log = [0.1, 0.1] repeats 0.1; the ends',
    ),
    (
        AXES + '"world.p" = { log = ["a", "b"], count = 3 }',
        "axes: \"world.p\" = {'log': ['a', 'b'], 'count': 3}: log",
    ),
    (AXES + '"world.p" = {}', 'axes: "world.p" = {}: an axis is a list [1, 2], { log ='),
    (AXES + "world.pp = [0.1]", "axes: unknown key 'world.pp'; did you mean 'world.p'?"),
    (
        AXES + '"model.n" = { grid = [1, 3], count = 9 }',
        'axes: "model.n" repeats 1: each may stand once',
    ),
    (
        AXES + '"model.n" = { grid = [0, 3], count = 4 }',
        "axes: at model.n = 0: model: ToyModel(n=0): n is a whole",
    ),
    (AXES + '"model.n" = [5, 5]', 'axes: "model.n" repeats 5: each may stand once'),
    (AXES + '"model.n" = [5, 5.5]', 'axes: "model.n"[1] = 5.5: Input should be a valid integer'),
    (AXES + '"training.stop.window" = [0, 1]', "axes: at training.stop.window = 0: training:"),
    (
        AXES + '"world.law" = ["independent", "independent"]',
        'axes: "world.law" repeats {"name": "independent"}: each',
    ),
    (
        AXES + '"world.law.size" = [1, 5]',
        "axes: at world.law.size = 1: world.law has no size; it has name",
    ),
    (AXES + '"world.law" = ["correlated"]', 'axes: "world.law"[0].size is missing'),
    (
        AXES + '"world.law" = [{name="correlated", size=5}]\n"world.law.size" = [1]',
        'axes: "world.law" and "world.law.size" overlap: sweep one',
    ),
    (
        AXES + '"training.lr" = { log = [1e-3, 1e-2], count = 200_000 }',
        "axes: 200000 settings of model and training, at most",
    ),
    (
        AXES + '"training.steps" = { log = [1, 1e9], count = 1_000_000 }',
        'axes: "training.steps": count = 1000000; a range of whole',
    ),
    (AXES + "zipped = 3", "axes: zipped: keys that move together are tables,"),
    (AXES + "zipped = [3]", "axes: 3: an axis is a table of keys with their values"),
    (
        AXES + '[[axes.zipped]]\n"model.n" = [5, 6]\n"model.m" = [2]',
        'axes: zipped keys move together, but "model.n" has 2,',
    ),
    (
        AXES + '"model.n" = [5]\n[[axes.zipped]]\n"model.n" = [5, 6]',
        'axes: "model.n" is swept twice: each key may stand once',
    ),
    (AXES + "[[axes.zipped]]", "axes: {}: an axis is a table of keys with their values"),
    (
        AXES + '[[axes.zipped]]\n"model.k" = [5, 6]',
        "axes: unknown key 'model.k'; did you mean 'model.n'?",
    ),
    (
        AXES
        + '"model.n" = [4, 5]\n"world.law" = ["independent", { name = "correlated", size = 2 }]',
        "axes: at model.n = 5, world.law = {'name': 'correlated',",
    ),
    (
        AXES + '"training.steps" = [10, 100]\n"training.warmup" = [5, 50]',
        "axes: at training.steps = 10, training.warmup = 50:",
    ),
    ("axes = 3", 'axes: 3: axes are a table, such as "world.p" = [0.1, 0.01]'),
    ("axes = [3]", "axes: 3: an axis is a table of keys with their values"),
    (
        AXES
        + '"world.p" = { log = [1, 1e-9], count = 9007199254740991 }\n'
        + '"world.importance" = { grid = [0.1, 1], count = 1000000 }',
        "axes: 7.21e+22 models, at most 4.61e+18 in one sweep",
    ),
    (MODEL + '[keep]\nweights = "some"', "keep.weights = 'some': Input should be 'all', 'best',"),
    (
        MODEL + '[keep]\nweights = "all"\nruns = 2',
        'keep: runs = 2 is for weights = "sampled"; leave it out',
    ),
    (
        MODEL + '[keep]\nweights = "sampled"\nruns = 0',
        "keep.runs = 0: Input should be greater than or equal to 1",
    ),
    (MODEL + "[shards]\nseconds = 0", "shards.seconds = 0: Input should be greater than or equal"),
    (MODEL + "[shards]\nmodels = 0", "shards.models = 0: Input should be greater than or equal"),
    (MODEL + "[shards]\nsize=3", "unknown key 'shards.size'; known here: seconds, models"),
    (REFINE, "refine.width is missing"),
    (
        AXES
        + '"world.p" = { log = [1, 0.1], count = 5 }\n'
        + '[refine]\nmeasure = "presented"\naxes = ["world.p"]\nwidth = 0.1',
        "refine: measure = 'presented': did you mean 'represented'?",
    ),
    (
        AXES
        + '"world.p" = { log = [1, 0.1], count = 5 }\n'
        + '[refine]\nmeasure = "loss"\naxes = ["world.p"]\nwidth = 0.1',
        "refine: measure = 'loss' is a real number: give the level",
    ),
    (
        AXES
        + '"world.p" = { log = [1, 0.1], count = 5 }\n'
        + '[refine]\nmeasure = "represented"\naxes = ["world.importance"]\nwidth = 0.1',
        "refine.axes: 'world.importance' is not swept; did you",
    ),
    (
        AXES
        + '"world.p" = { log = [1, 0.1], count = 5 }\n'
        + '[refine]\nmeasure = "represented"\naxes = []\nwidth = 0.1',
        "refine.axes = []: Tuple should have at least 1 item after",
    ),
    (REFINE + "width=0", "refine.width = 0: Input should be greater than 0"),
    (REFINE + 'width={"world.q"=1}', "refine: width has ['world.q'], but axes are ['world.p'];"),
    (
        AXES
        + '"world.p" = [1, 0.1]\n[refine]\nmeasure = "represented"\naxes = ["world.p"]\nwidth=0.1',
        'refine.axes: "world.p" has to be a range of real numbers',
    ),
    (
        AXES
        + '"training.lr" = { log = [1, 0.1], count = 5 }\n'
        + '[refine]\nmeasure = "represented"\naxes = ["training.lr"]\nwidth = 0.1',
        'refine.axes: "training.lr" is no axis of the world, such',
    ),
    (REFINE + "width=1e-17", 'refine.width = 1e-17 takes 55 halvings of "world.p"; at'),
    (REFINE + "width=1e-300", 'refine.width = 1e-300 takes 995 halvings of "world.p"; at'),
    ("x = 2020-01-01", "unknown key 'x'; known here: name, seed, seeds, restarts,"),
    (MODEL + "[world]\np = 1e-320", "world: p = 1e-320: a draw has 31 bits; give p of at least"),
    (
        "[model]\nn = 99999999999999999999999\nm = 2",
        "model: n = 99999999999999999999999: at most 1000000 in a",
    ),
    (
        AXES + '"model.init.W" = [0.1, 0.2]',
        "axes: at model.init.W = 0.1: model.init has no W; it has name",
    ),
    (
        AXES + '"model.init.W" = {grid=[-0.1, 0.2],count=3}',
        "axes: at model.init.W = -0.1: model.init has no W; it has name",
    ),
    (
        AXES + '"training.snapshots" = [[3],[5, 4]]',
        "axes: at training.snapshots = [5, 4]: training:",
    ),
    (AXES + '"world.p" = [[0.1,0.2]]', "axes: at world.p = [0.1, 0.2]: world: Features: p has"),
]


def test_every_field_of_a_cell_can_be_set():
    model, world, training = parse(WHOLE).cell({})
    assert model == ToyModel(
        n=6, m=2, hidden="relu", tied=False, target="abs", init=Normal(W=0.5, b=0.1)
    )
    assert world == Features(
        n=6,
        p=(0.1, 0.2, 0.3),
        importance=(1.0, 1.0, 0.9, 0.9, 0.8, 0.8),
        law=Correlated(2),
        amplitude=Exponential(2.0),
        signed=True,
    )
    assert training == Training(
        steps=2_000,
        batch=64,
        lr=(1e-3, 2e-3, 3e-3, 4e-3) * 2,
        weight_decay=-0.01,
        schedule="cosine",
        warmup=10,
        final=0.1,
        l1=0.01,
        snapshots=(1, 45, 2_000),
        stop=Plateau(window=100, patience=2, relative=0.01),
    )


def test_what_a_file_leaves_out_is_as_in_the_objects():
    model, world, training = parse(MODEL).cell({})
    assert (model, world, training) == (ToyModel(n=5, m=2), Features(n=5), Training())


@pytest.mark.parametrize("section", ["model", "world", "training"])
def test_a_section_has_the_fields_of_its_object(section):
    kinds = {"model": ToyModel, "world": Features, "training": Training}
    fields = set(kinds[section].__dataclass_fields__)
    assert {key.split(".")[1] for key in FIELDS if key.startswith(section)} == fields - (
        {"n"} if section == "world" else set()
    )


# One value of every key that can be swept, which differs from the default.
SWEPT = {
    "model.n": 4,
    "model.m": 3,
    "model.hidden": "relu",
    "model.output": "linear",
    "model.tied": False,
    "model.target": "abs",
    "model.init": {"name": "normal", "W": 0.5},
    "model.init.W": 0.7,
    "model.init.b": 0.2,
    "model.init.instances": 7,
    "world.p": 0.3,
    "world.importance": 0.5,
    "world.law": {"name": "anticorrelated", "size": 3},
    "world.law.size": 6,
    "world.amplitude": "constant",
    "world.amplitude.scale": 3.0,
    "world.amplitude.value": 4.0,
    "world.signed": True,
    "training.steps": 50,
    "training.batch": 8,
    "training.lr": 0.1,
    "training.weight_decay": 0.0,
    "training.schedule": "linear",
    "training.warmup": 3,
    "training.final": 0.5,
    "training.l1": 0.1,
    "training.snapshots": [0, 5],
    "training.snapshots.log": 2,
    "training.stop": {"window": 9},
    "training.stop.window": 11,
    "training.stop.patience": 5,
    "training.stop.relative": 0.2,
}

# What else the file has to say for the part of a value to have something that it is a part of.
AROUND = {
    "model.init.W": {"init": {"name": "normal", "W": 1.0}},
    "model.init.b": {"init": {"name": "normal", "W": 1.0}},
    "model.init.instances": {"init": {"name": "notebook", "instances": 1}},
    "world.law.size": {"law": {"name": "correlated", "size": 2}},
    "world.amplitude.scale": {"amplitude": "halfnormal"},
    "world.amplitude.value": {"amplitude": "constant"},
    "training.final": {"schedule": "linear"},
    "training.snapshots.log": {"snapshots": {"log": 9}},
}


@pytest.mark.parametrize("key", list(SWEPT))
def test_every_key_can_be_swept(key):
    sections = {"model": {"n": 6, "m": 2}, "world": {}, "training": {}}
    sections[key.split(".")[0]] |= AROUND.get(key, {})
    sweep = parse(sections | {"axes": {key: [SWEPT[key]]}})
    base = parse(sections).cell({})
    assert sweep.cell(sweep.axes[0].at(0)) != base
    assert set(SWEPT) == set(FIELDS)


def test_kinds_by_name_alone():
    for name, kind in [("xavier", Xavier()), ("notebook", Notebook(4))]:
        init = name if name == "xavier" else {"name": name, "instances": 4}
        assert parse({"model": {"n": 2, "m": 1, "init": init}}).cell({})[0].init == kind
    world = parse({"model": {"n": 4, "m": 1}, "world": {"law": "exactly_one"}}).cell({})[1]
    assert world == Features.exactly_one(4)


def test_axes_and_zipped_axes_keep_the_order_written():
    sweep = parse(WHOLE)
    assert [axis.keys for axis in sweep.axes] == [("world.signed",), ("model.n", "model.m")]
    # A world is innermost, whatever is written first.
    assert [axis.keys[0] for axis in sweep.fine_axes] == ["model.n", "world.signed"]


def test_keys_without_quotation_marks_are_the_same_keys():
    quoted = parse(AXES + '"world.p" = [0.1]\n"training.stop.window" = [5]')
    assert parse(AXES + "world.p = [0.1]\ntraining.stop.window = [5]") == quoted


def test_the_order_of_zipped_keys_does_not_matter():
    one, two = '"model.n" = [5, 6]\n', '"model.m" = [2, 3]\n'
    zipped = "[[axes.zipped]]\n"
    assert parse(zipped + one + two) == parse(zipped + two + one)


def test_what_is_said_twice_is_the_same_as_what_is_left_out():
    assert parse(MODEL) == parse(MODEL + '[training]\nsteps = 10_000\n[keep]\nweights = "all"')
    assert parse(AXES + '"world.p" = [1]') == parse(AXES + '"world.p" = [1.0]')
    assert parse(AXES + RANGE) == parse(AXES + RANGE.replace("[1,", "[1.0,"))


@pytest.mark.parametrize("text", [WHOLE, MODEL, AXES + RANGE])
def test_json_and_back_in_whatever_order_of_keys(text):
    sweep = parse(text)
    plain = json.dumps(sweep.model_dump(mode="json"), sort_keys=True, allow_nan=False)
    again = parse(json.loads(plain))
    assert again == sweep
    assert again.fine_axes == sweep.fine_axes


def test_a_file_is_read(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(WHOLE, "utf-8")
    assert read(path) == parse(WHOLE) == parse(tomllib.loads(WHOLE))


@pytest.mark.parametrize(("text", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_one_sentence_that_names_the_key(tmp_path, text, says):
    path = tmp_path / "bad.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as error:
        read(path)
    said = str(error.value)
    assert said.startswith(f"{path}: {says}")
    assert "\n" not in said
    assert len(said) < len(str(path)) + 400


def test_a_missing_binary_or_deep_file_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        read(tmp_path / "none.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(tmp_path / "bytes")
    for deep in ("[" * 10_000, "a" + ".a" * 2_000 + " = 1", "[axes]\na" + ".a" * 2_000 + " = [1]"):
        (tmp_path / "deep").write_text(f"x = {deep}" if deep[0] == "[" and deep[1] == "[" else deep)
        with pytest.raises(ConfigurationError):
            read(tmp_path / "deep")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats()
    | st.text("ab.0", max_size=4)
    | st.sampled_from(["independent", "correlated", "normal", "never", "best", "linear"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "size", "log", "grid", "count", "zipped", "W", "window", "x"])
            | st.sampled_from(list(FIELDS)),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_a_file_says_the_answer_is_a_plan_or_one_sentence(data):
    given = {"seeds": 2, "model": {"n": 4, "m": 2}, "world": {}, "training": {}, "axes": {}}
    tables = ["model", "world", "training", "axes", "keep", "shards", "refine", "seeds"]
    for _ in range(data.draw(st.integers(1, 2))):
        table = data.draw(st.sampled_from(tables))
        if table == "axes":
            names = st.sampled_from([*FIELDS, "zipped"])
        else:
            section = configuration.SweepConfiguration.model_fields[table].annotation
            names = st.sampled_from([*getattr(section, "model_fields", {}), "measure", "width"])
        value = data.draw(PLAIN)
        whole = table == "seeds" or data.draw(st.integers(0, 4)) == 0
        given[table] = value if whole else {data.draw(names): value}
    try:
        said = parse(given).name
    except ConfigurationError as error:
        said = str(error)
    assert said
    assert "\n" not in said


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text("utf-8")) == configuration.json_schema()


@pytest.mark.parametrize("text", [WHOLE, MODEL, AXES + RANGE, AXES + '"world.p" = [0.5, [1, 1]]'])
def test_the_schema_takes_what_the_code_takes(text):
    validate = pytest.importorskip("jsonschema", reason="comes with ray").validate
    given = tomllib.loads(text)
    validate(given, configuration.json_schema())
    if "[1, 1]" not in text:
        validate(parse(given).model_dump(mode="json"), configuration.json_schema())


def test_the_schema_refuses_what_is_misspelt():
    jsonschema = pytest.importorskip("jsonschema", reason="comes with ray")
    check = jsonschema.Draft202012Validator(configuration.json_schema())
    for text in (AXES + '"world.pp" = [0.1]', "sed = 1", AXES + '"world.p" = { log = [1] }'):
        assert not check.is_valid(tomllib.loads(text))


def test_a_range_can_be_too_long_for_a_list_and_costs_nothing():
    sweep = parse(AXES + '"world.p" = { log = [1, 1e-6], count = 1_000_000_000_000 }')
    assert len(sweep.axes[0]) == 10**12


def test_widths_are_in_decades_on_log_axes_and_in_the_own_unit_on_others():
    def halvings(axis, width):
        axes = {"world.p": axis}
        refine = {"measure": "represented", "axes": ["world.p"], "width": width}
        sweep = parse({"model": {"n": 2, "m": 1}, "axes": axes, "refine": refine})
        return sweep.halvings(sweep.axes[0])

    log, grid = {"log": [1, 0.01], "count": 3}, {"grid": [0.5, 1], "count": 6}
    assert [halvings(log, w) for w in (2.0, 1.0, 0.99, 0.5, 0.25, 0.01)] == [0, 0, 1, 1, 2, 7]
    assert [halvings(grid, w) for w in (0.1, 0.05, 0.04, 0.0125)] == [0, 1, 2, 3]
