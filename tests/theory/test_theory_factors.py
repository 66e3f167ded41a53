import pytest

from superpose.theory import best_factors, factor, factor_crossing, factors

# Gains G/v at 1/p, from a search on sampled magnitudes made apart from the library, which can lie
# a little above the exact ones. A start in seven to sixteen reaches the best of a larger factor.
GAINS = [
    ((2, 1), {1.1: 1.0042, 1.25: 1.0111, 1.5: 1.0408, 1.6: 1.0731}),
    ((2, 1), {2: 1.268, 3: 1.568, 4: 1.697, 4.4: 1.73, 10: 1.892, 100: 1.99}),
    ((3, 2), {1.1: 1.0055, 1.25: 1.0181, 1.5: 1.0483, 2: 1.134}),
    ((5, 2), {5: 1.798}),
]
SLOW = [
    ((4, 3), {1.1: 1.0075, 1.25: 1.0182, 1.5: 1.0415, 2: 1.091}),
    ((5, 2), {10: 2.073, 20: 2.223, 100: 2.349}),
    ((5, 4), {1.1: 1.0075, 1.25: 1.0167, 1.5: 1.035}),
]
SHAPES = [(2, 1), (3, 2), (4, 3), (5, 2)]


def _agree(shape, gains):
    for sparsity, gain in gains.items():
        starts = 8 if shape[1] < 3 else 64
        assert factor(*shape, 1 / sparsity, starts=starts).gain == pytest.approx(gain, abs=1e-3)


@pytest.mark.parametrize(("shape", "gains"), GAINS)
def test_gains(shape, gains):
    _agree(shape, gains)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "gains"), SLOW)
def test_gains_of_larger_factors(shape, gains):
    _agree(shape, gains)


@pytest.mark.slow
def test_the_ladder_of_best_factors():
    sparsity = [1.2, 1.4, 1.7, 2.5, 4.0, 5.0]
    best = best_factors(factors(SHAPES, [1 / s for s in sparsity], starts=32))
    names = [best[1 / s][0].name for s in sparsity]
    assert names == ["tetrahedron", "triangle", "digon", "digon", "digon", "pentagon"]
    shown = [best[1 / s][0].dims_per_feature for s in sparsity]
    assert shown == sorted(shown, reverse=True)
    assert shown[3] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_one_feature_in_one_dimension_gains_its_variance(p):
    found = factor(1, 1, p, starts=2)
    assert found.gain == pytest.approx(1.0, abs=1e-6)
    assert found.dims_per_feature == pytest.approx(1.0, abs=1e-3)
    assert found.name == "dedicated"


def test_more_features_gain_no_less():
    gains = [each.gain for each in factors([(1, 1), (2, 1), (3, 1)], [0.3], starts=6)]
    assert gains[0] < gains[1] <= gains[2] + 1e-6


def test_four_in_the_plane_are_two_digons():
    found = factors([(2, 1), (4, 2)], [0.3], starts=12)
    assert found[1].gain == pytest.approx(found[0].gain, abs=1e-5)
    assert [each.name for each in best_factors(found)[0.3]] == ["digon"]


def test_the_margin_keeps_what_is_close():
    found = factors([(1, 1), (2, 1)], [0.9], starts=4)
    assert [each.k for each in best_factors(found)[0.9]] == [2]
    assert [each.k for each in best_factors(found, margin=0.02)[0.9]] == [2, 1]


def test_no_crossing_is_an_error():
    with pytest.raises(ValueError, match="same sign"):
        factor_crossing((1, 1), (2, 1), between=(3.0, 4.0), starts=2)


@pytest.mark.slow
def test_digons_give_way_to_pentagons():
    found = factor_crossing((2, 1), (5, 2), between=(4.3, 4.6), starts=8)
    assert found == pytest.approx(4.447, abs=0.01)
