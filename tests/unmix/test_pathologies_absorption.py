import numpy as np
import pytest
import torch

from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.pathologies import absorption, worlds
from superpose.unmix import L1, SAE, MatchingPursuit


@pytest.fixture(scope="module")
def measured():
    rows = over_seeds(absorption.absorption(seeds=5), ["hierarchical"]).to_pylist()
    return {(row["hierarchical"], row["quantity"]): row for row in rows}


def test_the_parent_is_silent_where_the_child_is_on_and_only_under_a_hierarchy(measured):
    nested, apart = measured[True, "absorbed"], measured[False, "absorbed"]
    assert min(nested["runs"], apart["runs"]) >= 2
    assert nested["low"] > 0.95
    assert apart["high"] < 0.05


def test_the_parent_learns_minus_the_child_and_the_child_their_sum(measured):
    assert measured[True, "encoder"]["low"] < -1 < measured[True, "encoder"]["high"]
    assert measured[True, "encoder"]["estimate"] == pytest.approx(-1, abs=0.1)
    assert measured[True, "decoder"]["estimate"] == pytest.approx(2**-0.5, abs=0.01)
    for name in ("encoder", "decoder"):
        assert measured[False, name]["estimate"] == pytest.approx(0, abs=0.01)


def test_the_price_saved_is_what_theory_says(measured):
    for hierarchical in (True, False):
        theory = measured[hierarchical, "gain_theory"]["estimate"]
        assert measured[hierarchical, "gain"]["estimate"] == pytest.approx(theory, abs=0.01)
    assert measured[False, "gain"]["estimate"] < 0.01


def test_the_exact_gain_at_no_loss_of_reconstruction():
    world = absorption.world(True, 0)
    drawn, W = world.sample(20_000), world.directions
    apart = MatchingPursuit(d_sae=4, k=4)
    both = (W[0] + W[1]) / 2**0.5
    merged = torch.stack([W[0], both, W[2], W[3]])
    # The parent's latent answers the child by -1, and the sum's by what a step of ReLU needs.
    encoder = torch.stack([W[0] - W[1], 2**0.5 * W[1], W[2], W[3]])
    zeros = torch.zeros(4)
    separate = SAE(W.mT, zeros, W, torch.zeros(world.d), apart)
    absorbed = SAE(encoder.mT, zeros, merged, torch.zeros(world.d), L1(d_sae=4, coefficient=0.0))
    costs = []
    for sae in (separate, absorbed):
        z = sae.encode(drawn.x)
        assert torch.allclose(sae.decode(z), drawn.x, atol=1e-5)
        costs.append(z.double().sum(-1).mean().item())
    share = drawn.active()[:, :2].all(1).double().mean().item()
    assert costs[0] - costs[1] == pytest.approx(share * (2 - 2**0.5), rel=1e-5)


def test_no_dictionary_along_the_truth_beats_the_closed_form():
    rng = np.random.default_rng(0)
    p, price = rng.uniform(0.05, 0.4, 3), 0.1
    best = absorption.best_objective(p, price)

    def objective(bias, shrunk):
        on = p * ((1 - bias - shrunk).clip(0) * price + np.minimum(shrunk, 1 - bias) ** 2)
        return (on + (1 - p) * bias**2).sum()

    theory = price * p / 2 / (1 - p)
    assert objective(theory, price / 2) == pytest.approx(best, rel=1e-12)
    for _ in range(200):
        moved = theory + rng.normal(0, 0.01, 3), price / 2 + rng.normal(0, 0.01, 3)
        assert objective(*moved) >= best


@pytest.mark.slow
def test_nested_dictionaries_absorb_less_at_the_true_number_active():
    rows = absorption.relief((3,), seeds=4).to_pylist()
    rate = {(row["code"], row["seed"]): row["absorption"] for row in rows}
    saved = [rate["BatchTopK", s] - rate["Matryoshka", s] for s in range(4)]
    half = 3.182 * np.std(saved, ddof=1) / 4**0.5  # t of 3 degrees of freedom
    assert np.mean(saved) - half > 0


def test_directions_are_matched_one_to_one():
    cosine = np.array([[0.9, 0.8], [0.95, 0.1]])
    assert worlds.own_latents(cosine).tolist() == [1, 0]
