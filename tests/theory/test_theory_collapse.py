import pytest
import torch

from superpose.theory import collapse_ladder, collapsed_sets

SLOW = {0.7: 3, 0.5: 3, 0.4: 3, 0.3: 2, 0.2: 2, 0.15: 2, 0.1: 1, 0.05: 0, 0.03: 0, 0.01: 0}


def test_only_represented_and_parallel_members_have_collapsed():
    W = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, -1], [0.1, 0], [0.1, 0], [1, 0], [0.7, 0.7]])
    assert collapsed_sets(W, 2).tolist() == [True, False, False, False]
    assert collapsed_sets(W.expand(3, 8, 2), 2).shape == (3, 4)
    assert collapsed_sets(torch.zeros(4, 2), 2).tolist() == [False, False]


def test_collapse_is_blind_to_rotation():
    W = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    W[1] = 0.9 * W[0]
    turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(1)))[0]
    assert collapsed_sets(W, 2).equal(collapsed_sets(W @ turn, 2))
    assert collapsed_sets(W, 2)[0]


@pytest.mark.parametrize("size", [0, 4])
def test_a_size_that_does_not_divide_is_told(size):
    with pytest.raises(ValueError, match="whole number of sets"):
        collapsed_sets(torch.zeros(6, 2), size)


def test_dense_pairs_collapse_and_sparse_ones_do_not():
    # At unit norm two collapsed pairs cost p/6 and antipodes across the pairs 2p²/3, so that
    # they part at about p = 1/4.
    found = collapse_ladder([0.4, 0.15], sets=2, m=2, starts=6)
    assert [rung.collapsed for rung in found] == [2, 0]


def test_a_collapsed_pair_is_its_principal_component():
    rung = collapse_ladder([0.5], sets=1, m=1, starts=4)[0]
    # One pair in one dimension: (a + b)/2 for both costs p/12, a best constant added less.
    assert rung.collapsed == 1
    assert rung.optimum.loss <= 0.5 / 12
    assert rung.optimum.W.norm(dim=1).tolist() == pytest.approx([0.5**0.5] * 2, abs=0.03)


@pytest.mark.slow
def test_three_pairs_in_a_plane_part_one_by_one():
    found = collapse_ladder(list(SLOW))
    assert {rung.p: rung.collapsed for rung in found} == SLOW
