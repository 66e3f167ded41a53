import pytest

from superpose.experiments import configuration
from superpose.sweep import Plan


def _densities(section):
    """The densities of a section's plan, cell by cell."""
    plan = Plan(section.sweep(0), sizes=(section.runs,))
    return [plan.cell(number).world.p for number in range(plan.cells)]


def test_the_default_is_the_papers_sweep():
    pack = configuration.read().pack
    assert (pack.n, pack.m, pack.runs, pack.steps, pack.batch) == (20, 5, 10, 10_000, 1024)
    worlds = _densities(pack)
    assert len(worlds) == 30
    assert worlds[0] == 1.0
    assert worlds[-1] == pytest.approx(0.01)


def test_what_a_file_leaves_out_keeps_its_default(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[pack]\nruns = 3\nsparsities = [1.0, 10.0]\n")
    pack = configuration.read(path).pack
    assert pack.runs == 3
    assert _densities(pack) == [1.0, 0.1]
    assert pack.n == 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pack]\nstep = 5\n", "unknown key 'pack.step'; did you mean 'steps'?"),
        ("[pak]\nx = 1\n", "unknown key 'pak'; did you mean 'pack'?"),
        ("sed = 1\n", "did you mean 'seed'?"),
        ("[pack]\nsteps = 0\n", "pack.steps = 0: .*greater than or equal to 1"),
        ("[pack]\nlr = nan\n", "pack.lr = nan: .*finite"),
        ("[pack]\ndensities = [0.5, 1.5]\n", "pack.densities.1 = 1.5"),
        ("[pack]\ndensities = []\n", "pack.densities"),
        ("[pack]\nimportance = [1.0, 2.0]\n", "importance has shape .2., but there are 20"),
        ("[pack]\nn = 'many'\n", "pack.n = 'many'"),
        ("[pack]\ndensities = [1.0]\nsparsities = [1.0]\n", "either densities .* or sparsities"),
        ("seed = \n", "not valid TOML"),
        ("seed = 4294967296\n", "seed = 4294967296: .*less than 4294967296"),
        ("seed = true\n", "seed = True: .*integer"),
        ("[pack]\nruns = true\n", "pack.runs = True: .*integer"),
        ("[pack]\nn = 1e3\n", "pack.n = 1000.0: .*integer"),
        ("[unmix]\nscored = 2e3\n", "unmix.scored = 2000.0: .*integer"),
        ("[pack]\ndensities = [0.5, 0.5]\n", "pack: densities repeats 0.5: each may stand once"),
        ("[pack]\nsparsities = [3, 1, 3.0]\n", "pack: sparsities repeats 3: each may stand once"),
        (
            "[pack]\ndensities = { start = 0.5, stop = 0.5, count = 2 }\n",
            "pack: densities repeats 0.5",
        ),
        ("[pack]\ndensities = [1e-10]\n", "pack.densities.0 = 1e-10: .*greater than or equal"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_the_key(tmp_path, text, says):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(configuration.ConfigurationError, match=says) as error:
        configuration.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_file_is_said(tmp_path):
    with pytest.raises(configuration.ConfigurationError, match="no such file"):
        configuration.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(configuration.ConfigurationError, match="cannot be read"):
        configuration.read(tmp_path / "binary.toml")


def test_a_seed_from_outside_replaces_the_files_own(tmp_path):
    settings, text = configuration.read_with_seed(None, 7)
    assert settings.seed == 7
    (tmp_path / "kept.toml").write_text(text)
    assert configuration.read(tmp_path / "kept.toml") == settings
    with pytest.raises(configuration.ConfigurationError, match="seed"):
        configuration.read_with_seed(None, -1)
    with pytest.raises(configuration.ConfigurationError, match="less than 4294967296"):
        configuration.read_with_seed(None, 2**32)


@pytest.mark.parametrize("line", ["seed = 3", "  seed=3 # three", '"seed" = 3', "'seed' = 3", ""])
def test_a_seed_line_is_replaced_however_it_is_written(tmp_path, line):
    path = tmp_path / "my.toml"
    path.write_text(f"# mine\n{line}\n[pack]\nsteps = 10_000\nruns = 3\n")
    settings, text = configuration.read_with_seed(path, 7)
    path.write_text(text)
    assert configuration.read(path) == settings
    assert (settings.seed, settings.pack.runs) == (7, 3)


def test_a_seed_that_cannot_be_replaced_is_to_be_set_in_the_file(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('"\\u0073eed" = 3\n')
    with pytest.raises(configuration.ConfigurationError, match="set seed = 7 in the file"):
        configuration.read_with_seed(path, 7)
