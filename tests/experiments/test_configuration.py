import pytest

from superpose.experiments import configuration


def test_the_default_is_the_papers_sweep():
    pack = configuration.read().pack
    assert (pack.n, pack.m, pack.runs, pack.steps, pack.batch) == (20, 5, 10, 10_000, 1024)
    assert len(pack.worlds) == 30
    assert pack.worlds[0].p == 1.0
    assert pack.worlds[-1].p == pytest.approx(0.01)


def test_what_a_file_leaves_out_keeps_its_default(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[pack]\nruns = 3\nsparsities = [1.0, 10.0]\n")
    pack = configuration.read(path).pack
    assert pack.runs == 3
    assert [world.p for world in pack.worlds] == [1.0, 0.1]
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
