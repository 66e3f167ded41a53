import json

import numpy as np
import pytest
import torch

from superpose.initialisation import (
    Given,
    Normal,
    Notebook,
    Xavier,
    describe,
    from_description,
)
from superpose.models import ToyModel

TIED, UNTIED = {"n": 40, "m": 10}, {"n": 40, "m": 10, "tied": False}
KINDS = {
    "xavier": Xavier(),
    "notebook": Notebook(instances=7),
    "normal": Normal(W=0.3, b=0.1),
    "given": Given(W=np.arange(400.0).reshape(40, 10) / 7),
    "given apart": Given(W_in=np.ones((3, 40, 10)), W_out=np.ones((40, 10)), b=np.ones((3, 40))),
}


def _spread(init, **model):
    return [a.std().item() for a in ToyModel(**model, init=init).initial(0, 0)]


def test_each_matrix_has_the_spread_of_its_rule():
    for model in (TIED, UNTIED):
        *matrices, b = _spread(Xavier(), **model)
        assert matrices == pytest.approx([(2 / 50) ** 0.5] * len(matrices), rel=0.1)
        assert b == 0
        *matrices, b = _spread(Normal(W=0.3, b=0.1), **model)
        assert matrices == pytest.approx([0.3] * len(matrices), rel=0.1)
        assert b == pytest.approx(0.1, rel=0.4)
    W_in, W_out, _ = ToyModel(**UNTIED).initial(0, 0)
    assert not torch.equal(W_in, W_out)


@pytest.mark.parametrize("instances", [1, 10, 500])
def test_the_notebook_has_the_scale_of_torch(instances):
    W = torch.nn.init.xavier_normal_(
        torch.empty(instances, 40, 10), generator=torch.Generator().manual_seed(0)
    )
    spread, b = _spread(Notebook(instances), **TIED)
    assert spread == pytest.approx(W.std().item(), rel=0.15)
    assert spread == pytest.approx((2 / (10 * (40 + instances))) ** 0.5, rel=0.1)
    assert b == 0


def test_the_default_draws_what_it_always_drew():
    W, b = ToyModel(n=3, m=2).initial(5, 2)
    rng = np.random.Generator(np.random.Philox(key=np.array([5, 2], np.uint64)))
    expected = (rng.standard_normal((3, 2), np.float32) * np.sqrt(2 / 5)).astype(np.float32)
    np.testing.assert_array_equal(W.numpy(), expected)
    assert b.tolist() == [0.0, 0.0, 0.0]


def test_given_weights_are_those_of_every_run_or_each_its_own():
    W = torch.randn(3, 4, 2)
    shared = ToyModel(n=4, m=2, init=Given(W=W[0]))
    assert all(torch.equal(shared.initial(0, run)[0], W[0]) for run in (0, 5))
    assert not shared.initial(0, 0)[1].any()
    own = ToyModel(n=4, m=2, init=Given(W=W, b=torch.ones(4)))
    for run in range(3):
        assert torch.equal(own.initial(1, run)[0], W[run])
        assert torch.equal(own.initial(1, run)[1], torch.ones(4))
    with pytest.raises(ValueError, match=r"run 3 has no W of its own.*0 to 2"):
        own.initial(0, 3)


def test_what_is_drawn_is_a_copy():
    model = ToyModel(n=2, m=1, init=Given(W=[[1.0], [2.0]]))
    model.initial(0, 0)[0].zero_()
    assert model.initial(0, 0)[0].tolist() == [[1.0], [2.0]]
    mine = np.ones((2, 1))
    given = Given(W=mine)
    mine[:] = 0
    assert given.arrays["W"].tolist() == [[1.0], [1.0]]
    with pytest.raises(ValueError, match="read-only"):
        given.arrays["W"][:] = 0


@pytest.mark.parametrize("name", KINDS)
def test_an_initialisation_is_a_value_and_survives_json(name):
    init = KINDS[name]
    back = from_description(json.loads(json.dumps(describe(init))))
    assert back == init
    assert hash(back) == hash(init)
    assert [other for other in KINDS.values() if other == init] == [init]
    model = ToyModel(**(UNTIED if name == "given apart" else TIED), init=init)
    other = ToyModel(**(UNTIED if name == "given apart" else TIED), init=back)
    assert model == other
    for one, two in zip(model.initial(1, 2), other.initial(1, 2), strict=True):
        assert torch.equal(one, two)


def test_equal_weights_are_equal_however_they_come():
    W = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    assert Given(W=W) == Given(W=torch.from_numpy(W).double()) == Given(W=W.tolist())
    assert Given(W=W) != Given(W=W, b=np.zeros(3))
    assert Given(W=W) != Given(W=-W)
    assert Given(W_in=W, W_out=-W) != Given(W_in=-W, W_out=W)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Notebook(0), "whole number"),
        (lambda: Notebook(-1), "whole number"),
        (lambda: Normal(-1.0), "at least 0"),
        (lambda: Normal(0.1, b=float("nan")), "at least 0"),
        (lambda: Given(), "give W"),
        (lambda: Given(b=[1.0]), "give W"),
        (lambda: Given(W_in=[[1.0]]), "W_in and W_out"),
        (lambda: Given(W=[[1.0]], W_in=[[1.0]]), "W_in and W_out"),
        (lambda: Given(W=[1.0]), r"\[n, m\] or \[run, n, m\]"),
        (lambda: Given(W=[[1.0]], b=1.0), r"\[n\] or \[run, n\]"),
        (lambda: Given(W=[["a"]]), "numbers"),
        (lambda: Given(W=[[np.inf]]), "finite"),
        (lambda: ToyModel(n=2, m=1, init=Given(W=[[1.0]])), r"the model has W \[2, 1\]"),
        (lambda: ToyModel(n=1, m=1, tied=False, init=Given(W=[[1.0]])), "W_in"),
        (lambda: ToyModel(n=1, m=1, init=Given(W_in=[[1.0]], W_out=[[1.0]])), "the model has W"),
        (lambda: from_description({"name": "magic"}), "no initialisation"),
    ],
    ids=range(16),
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
