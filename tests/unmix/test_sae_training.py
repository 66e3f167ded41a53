"""Training laws: each member is itself alone, units fold away, and planted directions come back."""

import numpy as np
import pytest
import torch

import superpose as sp
from superpose.unmix import L1, SAE, SAETraining, TopK, load, match, neurons, unmix
from superpose.unmix.training import Adam, _batches

SHORT = SAETraining(samples=6_400, batch=128, dead_after=640)
CODES = [TopK(d_sae=12, k=2), L1(d_sae=12, coefficient=0.2)]


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


@pytest.mark.parametrize("code", CODES, ids=str)
def test_a_member_alone_is_itself_in_the_stack_bit_for_bit(data, code):
    stack = sp.unmix(data, code, SHORT, seeds=4, seed=7)
    for run in range(4):
        alone = sp.unmix(data, code, SHORT, seeds=range(run, run + 1), seed=7)
        assert same(alone, stack[run : run + 1])
        assert alone.history.equals(stack[run : run + 1].history)


def test_threads_change_no_bit(data):
    threads = torch.get_num_threads()
    one = sp.unmix(data, CODES[0], SHORT, seeds=1)
    try:
        torch.set_num_threads(2)
        two = sp.unmix(data, CODES[0], SHORT, seeds=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert same(one, two)


def test_members_and_seeds_differ_and_the_global_generator_is_left_alone(data):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    stack = sp.unmix(data, CODES[0], SHORT, seeds=2, seed=0)
    other = sp.unmix(data, CODES[0], SHORT, seeds=1, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert not same(stack[0], stack[1])
    assert not same(stack[:1], other)


@pytest.mark.parametrize("code", CODES, ids=str)
def test_the_scale_of_the_data_is_the_scale_of_the_latents(data, code):
    small = sp.unmix(data, code, SHORT, seeds=1)
    large = sp.unmix(data * 8, code, SHORT, seeds=1)
    assert torch.equal(large.W_dec, small.W_dec)
    assert torch.equal(large.W_enc, small.W_enc)
    torch.testing.assert_close(large.encode(data * 8), 8 * small.encode(data))


def test_folding_gives_back_the_normalised_autoencoder():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((512, 3)) * 5 + [30, -20, 10], dtype=torch.float32)
    sae = sp.unmix(x, L1(d_sae=6, coefficient=0.01), SAETraining(samples=10_000, batch=64))
    centre, scale = x.mean(0), ((x - x.mean(0)) ** 2).sum(-1).mean().sqrt()
    inner = SAE(sae.W_enc, sae.b_enc / scale, sae.W_dec, (sae.b_dec - centre) / scale, sae.code)
    z = inner.encode((x - centre) / scale)
    torch.testing.assert_close(sae.encode(x), z * scale, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(sae.decode(sae.encode(x)), inner.decode(z) * scale + centre)


def test_decoder_rows_have_norm_one_and_history_has_its_columns(data):
    sae = sp.unmix(data, CODES[1], SHORT, seeds=range(5, 7))
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(2, 12))
    table = sae.history
    assert table.column_names == ["step", "run", "loss", "l0", "explained_variance", "dead"]
    assert table["run"].unique().to_pylist() == [5, 6]
    assert set(sae[1].history["run"].to_pylist()) == {6}
    assert table["step"].to_pylist()[-1] == SHORT.steps - 1


def test_progress_counts_the_steps_of_all_members(data):
    heard = []
    recipe = SAETraining(samples=256, batch=128)
    sp.unmix(
        data, CODES[0], recipe, seeds=2, progress=lambda done, total: heard.append((done, total))
    )
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_every_sample_comes_once_an_epoch():
    batches = _batches(10, 4, np.random.default_rng(0))
    drawn = torch.cat([next(batches) for _ in range(10)]).reshape(4, 10)
    assert torch.equal(drawn.sort(-1).values, torch.arange(10).expand(4, 10))


def test_batches_larger_than_the_data_repeat_whole_epochs():
    drawn = next(_batches(3, 7, np.random.default_rng(0)))
    assert torch.equal(drawn[:3].sort().values, torch.arange(3))
    assert torch.equal(drawn[3:6].sort().values, torch.arange(3))


def test_adam_is_the_adam_of_pytorch():
    weights = [torch.randn(3, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
    copies = [w.clone().requires_grad_() for w in weights]
    ours, theirs = Adam(weights), torch.optim.Adam(copies, lr=0.01)
    for step in range(20):
        gradients = tuple(torch.sin(w.detach() * 3 + step) for w in ours.weights)
        for copy, gradient in zip(copies, gradients, strict=True):
            copy.grad = gradient.clone()
        theirs.step()
        with torch.no_grad():
            ours.step(gradients, 0.01)
    for w, copy in zip(ours.weights, copies, strict=True):
        torch.testing.assert_close(w, copy, rtol=1e-12, atol=1e-12)


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


def test_divergence_is_told_not_raised(data):
    sae = sp.unmix(data, CODES[1], SAETraining(samples=12_800, batch=128, lr=1e30), seeds=1)
    assert "lower lr" in sae.advice[0]


def test_planted_digons_are_recovered_where_neurons_fail():
    x, W = digons(30_000)
    h, recipe = x @ W, SAETraining(samples=300_000)
    for code in (TopK(d_sae=20, k=2), L1(d_sae=20, coefficient=0.4)):
        scores = match(sp.unmix(h, code, recipe), W, h, x > 0)
        assert np.median(scores.recall) >= 0.9
        assert scores.explained_variance.min() > 0.95
    assert match(neurons(5), W).recall.item() <= 0.2


def test_bad_requests_are_refused(data):
    with pytest.raises(ValueError, match="all samples are equal"):
        sp.unmix(torch.ones(8, 3), CODES[0], SHORT)
    with pytest.raises(ValueError, match="at least one member"):
        sp.unmix(data, CODES[0], SHORT, seeds=0)
    for wrong in ({"samples": 0}, {"batch": -1}, {"lr": 0.0}, {"warmup": 0.8, "decay": 0.5}):
        with pytest.raises(ValueError, match="SAETraining"):
            SAETraining(**wrong)


def test_a_saved_sae_comes_back_whole(tmp_path):
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    for code in (TopK(d_sae=6, k=2), L1(d_sae=6, coefficient=0.1)):
        sae = unmix(x, code, SAETraining(samples=2_000), seeds=2)
        sae.save(tmp_path / type(code).__name__)
        back = load(tmp_path / type(code).__name__)
        assert back.code == code
        assert back.history == sae.history
        assert torch.equal(back.encode(x), sae.encode(x))
