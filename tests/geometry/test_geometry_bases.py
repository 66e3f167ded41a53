"""Sets of features that are almost orthogonal bases of their own, though they share dimensions."""

import pytest
import torch

import superpose as sp
from superpose.geometry import local_bases


def rotation(m, seed):
    return torch.linalg.qr(torch.randn(m, m, generator=torch.Generator().manual_seed(seed))).Q


def test_two_orthonormal_bases_of_one_space_overlap_and_are_almost_orthogonal():
    first, second = rotation(6, 0), rotation(6, 1)
    found = local_bases(torch.cat([first, second]), [range(6), range(6, 12)])
    assert found.almost_orthogonal.tolist() == [True, True]
    assert found.rank.tolist() == [6, 6]
    assert (found.joint_rank.item(), found.overlapping.item()) == (6, True)
    cosines = (first @ second.T).abs().max()
    torch.testing.assert_close(found.across[0, 1], cosines)
    torch.testing.assert_close(found.across[1, 0], cosines)


def test_bases_of_separate_spaces_do_not_overlap():
    found = local_bases(torch.eye(6), [range(3), range(3, 6)])
    assert (found.joint_rank.item(), found.overlapping.item()) == (6, False)
    assert found.across.abs().max() == 0


def test_turning_and_scaling_change_nothing():
    W = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0)) + 1
    scale = torch.linspace(0.6, 2, 8)[:, None] / sp.feature_norms(W)[..., None]
    sets = [(0, 3, 5), (1, 7)]
    plain = local_bases(W / sp.feature_norms(W)[..., None], sets)
    turned = local_bases(W * scale @ rotation(5, 0), sets)
    torch.testing.assert_close(plain.across, turned.across, atol=1e-5, rtol=0)
    assert (plain.rank == turned.rank).all()
    assert (plain.joint_rank == turned.joint_rank).all()


def test_a_set_with_an_ignored_feature_is_no_basis():
    W = torch.eye(4)
    W[1] *= 0.1
    found = local_bases(W, [(0, 1), (2, 3)])
    assert found.almost_orthogonal.tolist() == [False, True]
    assert found.represented.tolist() == [1, 2]
    assert found.rank.tolist() == [1, 2]
    assert found.coherence.tolist() == [0, 0]


def test_nothing_represented_spans_nothing():
    found = local_bases(torch.zeros(2, 4, 3), [(0, 1), (2, 3)])
    assert not found.almost_orthogonal.any()
    assert not found.overlapping.any()
    assert found.joint_rank.tolist() == [0, 0]


def test_a_stack_is_its_members():
    W = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    sets = [(0, 1, 2), (3, 4)]
    found = local_bases(W, sets)
    for i in range(2):
        for j in range(3):
            one = local_bases(W[i, j], sets)
            for name in ("coherence", "represented", "rank", "across", "joint_rank"):
                torch.testing.assert_close(getattr(found, name)[i, j], getattr(one, name))


@pytest.mark.parametrize("sets", [[], [()], [(0, 1), (1, 2)], [(0, 4)], [(-1, 0)]])
def test_sets_that_cannot_be_are_refused(sets):
    with pytest.raises(ValueError, match="local_bases"):
        local_bases(torch.eye(4), sets)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.03, 0.1])
def test_training_gives_each_correlated_set_an_almost_orthogonal_basis(p):
    # Ten features in ten dimensions twice: each set could have the space to itself.
    world = sp.Features.correlated(sets=2, size=10, p=p)
    recipe = sp.Training(lr=5e-3, schedule="cosine", weight_decay=0.0)
    run = sp.train(sp.ToyModel(n=20, m=10), world, recipe, runs=4)
    found = local_bases(run.best().W, [range(10), range(10, 20)])
    assert found.almost_orthogonal.all()
    assert (found.rank == 10).all()
    assert (found.joint_rank == 10).all()
    assert (found.across[..., 0, 1] > 0.5).all()


def test_a_model_that_diverged_leaves_its_stack_alone():
    W = torch.eye(2).expand(3, 2, 2).clone()
    W[0, 0, 0], W[1, 0, 0] = torch.nan, torch.inf
    found = local_bases(W, [(0, 1)])
    assert found.almost_orthogonal.flatten().tolist() == [False, False, True]
    assert found.rank.flatten().tolist() == [1, 1, 2]
