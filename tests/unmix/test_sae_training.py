"""Training laws: each member is itself alone, units fold away, and what stops goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import superpose as sp
from superpose.unmix import SAETraining, load, match, neurons, unmix
from superpose.unmix.codes import (
    CODES,
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    TopK,
)
from superpose.unmix.optimiser import Adam
from superpose.unmix.training import geometric_median
from superpose.unmix.weights import Layout

SHORT = SAETraining(samples=6_400, batch=128, dead_after=640)
CODES_TRIED = [
    TopK(d_sae=12, k=2),
    L1(d_sae=12, coefficient=0.2),
    BatchTopK(d_sae=12, k=2),
    JumpReLU(d_sae=12, l0=2),
    Gated(d_sae=12, coefficient=0.2),
    Matryoshka(d_sae=12, k=2),
    MatchingPursuit(d_sae=12, k=2),
]
EACH = pytest.mark.parametrize("code", CODES_TRIED, ids=lambda code: type(code).__name__)


def digons(samples, p=0.03, seed=0):
    """Ten features as five antipodal pairs in five dimensions, turned at random."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    W = torch.tensor(np.concatenate([axes, -axes]), dtype=torch.float32)
    x = sp.Features(n=10, p=p).sample(samples, seed=seed)
    return x, W


@pytest.fixture(scope="module")
def data():
    x, W = digons(4_000)
    return x @ W


def same(a, b):
    return all(np.array_equal(a.arrays()[name], b.arrays()[name]) for name in a.arrays())


def told(sae):
    """The history without what a clock says."""
    return sae.history.drop_columns(["rate"])


def test_every_code_is_tried_here():
    assert {type(code) for code in CODES_TRIED} == set(CODES.values())


@EACH
def test_a_member_alone_is_itself_in_the_stack_bit_for_bit(data, code):
    stack = sp.unmix(data, code, SHORT, seeds=4, seed=7)
    for run in range(4):
        alone = sp.unmix(data, code, SHORT, seeds=range(run, run + 1), seed=7)
        assert same(alone, stack[run : run + 1])
        assert told(alone).equals(told(stack[run : run + 1]))


def test_codes_in_one_stack_are_themselves_alone(data, monkeypatch):
    codes = [*CODES_TRIED, TopK(d_sae=7, k=1)]
    monkeypatch.setenv("SUPERPOSE_THREADS", "2")
    together = sp.unmix(data, codes, SHORT, seeds=2)
    monkeypatch.setenv("SUPERPOSE_THREADS", "1")
    for code, sae in zip(codes, together, strict=True):
        assert sae.code == code
        assert same(sae, sp.unmix(data, code, SHORT, seeds=2))


def test_members_of_equal_width_begin_equal_across_codes(data):
    one = SAETraining(samples=1, batch=64, lr=1e-12)
    first, second = sp.unmix(data, [TopK(d_sae=12, k=2), L1(d_sae=12, coefficient=1.0)], one)
    torch.testing.assert_close(first.W_dec, second.W_dec)
    torch.testing.assert_close(first.W_enc, first.W_dec.mT)
    assert not torch.allclose(first.W_dec[0], first.W_dec[1])


def test_threads_change_no_bit(data):
    threads = torch.get_num_threads()
    one = sp.unmix(data, CODES_TRIED[1], SHORT, seeds=1)
    try:
        torch.set_num_threads(2)
        two = sp.unmix(data, CODES_TRIED[1], SHORT, seeds=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert same(one, two)


def test_members_and_seeds_differ_and_the_global_generator_is_left_alone(data):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    stack = sp.unmix(data, CODES_TRIED[0], SHORT, seeds=2, seed=0)
    other = sp.unmix(data, CODES_TRIED[0], SHORT, seeds=1, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert not same(stack[0], stack[1])
    assert not same(stack[:1], other)


class StoppedError(Exception):
    """What ends a training early in these tests."""


@EACH
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(data, code, tmp_path):
    whole, heard = sp.unmix(data, code, SHORT, seeds=2), []

    def stop(row):
        heard.append(row)
        if row["step"] == 23:
            raise StoppedError

    with pytest.raises(StoppedError):
        sp.unmix(data, code, SHORT, seeds=2, callback=stop, folder=tmp_path)
    before = len(heard)
    resumed = sp.unmix(data, code, SHORT, seeds=2, callback=heard.append, folder=tmp_path)
    assert same(resumed, whole)
    assert told(resumed).equals(told(whole))
    assert heard[before]["step"] == 24
    again = sp.unmix(data, code, SHORT, seeds=2, callback=heard.append, folder=tmp_path)
    assert same(again, whole)


def test_another_training_in_the_folder_is_refused(data, tmp_path):
    sp.unmix(data, TopK(d_sae=12, k=2), SHORT, seeds=1, folder=tmp_path)
    with pytest.raises(ValueError, match="k was 2 and is now 3"):
        sp.unmix(data, TopK(d_sae=12, k=3), SHORT, seeds=1, folder=tmp_path)


@EACH
def test_the_scale_of_the_data_is_the_scale_of_the_latents(data, code):
    small = sp.unmix(data, code, SHORT, seeds=1)
    large = sp.unmix(data * 8, code, SHORT, seeds=1)
    assert torch.equal(large.W_dec, small.W_dec)
    assert torch.equal(large.W_enc, small.W_enc)
    torch.testing.assert_close(large.encode(data * 8), 8 * small.encode(data))


@EACH
def test_the_saved_dictionary_does_what_the_trained_one_did(data, code):
    # One step a row, no learning left: the last row is of the weights that are given back.
    noise = torch.randn(4_000, 5, generator=torch.Generator().manual_seed(0)) / 20
    shifted = 50 * (data + noise) + torch.arange(5.0) * 40
    recipe = SAETraining(samples=400_000, batch=4_000, lr=1e-2, decay=0.3)
    sae = sp.unmix(shifted, code, recipe, seeds=1)
    z = sae.encode(shifted)
    error = ((sae.decode(z)[0] - shifted) ** 2).sum()
    explained = 1 - error / ((shifted - shifted.mean(0)) ** 2).sum()
    last = sae.history.to_pylist()[-1]
    loose = isinstance(code, BatchTopK | Matryoshka)  # in training the batch decides
    assert explained.item() == pytest.approx(
        last["explained_variance"], abs=0.02 if loose else 2e-3
    )
    active = (z > 0).sum(-1).float().mean().item()
    assert active == pytest.approx(last["l0"], rel=0.1 if loose else 0.01)


def test_decoder_rows_have_norm_one_and_history_has_its_columns(data):
    sae = sp.unmix(data, CODES_TRIED[1], SHORT, seeds=range(5, 7))
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(2, 12))
    table = sae.history
    expected = ["step", "run", "loss", "l0", "explained_variance", "dead", "rate"]
    assert table.column_names == expected
    assert table["run"].unique().to_pylist() == [5, 6]
    assert set(sae[1].history["run"].to_pylist()) == {6}
    assert table["step"].to_pylist()[-1] == SHORT.steps - 1


def test_rows_are_means_over_the_steps_since_the_last(data):
    code, fine = TopK(d_sae=12, k=2), SAETraining(samples=12_800, batch=128, dead_after=640)
    rows = sp.unmix(data, code, fine, seeds=1).history.to_pylist()
    assert len(rows) == fine.steps == 100
    assert all(row["loss"] >= 1 - row["explained_variance"] - 1e-6 for row in rows)
    long = SAETraining(samples=25_650, batch=128, dead_after=640)
    steps = sp.unmix(data, code, long, seeds=1).history["step"].to_pylist()
    assert steps == [*range(1, 200, 2), 200]


def test_progress_and_callback_hear_of_all_members(data):
    heard, rows = [], []
    recipe = SAETraining(samples=512, batch=128)
    sae = sp.unmix(
        data,
        CODES_TRIED[0],
        recipe,
        seeds=2,
        progress=lambda done, total: heard.append((done, total)),
        callback=rows.append,
    )
    assert heard == [(2, 8), (4, 8), (6, 8), (8, 8)]
    assert [(row["step"], row["run"]) for row in rows] == [(s, r) for s in range(4) for r in (0, 1)]
    table = sae.history.sort_by([("step", "ascending"), ("run", "ascending")]).to_pylist()
    assert [row["loss"] for row in rows] == [row["loss"] for row in table]


def test_adam_is_the_adam_of_pytorch_on_rows_that_keep_their_length():
    layout, rng = Layout(3, 4, 2, ("shift",)), np.random.default_rng(0)
    theta = rng.standard_normal(layout.size)
    rows = layout.views(theta)["W_dec"]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ours, copy = Adam(layout, theta), torch.tensor(theta, requires_grad=True)
    theirs = torch.optim.Adam([copy], lr=0.01)
    for step in range(20):
        gradient = torch.sin(torch.tensor(ours.theta) * 3 + step)
        along, unit = (layout.views(flat)["W_dec"] for flat in (gradient, copy.detach()))
        copy.grad = gradient.clone()
        slope = layout.views(copy.grad)["W_dec"]
        slope -= (along * unit).sum(-1, keepdim=True) * unit
        theirs.step()
        unit /= unit.norm(dim=-1, keepdim=True)
        ours.step(gradient.numpy(), 0.01)
        np.testing.assert_allclose(ours.theta, copy.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_a_transcoder_learns_another_space(data):
    turn = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = 30 * (data.relu() @ turn) + 7
    recipe = SAETraining(samples=60_000, batch=128)
    for code in (L1(d_sae=30, coefficient=0.02), TopK(d_sae=30, k=3)):
        found = sp.unmix(data, code, recipe, target=wanted, seeds=2)
        assert not found.subtract
        assert found.directions.shape == (2, 30, 3)
        error = ((found.decode(found.encode(data)) - wanted) ** 2).sum((-1, -2))
        explained = 1 - error / ((wanted - wanted.mean(0)) ** 2).sum()
        assert explained.min() > 0.9
        torch.testing.assert_close(found.W_dec.norm(dim=-1), torch.ones(2, 30))
    with pytest.raises(ValueError, match="choose another code"):
        sp.unmix(data, MatchingPursuit(d_sae=6, k=2), SHORT, target=wanted)


def test_a_crosscoder_is_the_autoencoder_of_layers_side_by_side(data):
    other = data @ torch.linalg.qr(torch.randn(5, 5))[0]
    recipe = SAETraining(samples=100_000, batch=256)
    code = TopK(d_sae=20, k=2)
    crossed = sp.unmix([sp.Activations(data), sp.Activations(other)], code, recipe, seeds=1)
    assert crossed.layers == (5, 5)
    flat = sp.unmix(torch.cat([data, other], 1), code, recipe, seeds=1)
    torch.testing.assert_close(crossed.W_dec, flat.W_dec, atol=1e-2, rtol=1e-2)
    # A layer in other units is the same layer: the function follows, the latents do not change.
    scaled = sp.unmix([data, 64 * other], code, recipe, seeds=1)
    both, larger = torch.cat([data, other], 1), torch.cat([data, 64 * other], 1)
    z, again = crossed.encode(both), scaled.encode(larger)
    torch.testing.assert_close(again / again.max(), z / z.max(), atol=1e-4, rtol=1e-4)
    norms, before = scaled.layer_norms[0], crossed.layer_norms[0]
    torch.testing.assert_close(norms[:, 1] / norms[:, 0], 64 * before[:, 1] / before[:, 0])


def test_the_median_is_where_the_mean_distance_is_least():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).exp()
    centre = geometric_median(x)
    least = (x - centre).norm(dim=-1).mean()
    for step in 0.05 * torch.eye(3):
        assert (x - centre - step).norm(dim=-1).mean() > least
        assert (x - centre + step).norm(dim=-1).mean() > least
    again = geometric_median(x @ torch.linalg.qr(torch.randn(3, 3))[0])
    assert again.norm() == pytest.approx(centre.norm().item(), rel=1e-4)


def test_a_training_can_begin_at_the_median():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).exp() * 9
    recipe = SAETraining(samples=1, batch=500, lr=1e-9, centre="median")
    sae = sp.unmix(x, TopK(d_sae=6, k=2), recipe, seeds=1)
    torch.testing.assert_close(sae.b_dec[0], geometric_median(x), rtol=1e-4, atol=1e-4)


def test_files_and_iterators_train_as_tensors_do(data, tmp_path):
    np.save(tmp_path / "acts.npy", data.numpy())
    save_file({"activations": data.numpy()}, tmp_path / "acts.safetensors")
    expected = sp.unmix(data, CODES_TRIED[0], SHORT, seeds=1)
    for source in (data.numpy(), tmp_path / "acts.npy", tmp_path / "acts.safetensors"):
        assert same(sp.unmix(source, CODES_TRIED[0], SHORT, seeds=1), expected)
    drawn = sp.unmix(lambda: iter(data.split(100)), CODES_TRIED[0], SHORT, seeds=1)
    assert drawn.W_dec.isfinite().all()


def test_dead_latents_are_revived():
    x, W = digons(4_000)
    # Most latents start on the far side of a half-space of data and never fire by themselves.
    h = x @ W.abs()
    code = L1(d_sae=64, coefficient=0.3)
    recipe = {"samples": 60_000, "batch": 128, "decay": 0.1}
    left = sp.unmix(h, code, SAETraining(**recipe, dead_after=60_000), seeds=1)
    revived = sp.unmix(h, code, SAETraining(**recipe, dead_after=2_000), seeds=1)
    dead = [match(sae, W, h).dead.item() for sae in (left, revived)]
    assert dead[1] < dead[0]


class Wild(L1):
    """A code of one's own, which diverges."""

    def objective(self, weights, x, target, dead):
        found = super().objective(weights, x, target, dead)
        return replace(found, loss=found.loss * float("inf"))


def test_divergence_is_told_not_raised_and_spoils_no_neighbour(data):
    tame = L1(d_sae=12, coefficient=0.2)
    diverged, sound = sp.unmix(data, [Wild(d_sae=12, coefficient=0.2), tame], SHORT, seeds=1)
    assert "lower lr" in diverged.advice[0]
    assert diverged.W_dec.isfinite().all()
    assert sound.advice == ()
    assert same(sound, sp.unmix(data, tame, SHORT, seeds=1))
    hot = sp.unmix(data, tame, SAETraining(samples=12_800, batch=128, lr=1e30), seeds=1)
    assert "lower lr" in hot.advice[0]


def test_planted_digons_are_recovered_where_neurons_fail():
    x, W = digons(30_000)
    h, recipe = x @ W, SAETraining(samples=300_000)
    for code in (TopK(d_sae=20, k=2), L1(d_sae=20, coefficient=0.4)):
        scores = match(sp.unmix(h, code, recipe), W, h, x > 0)
        assert np.median(scores.recall) >= 0.9
        assert scores.explained_variance.min() > 0.95
    assert match(neurons(5), W).recall.item() <= 0.2


def test_bad_requests_are_refused(data):
    with pytest.raises(ValueError, match="are equal"):
        sp.unmix(torch.ones(8, 3), CODES_TRIED[0], SHORT)
    with pytest.raises(ValueError, match="at least one member"):
        sp.unmix(data, CODES_TRIED[0], SHORT, seeds=0)
    for wrong in ({"samples": 0}, {"batch": -1}, {"lr": 0.0}, {"warmup": 0.8, "decay": 0.5}):
        with pytest.raises(ValueError, match="SAETraining"):
            SAETraining(**wrong)


def test_a_saved_stack_comes_back_with_its_history(tmp_path, data):
    sae = unmix(data, CODES_TRIED[0], SHORT, seeds=2)
    sae.save(tmp_path / "sae")
    back = load(tmp_path / "sae")
    assert back.history == sae.history
    assert torch.equal(back.encode(data), sae.encode(data))
