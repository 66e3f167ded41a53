import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from superpose import records
from superpose.experiments import saebench
from superpose.experiments.saebench import Bench, cells, codes, comparison
from superpose.experiments.saebench.intervals import over_seeds
from superpose.truth import Firing, Mixture, random_directions

SMALL = {"samples": 6_000, "seeds": 2, "scored": 500, "batch": 128}


def tiny(seed):
    return Mixture(Firing(p=0.2, n=10), random_directions(10, 8, seed))


@pytest.fixture(autouse=True)
def small_worlds(monkeypatch):
    monkeypatch.setitem(cells.WORLDS, "linear", tiny)
    monkeypatch.setitem(cells.WORLDS, "hierarchy", tiny)


@pytest.fixture(scope="module")
def asked():
    return Bench(worlds=("linear",), codes=("TopK", "L1"), **SMALL)


@pytest.fixture(scope="module")
def done(asked, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cells.WORLDS, "linear", tiny)
        out = tmp_path_factory.mktemp("bench")
        return out, saebench.run(asked, out)


def _manifests(out: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted(out.glob("cells/**/manifest.json"))
    return {
        str(file.relative_to(out)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files
    }


def _plain(table: pa.Table) -> str:
    return repr(table.to_pylist())  # not equals(): a score without a case to judge is NaN


def test_a_row_for_each_dictionary_of_each_seed(asked, done):
    _, found = done
    rows = found.results.to_pylist()
    names = {row["dictionary"] for row in rows}
    assert names >= {"TopK", "L1", "oracle", "neurons", "random", "PCA", "ICA", "sparse dictionary"}
    trained = [row for row in rows if row["dictionary"] == "TopK"]
    # Half, once and twice the own number of active features, 2.
    assert [(row["wanted"], row["seed"]) for row in trained] == [
        (wanted, seed) for seed in (0, 1) for wanted in (1.0, 2.0, 4.0)
    ]
    assert all(row["l0"] <= row["wanted"] for row in trained)


def test_the_oracle_knows_the_directions(done):
    _, found = done
    for row in found.results.to_pylist():
        if row["dictionary"] == "oracle":
            assert row["mmcs"] == pytest.approx(1.0, abs=1e-6)
            assert row["recall"] == 1.0


def test_what_is_done_is_not_done_again(asked, done, monkeypatch):
    out, found = done
    before = _manifests(out)

    def never(*_):
        raise AssertionError("a finished cell was measured again")

    monkeypatch.setattr("superpose.experiments.saebench.bench.measure", never)
    again = saebench.run(asked, str(out))
    assert _manifests(out) == before
    assert _plain(again.results) == _plain(found.results)
    assert _plain(again.differences) == _plain(found.differences)


def test_another_code_leaves_the_finished_cells_as_they_are(done):
    out, _ = done
    before = _manifests(out)
    more = saebench.run(Bench(worlds=("linear",), codes=("TopK", "L1", "BatchTopK"), **SMALL), out)
    after = _manifests(out)
    assert {name: after[name] for name in before} == before
    assert {row["dictionary"] for row in more.results.to_pylist()} >= {"BatchTopK", "TopK"}


def test_interrupted_and_resumed_equals_uninterrupted(asked, done, tmp_path):
    _, found = done

    def stop(amount, total, where):
        if amount >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        saebench.run(asked, tmp_path, stop)
    kept = _manifests(tmp_path)
    assert 0 < len(kept) < len(asked.cells())
    resumed = saebench.run(asked, tmp_path)
    assert {name: _manifests(tmp_path)[name] for name in kept} == kept
    assert _plain(resumed.results) == _plain(found.results)


def test_progress_counts_up_to_all_of_it(asked, done):
    out, _ = done
    heard = []
    saebench.run(asked, out, lambda *said: heard.append(said))
    amounts = [amount for amount, _, _ in heard]
    assert amounts == sorted(amounts)
    assert heard[-1][0] == heard[-1][1]


def test_table_and_figures_lie_in_the_folder(done):
    out, found = done
    kept = records.load(out / "table", kind="saebench")
    assert kept.tables["results"].num_rows == found.results.num_rows
    assert kept.about["findings"] == found.sentences
    for name in ("recovery", "explained", "confusion"):
        for suffix in (".svg", "-dark.svg", ".png"):
            assert (out / "figures" / f"{name}{suffix}").stat().st_size > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"worlds": ("nowhere",)},
        {"codes": ()},
        {"codes": ("L1", "L1")},
        {"seeds": 0},
        {"l0": (0.5,)},
        {"l0": (9.0,), "d_sae": 8},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="Bench"):
        Bench(**wrong)


def _planted(shift, seeds=6, noise=0.01):
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        base = rng.normal(0.5, 0.2)  # what a seed's world has in common
        for name in ("a", "b", "c"):
            value = base + rng.normal(0, noise) + (shift if name == "b" else 0.0)
            scores = dict.fromkeys(comparison.COMPARED, value)
            rows.append({"world": "w", "dictionary": name, "wanted": 2.0, "seed": seed} | scores)
    return pa.Table.from_pylist(rows)


def test_a_difference_beyond_the_noise_of_pairs_is_seen_and_others_are_not():
    rows = comparison.differences(_planted(0.1), ("a", "b", "c")).to_pylist()
    for row in rows:
        assert row["distinguishable"] == ("b" in (row["code"], row["other"]))
        assert row["least"] < 0.1  # the spread between worlds does not count, only that of pairs
    said = comparison.sentences(comparison.differences(_planted(0.1), ("a", "b", "c")), 6)
    assert "2 of 3 pairs" in said[0]
    assert "b over" in said[0]


@pytest.mark.parametrize("pairs", [3, 10])
def test_the_least_difference_is_detected_four_times_in_five(pairs):
    least = comparison.least_paired_difference(1.0, pairs)
    drawn = np.random.default_rng(0).normal(least, 1.0, (20_000, pairs))
    statistic = drawn.mean(1) / drawn.std(1, ddof=1) * pairs**0.5
    assert (statistic > stats.t.ppf(0.975, pairs - 1)).mean() == pytest.approx(0.8, abs=0.02)


def test_one_seed_tells_nothing():
    rows = comparison.differences(_planted(0.1, seeds=1), ("a", "b")).to_pylist()
    assert not any(row["distinguishable"] for row in rows)
    assert all(np.isinf(row["least"]) for row in rows)


def test_what_could_not_be_measured_is_left_out_and_counted():
    table = pa.table({"code": ["a"] * 3, "seed": [0, 1, 2], "rate": [1.0, None, 3.0]})
    (row,) = over_seeds(table, ["code"]).to_pylist()
    assert (row["estimate"], row["runs"]) == (2.0, 2)


def test_prices_are_interpolated_between_those_tried():
    tried, found = [0.01, 0.1, 1.0], [16.0, 4.0, 1.0]
    assert codes.prices(tried, found, [16.0, 4.0, 1.0]) == pytest.approx(tried)
    assert codes.prices(tried, found, [100.0, 0.01]) == pytest.approx([0.01, 1.0])
    assert codes.prices(tried, found, [8.0])[0] == pytest.approx(10**-1.5)


def test_the_command_ends_in_a_table(monkeypatch, tmp_path, capsys):
    from superpose import cli

    words = ["bench", "sae", "--worlds", "linear", "--codes", "TopK", "--samples", "3000"]
    words += ["--seeds", "1", "--l0", "1", "2", "--out", str(tmp_path), "--json"]
    monkeypatch.setattr("sys.argv", ["superpose", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["table"]).is_file()


def test_the_command_refuses_a_world_that_is_not(monkeypatch, tmp_path, capsys):
    from superpose import cli

    words = ["superpose", "bench", "sae", "--worlds", "nowhere", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "linear" in capsys.readouterr().err
