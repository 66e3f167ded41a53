"""Names are evidence on one half, scores on the other, and false ones are rare."""

import numpy as np
import pytest
import torch

from superpose.activations import Activations
from superpose.networks import name, untangle
from superpose.networks.naming import auc_interval
from superpose.unmix import SAE, TopK, neurons, unmix
from superpose.unmix.training import SAETraining


def planted(samples=600, labels=4, dense=2, seed=0):
    """One sparse unit a label, then units that fire on nothing in particular."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, labels, samples)
    on = (label[:, None] == np.arange(labels)) & (rng.random((samples, labels)) < 0.8)
    noise = rng.random((samples, dense)) * (rng.random((samples, dense)) < 0.3)
    x = np.concatenate([on * (0.5 + rng.random((samples, labels))), noise], 1)
    return Activations(x.astype(np.float32), labels=np.array(list("abcd"))[label])


def test_planted_detectors_get_their_names():
    names = name(neurons(6), planted())
    assert [each.name for each in names.latents[:4]] == list("abcd")
    assert {each.name for each in names.latents[4:6]} == {"unnamed"}
    assert {each.name for each in names.latents[6:]} == {"dead"}
    for each in names.latents[:4]:
        assert each.q < 1e-6
        assert each.share == 1.0
        assert each.mixture == pytest.approx(1.0)
        assert each.detection.precision.estimate == 1.0
        assert 0.7 < each.detection.recall.estimate < 0.9
        assert 0.8 < each.score.low < each.score.estimate < each.score.high < 1.0
    assert names.named_share == pytest.approx(4 / 6)


def test_a_unit_for_two_labels_is_named_by_both():
    acts = planted()
    x = acts.x.clone()
    x[:, 0] += x[:, 1]
    found = name(neurons(6), Activations(x, labels=acts.labels))[0]
    assert set(found.labels) == {"a", "b"}
    assert found.mixture == pytest.approx(2.0, abs=0.05)
    assert set(found.enriched) == {"a", "b"}


def test_dense_units_are_judged_by_their_strongest_samples():
    acts = planted()
    dense = Activations(acts.x + 1.0, labels=acts.labels)
    names = name(neurons(6), dense)
    assert [each.name for each in names.latents[:4]] == list("abcd")
    assert names[0].firing_rate == 1.0


def test_examples_are_the_strongest_activations():
    acts = planted()
    found = name(neurons(6), acts)[2]
    assert list(found.examples) == np.argsort(-acts.x[:, 2].numpy(), kind="stable")[:9].tolist()


def test_false_names_are_as_rare_as_promised():
    # Labels that mean nothing: a family with any name at all is a false discovery.
    acts, false = planted(dense=8), []
    for repeat in range(100):
        rng = np.random.default_rng(repeat)
        shuffled = Activations(acts.x, labels=rng.permutation(acts.labels))
        false.append(len(name(neurons(12), shuffled, level=0.2, seed=repeat).named) > 0)
    # 0.2 of 100, and three standard deviations.
    assert sum(false) <= 32


def test_without_labels_nothing_is_named_and_it_is_said():
    names = name(neurons(6), Activations(planted().x))
    assert {each.name for each in names.latents} == {"unnamed", "dead"}
    assert "no labels" in names.advice[0]
    assert np.isnan(names[0].score.estimate)
    assert len(names[0].examples) == 9


def test_tokens_serve_where_there_are_no_labels():
    acts = planted()
    names = name(neurons(6), Activations(acts.x, tokens=acts.labels))
    assert names[1].name == "b"


def test_table():
    table = name(neurons(6), planted()).table()
    assert table.num_rows == 12
    assert table.column_names[:7] == [
        "latent", "name", "labels", "q", "score", "score_low", "score_high",
    ]  # fmt: skip
    assert table["labels"].to_pylist()[0] == ["a"]


def test_wrong_input_is_told():
    acts = planted()
    with pytest.raises(ValueError, match="the activations 6"):
        name(neurons(5), acts)
    with pytest.raises(ValueError, match="level"):
        name(neurons(6), acts, level=5.0)
    with pytest.raises(ValueError, match="1 members"):
        name(neurons(6), acts, member=1)


def test_a_member_of_a_stack_is_named_as_alone():
    acts = planted()
    sae = unmix(acts, TopK(d_sae=8, k=2), SAETraining(samples=5_000), seeds=2)
    stacked, alone = name(sae, acts, member=1), name(sae[1], acts)
    assert stacked.table().equals(alone.table()) or str(stacked.latents) == str(alone.latents)


def test_neurons_that_mix_are_taken_apart():
    acts = planted(dense=0)
    # Two labels on each neuron, and a dictionary that knows the four directions.
    mix = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0, 0.2], [1.0, 0.2, 0.0], [0.0, 1.0, 0.2], [0.2, 1.0, 0.0]]), dim=-1
    )
    mixed = Activations(acts.x @ mix, labels=acts.labels)
    sae = SAE(mix.mT, torch.zeros(4), mix, torch.zeros(3), TopK(d_sae=4, k=1))
    found = untangle(sae, mixed)
    assert len(found) == 3
    assert set(found[0].mixes) == {"a", "b"}
    assert set(found[0].latents[:2]) == {0, 1}
    assert set(found[0].latent_names[:2]) == {"a", "b"}
    assert set(found[1].latents[:2]) == {2, 3}
    assert sum(found[0].shares) == pytest.approx(1.0)
    assert {neuron.neuron for neuron in found.polysemantic} >= {0, 1}
    table = found.table()
    assert table["polysemantic"].to_pylist()[:2] == [True, True]
    assert table["latent_names"].to_pylist()[0][:2] == list(found[0].latent_names[:2])


def test_auc_interval_covers_and_is_not_degenerate():
    rng, covered = np.random.default_rng(0), 0
    truth = np.arange(80) < 20
    for _ in range(300):
        z = rng.normal(size=80) + truth
        interval = auc_interval(z, truth)
        covered += interval.low <= 0.7602 <= interval.high
    assert covered / 300 > 0.92
    perfect = auc_interval(truth.astype(float), truth)
    assert perfect.estimate == perfect.high == 1.0
    assert 0.8 < perfect.low < 1.0
    worst = auc_interval(1.0 - truth, truth)
    assert worst.low == 0.0
    assert worst.high == pytest.approx(1 - perfect.low)
    assert np.isnan(auc_interval(np.ones(4), np.zeros(4, bool)).estimate)
