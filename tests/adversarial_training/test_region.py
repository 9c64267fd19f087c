import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.adversarial_training.threats.region import Box, Ellipsoid, chosen_rows
from nacre.core.random import Source

RADII = torch.tensor([0.5, 2.0, 0.0])
WIDE = torch.tensor([math.inf] * 3)
KINDS = [Box, Ellipsoid]
kinds = pytest.mark.parametrize("kind", KINDS)
numbers = st.floats(width=32)  # NaN and infinities included
finite = st.floats(-1e6, 1e6, width=32)


def _region(kind, radii=RADII, low=-WIDE, high=WIDE):
    return kind(radii, low, high)


@pytest.mark.slow
@kinds
@given(
    x=st.lists(numbers, min_size=3, max_size=3),
    centre=st.lists(finite, min_size=3, max_size=3),
    low=st.floats(-10, 0, width=32),
    high=st.floats(0, 10, width=32),
)
@settings(max_examples=200, deadline=None)
def test_a_projection_lies_inside_and_projecting_again_changes_little(kind, x, centre, low, high):
    region = _region(kind, low=torch.full((3,), low), high=torch.full((3,), high))
    centre = torch.tensor([centre])
    inside = region.project(torch.tensor([x]), centre)
    assert region.contains(inside, centre).all()
    assert inside[0, 2] == centre[0, 2]
    # An entry is rounded in proportion to its centre; what that adds to the length of the move is
    # taken off the other entry too, four times as much where its radius is four times as long.
    rounding = 4e-6 * (1 + float(centre.abs().max()))
    torch.testing.assert_close(region.project(inside, centre), inside, rtol=0, atol=rounding)


@kinds
def test_a_point_inside_stays_where_it_is(kind):
    centre = torch.tensor([[1.0, 2.0, 3.0]])
    x = centre + torch.tensor([[0.2, -0.5, 0.0]])
    torch.testing.assert_close(_region(kind).project(x, centre), x)


def test_a_box_is_left_by_the_nearest_side():
    moved = _region(Box).project(torch.tensor([[3.0, -9.0, 3.0]]), torch.zeros(1, 3))
    assert moved.tolist() == [[0.5, -2.0, 0.0]]


def test_an_ellipsoid_is_left_along_the_move():
    # As shares of the radii the move is (3, 4), of length 5.
    moved = _region(Ellipsoid).project(torch.tensor([[1.5, 8.0, 1.0]]), torch.zeros(1, 3))
    torch.testing.assert_close(moved, torch.tensor([[0.3, 1.6, 0.0]]))


@kinds
def test_the_legal_range_holds_unless_the_clean_input_broke_it(kind):
    region = _region(kind, low=torch.zeros(3), high=torch.ones(3))
    centre = torch.tensor([[0.9, 0.5, 0.5], [1.5, 0.5, -4.0]])
    moved = region.project(centre + 0.3, centre)
    assert moved[0, 0] == 1.0
    assert 1.5 <= moved[1, 0] <= 1.5  # outside already: it may go no further
    assert moved[1, 2] == -4.0


@kinds
def test_contains_finds_what_lies_outside(kind):
    region, centre = _region(kind, high=torch.ones(3)), torch.zeros(4, 3)
    x = torch.tensor([[0.6, 0.0, 0.0], [0.0, 0.0, 1e-6], [0.0, 1.5, 0.0], [0.4, 0.2, 0.0]])
    assert region.contains(x, centre).tolist() == [False, False, False, True]
    assert not region.contains(torch.full((1, 3), math.nan), torch.zeros(1, 3)).any()


@kinds
def test_starts_fill_the_region(kind):
    region, centre = _region(kind), torch.zeros(4000, 3)
    uniform = Source(bytes(32)).stream().rows(torch.arange(4000), region.draws)
    x = region.start(centre, uniform)
    assert region.contains(x, centre).all()
    share = x[:, :2] / RADII[:2]
    # Means of 4000 draws with variance 1/3 or 1/4: six deviations are 0.055 (one run in 10**8).
    assert (share.mean(0).abs() < 0.055).all()
    variance = 1 / 3 if kind is Box else 1 / 4
    assert (share.square().mean(0) - variance).abs().max() < 0.03


@kinds
def test_steepest_gains_most_of_all_moves_of_its_length(kind):
    region, generator = _region(kind), torch.Generator().manual_seed(0)
    gradient = torch.randn(1, 3, generator=generator)
    best = (gradient * region.steepest(gradient, 1.0)).sum()
    uniform = Source(bytes(32)).stream().rows(torch.arange(2000), region.draws)
    others = (gradient * region.start(torch.zeros(2000, 3), uniform)).sum(1)
    assert others.max() <= best
    assert others.max() >= 0.9 * best
    torch.testing.assert_close(region.steepest(gradient, 0.5) * 2, region.steepest(gradient, 1.0))


@kinds
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_steepest_does_not_depend_on_the_gradients_size(kind, size):
    gradient = torch.tensor([[1.0, -2.0, 4.0]])
    region = _region(kind)
    torch.testing.assert_close(
        region.steepest(gradient * size, 1.0), region.steepest(gradient, 1.0)
    )


@kinds
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_steepest_stands_still_without_a_direction(kind, bad):
    assert _region(kind).steepest(torch.full((1, 3), bad), 1.0).tolist() == [[0.0, 0.0, 0.0]]


@kinds
def test_a_region_without_freedom_is_a_point(kind):
    region, centre = _region(kind, radii=torch.zeros(3)), torch.randn(2, 3)
    uniform = Source(bytes(32)).stream().rows(torch.arange(2), region.draws)
    assert torch.equal(region.start(centre, uniform), centre)
    assert torch.equal(region.project(centre + 1, centre), centre)
    assert region.contains(centre, centre).all()


@kinds
def test_a_step_within_reach_is_the_projected_one_bit_for_bit(kind):
    generator = torch.Generator().manual_seed(2)
    region = _region(kind, low=torch.zeros(3), high=torch.ones(3))
    centre = torch.randn(50, 3, generator=generator)
    x = region.start(centre, torch.rand(50, region.draws, dtype=torch.float64, generator=generator))
    gradient = torch.randn(50, 3, generator=generator)
    gradient[0], gradient[1, 0], gradient[2, 1] = 0, math.inf, math.nan
    kept, reach = gradient.clone(), region.reach(centre)
    expected = region.project(x + region.steepest(gradient, 0.3), centre)
    assert torch.equal(region.stepped(x, gradient, 0.3, centre, reach), expected)
    assert torch.equal(gradient.nan_to_num(7.0), kept.nan_to_num(7.0))  # it is only read
    far = x + torch.randn(50, 3, generator=generator)
    assert torch.equal(region.within(far, centre, reach), region.project(far, centre))


def test_rows_are_chosen_one_by_one():
    one, other = torch.ones(3, 2), torch.zeros(3, 2)
    for mask in ([True, False, True], [True] * 3, [False] * 3):
        wanted = torch.tensor(mask)[:, None].expand(3, 2).float()
        assert torch.equal(chosen_rows(torch.tensor(mask), one, other), wanted)
