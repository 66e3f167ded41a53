"""The straight line: who may import whom, how large things grow, what `import superpose` costs."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import superpose

FLOORS = {
    "__version__": -1,
    "compilation": -1,
    "initialisation": -1,
    "features": 0,
    "models": 0,
    "measures": 0,
    "statistics": 0,
    "records": 0,
    "activations": 0,
    "progress": 0,
    "theory": 1,
    "kernels": 1,
    "engine": 2,
    "truth": 3,
    "geometry": 3,
    "unmix": 3,
    "phases": 4,
    "networks": 4,
    "sweep": 5,
    "figures": 6,
    "experiments": 7,
    "report": 7,
    "explorer": 8,
    "diagnosis": 8,
    "cli": 9,
}

LIMITS = {"lines": 400, "lines of a function": 60, "branches": 12, "arguments": 6, "fields": 10}

# Where a limit would make the code worse: what is allowed instead, and why.
COMPILED = "numba takes no object that holds them"
EXCEPTIONS = {
    "lines": {},
    "lines of a function": {},
    "branches": {},
    "arguments": {
        "engine.loop.train": (8, "the public signature, and progress"),
        "kernels.cells._draw_set": (7, COMPILED),
        "kernels.dense.add_gradient": (9, COMPILED),
        "kernels.dense.add_outputs": (9, COMPILED),
        "kernels.mixed.add_gradient": (10, COMPILED),
        "kernels.small._call": (9, COMPILED),
        "kernels.small._emitted": (11, COMPILED),
        "kernels.small.add_gradient": (10, COMPILED),
        "kernels.small.gradient.add": (7, COMPILED),
        "kernels.sparse.add_gradient_rows": (8, COMPILED),
        "theory.loss.expected_loss": (7, "the public signature"),
        "theory.loss.feature_losses": (7, "the public signature"),
        "unmix.training.unmix": (9, "the public signature"),
        "cli.run": (8, "a command's arguments are its options"),
        "cli.sweep": (9, "a command's arguments are its options"),
        "cli.unmixing.unmix": (8, "a command's arguments are its options"),
    },
    "fields": {
        "experiments.configuration.SweepSection": (11, "a section of a file, flat for its writer"),
        "sweep.configuration.SweepConfiguration": (11, "a file, flat for its writer"),
    },
}

PUBLIC = [
    "Activations",
    "BatchTopK",
    "Constant",
    "Exponential",
    "Features",
    "Gated",
    "HalfNormal",
    "JumpReLU",
    "L1",
    "MatchingPursuit",
    "Matryoshka",
    "Plateau",
    "SAE",
    "SAETraining",
    "Sweep",
    "TopK",
    "ToyModel",
    "Training",
    "Uniform",
    "__version__",
    "capacity",
    "dimensionality",
    "dims_per_feature",
    "feature_norms",
    "geometry",
    "harvest",
    "initialisation",
    "interference",
    "load",
    "log_steps",
    "match",
    "measure",
    "measures",
    "name",
    "phases",
    "plot",
    "polysemanticity",
    "statistics",
    "superposition_test",
    "sweep",
    "theory",
    "train",
    "truth",
    "unmix",
]

HEAVY = {"torch", "numba", "scipy", "matplotlib", "sklearn"}
UNWELCOME = {"ipython", "jupyter", "notebook", "pandas", "plotly", "ray", "seaborn", "streamlit"}
PACKAGES_AT_MOST = 55

ROOT = Path(superpose.__file__).parent
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FORK = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


def _module_name(file: Path) -> str:
    """The dotted name inside the package, which for a package's `__init__` is the package's."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TEXTS = {_module_name(file): file.read_text("utf-8") for file in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(text) for module, text in TEXTS.items()}
MODULES = [module for module in TREES if module]


def _definitions() -> Iterator[tuple[str, ast.AST]]:
    """Every function and class by dotted name, nested ones as well."""

    def inside(name: str, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (*FUNCTION, ast.ClassDef)):
                yield f"{name}.{child.name}".lstrip("."), child
                yield from inside(f"{name}.{child.name}", child)
            else:
                yield from inside(name, child)

    for module, tree in TREES.items():
        yield from inside(module, tree)


DEFINITIONS = dict(_definitions())
FUNCTIONS = {name: node for name, node in DEFINITIONS.items() if isinstance(node, FUNCTION)}
CLASSES = {name: node for name, node in DEFINITIONS.items() if isinstance(node, ast.ClassDef)}


def _top(name: str) -> str:
    return name.split(".")[0]


def _imported(module: str, tree: ast.Module) -> set[str]:
    """The modules of superpose that are imported anywhere in `tree`, function bodies included."""
    is_package = (ROOT / Path(*module.split(".")) / "__init__.py").exists()
    package = ["superpose", *module.split(".")][: None if is_package else -1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            if origin == "superpose":
                # A module, or a name that `__init__` lends from its home.
                names = (superpose._HOME.get(alias.name, alias.name) for alias in node.names)
                found |= {f"superpose.{name}" for name in names}
            else:
                found.add(origin)
    ours = {name for name in found if _top(name) == "superpose"}
    return {name.removeprefix("superpose").lstrip(".") for name in ours}


def test_every_module_has_a_floor():
    unknown = {_top(module) for module in MODULES} - FLOORS.keys()
    assert not unknown, f"{sorted(unknown)}: put each on a floor of the map in this test"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_floors_below_only(module):
    here = FLOORS.get(_top(module), -1)
    others = {name for name in _imported(module, TREES[module]) if _top(name) != _top(module)}
    wrong = [
        f"{module} (floor {here}) imports {name or 'superpose'} (floor {FLOORS.get(_top(name))})"
        for name in sorted(others)
        if FLOORS.get(_top(name), here) >= here
    ]
    assert not wrong, "; ".join(wrong)


def test_theory_reads_the_law_of_a_world_and_nothing_else():
    theory = [module for module in MODULES if _top(module) == "theory"]
    read = {_top(name) for module in theory for name in _imported(module, TREES[module])}
    assert read <= {"compilation", "features", "theory"}


def test_imports_are_found_in_every_form():
    tree = ast.parse(
        "import superpose.engine\n"
        "import numpy\n"
        "from superpose import records, TopK\n"
        "from superpose.figures.style import render\n"
        "def late():\n"
        "    from ..geometry import classify\n"
        "    from .codes import L1\n"
    )
    expected = {"engine", "records", "unmix", "figures.style", "geometry", "unmix.codes"}
    assert _imported("unmix.sae", tree) == expected


def _length(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def _branches(function: ast.AST) -> int:
    """Forks of a function, those of functions nested in it included, and its further and/or."""
    nodes = [node for child in ast.iter_child_nodes(function) for node in ast.walk(child)]
    further = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    filters = sum(len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
    return sum(isinstance(node, FORK) for node in nodes) + further + filters


def _arguments(function: ast.AST) -> int:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _is_frozen(node: ast.ClassDef) -> bool:
    """Whether it is a frozen dataclass or, near or far, a pydantic model."""
    decorators = [ast.unparse(each) for each in node.decorator_list]
    if any("dataclass" in each and "frozen=True" in each for each in decorators):
        return True
    bases = [ast.unparse(base) for base in node.bases]
    parents = [cls for name, cls in CLASSES.items() if name.rpartition(".")[2] in bases]
    return "BaseModel" in bases or any(_is_frozen(parent) for parent in parents)


def _fields(node: ast.ClassDef) -> int:
    return sum(isinstance(child, ast.AnnAssign) for child in node.body)


SIZES = {
    "lines": {module: len(text.splitlines()) for module, text in TEXTS.items()},
    "lines of a function": {name: _length(node) for name, node in FUNCTIONS.items()},
    "branches": {name: _branches(node) for name, node in FUNCTIONS.items()},
    "arguments": {name: _arguments(node) for name, node in FUNCTIONS.items()},
    "fields": {name: _fields(node) for name, node in CLASSES.items() if _is_frozen(node)},
}


@pytest.mark.parametrize("what", LIMITS)
def test_nothing_is_too_large(what):
    allowed = {name: limit for name, (limit, _) in EXCEPTIONS[what].items()}
    large = {
        f"{name}: {size} {what}, at most {allowed.get(name, LIMITS[what])}"
        for name, size in SIZES[what].items()
        if size > allowed.get(name, LIMITS[what])
    }
    assert not large, "; ".join(sorted(large))


@pytest.mark.parametrize("what", LIMITS)
def test_exceptions_are_still_needed(what):
    idle = [name for name in EXCEPTIONS[what] if SIZES[what].get(name, 0) <= LIMITS[what]]
    assert not idle, f"{idle} keep to the limit of {LIMITS[what]} {what}, or are gone"


def test_sizes_are_counted():
    function = ast.parse(
        "def f(self, a, /, b, *rest, c, **options):\n"
        "    for x in [y for y in a if y or b or c]:\n"
        "        return 1 if x else 2\n"
    ).body[0]
    assert (_length(function), _branches(function), _arguments(function)) == (3, 5, 3)


def test_annotations_are_never_strings():
    # Strings would escape the checks of shapes.
    imports = {
        module: [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for module, tree in TREES.items()
    }
    late = [m for m, nodes in imports.items() if any(n.module == "__future__" for n in nodes)]
    assert not late


def test_the_public_face_is_this_list():
    assert superpose.__all__ == PUBLIC
    assert dir(superpose) == PUBLIC


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_a_public_name_loads_and_explains_itself(name):
    value = getattr(superpose, name)
    assert inspect.getdoc(value)
    own = [value] if not inspect.ismodule(value) else [getattr(value, n) for n in _names(value)]
    mute = {each for one in own if inspect.getmodule(one) for each in _mute(one)}
    assert not mute, f"without a docstring: {sorted(mute)}"


def _names(module) -> list[str]:
    """The public names that a module defines, or that a package says it has."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return getattr(module, "__all__", own)


def _mute(value) -> Iterator[str]:
    """Of a function, or a class and its public methods, the definitions without a docstring."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return
    home = f"{value.__module__}.{value.__qualname__}".removeprefix("superpose.")
    for name, node in DEFINITIONS.items():
        hidden = name.removeprefix(home).startswith("._")
        # What is nested in a function is no part of its face.
        inside = inspect.isclass(value) and name.rpartition(".")[0] == home
        if (name == home or (inside and not hidden)) and not ast.get_docstring(node):
            yield name


def test_unmix_is_a_verb_and_a_namespace():
    assert callable(superpose.unmix)
    assert superpose.unmix is import_module("superpose.unmix")
    assert superpose.unmix.TopK is superpose.TopK


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trian"):
        _ = superpose.trian


def _run(*command: str) -> tuple[set[str], str]:
    """The heavy packages that a new process has loaded after `command`, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return {_top(name) for name in loaded} & HEAVY, done.stdout


def test_importing_superpose_is_light():
    loaded, _ = _run("-c", "import superpose; dir(superpose)")
    assert not loaded


def test_asking_for_help_is_light():
    loaded, text = _run("-m", "superpose.cli", "--help")
    assert "Usage" in text
    assert not loaded


def test_a_heavy_import_would_be_seen():
    loaded, _ = _run("-c", "import superpose; superpose.statistics")
    assert "scipy" in loaded


def test_the_core_needs_few_packages():
    needed, todo = {"superpose"}, ["superpose"]
    while todo:
        for requirement in map(Requirement, requires(todo.pop()) or []):
            name = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and name not in needed:
                needed.add(name)
                todo.append(name)
    assert len(needed) - 1 <= PACKAGES_AT_MOST, sorted(needed)
    assert not needed & UNWELCOME
