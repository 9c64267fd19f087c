"""The L1 ball: its projection is the nearest point of the ball and the range at once."""

import pytest
import torch

from nacre.adversarial_training import Ball
from nacre.adversarial_training.threats.diamond import Diamond, soft_threshold
from nacre.core.types import FeatureSpace


def _by_bisection(lengths, room):
    low, high = 0.0, float(lengths.max())
    for _ in range(200):
        middle = (low + high) / 2
        total = torch.minimum((lengths - middle).clamp(min=0), room).sum()
        low, high = (middle, high) if total > 1 else (low, middle)
    return torch.minimum((lengths - high).clamp(min=0), room)


def test_the_threshold_is_that_of_a_bisection():
    generator = torch.Generator().manual_seed(0)
    for width in (1, 2, 5, 40):
        lengths = 3 * torch.rand(200, width, generator=generator, dtype=torch.float64)
        lengths[::7] *= 0.1
        lengths[::5, 0] = 1.0
        room = torch.rand(200, width, generator=generator, dtype=torch.float64)
        room[::3] = 1.0
        room[::11, -1] = 0.0
        got = soft_threshold(lengths, room)
        for row in range(200):
            capped = torch.minimum(lengths[row], room[row])
            want = capped if capped.sum() <= 1 else _by_bisection(lengths[row], room[row])
            torch.testing.assert_close(got[row], want, atol=1e-9, rtol=0)


def test_no_point_of_the_ball_and_the_range_is_nearer():
    generator = torch.Generator().manual_seed(1)
    space = FeatureSpace((5,), low=torch.zeros(5), high=torch.ones(5))
    region = Ball(kind="l1", radius=0.7).region(space)
    centre = torch.rand(50, 5, generator=generator)
    x = centre + torch.randn(50, 5, generator=generator)
    nearest = region.project(x, centre)
    assert region.contains(nearest, centre).all()
    others = region.start(centre, torch.rand(50, 6, generator=generator, dtype=torch.float64))
    for share in (0.0, 0.3, 0.9, 1.0):  # the region is convex, so these lie in it
        between = share * nearest + (1 - share) * others
        assert ((between - x).norm(dim=1) >= (nearest - x).norm(dim=1) - 1e-5).all()


def test_starts_are_uniform_in_the_ball():
    """In d dimensions the share of the ball within s of the radius is s to the d."""
    region = Ball(kind="l1", radius=2.0).region(FeatureSpace((3,)))
    uniform = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    length = region.start(torch.zeros(20_000, 3), uniform).abs().sum(1) / 2
    for share in (0.3, 0.6, 0.9):
        assert float((length <= share).double().mean()) == pytest.approx(share**3, abs=0.015)


def test_a_sparse_step_has_length_1_and_the_entries_that_each_row_keeps():
    region = Diamond(
        torch.tensor([1.0, 2.0, 0.0, 1.0]), torch.full((4,), -9.0), torch.full((4,), 9.0)
    )
    gradient = torch.tensor([[3.0, -1.0, 9.0, 0.5], [3.0, -1.0, 9.0, 0.5], [0.0, 0.0, 9.0, 0.0]])
    found = region.sparse(gradient, torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64))
    wanted = [[1.0, 0.0, 0.0, 0.0], [1 / 3, -2 / 3, 0.0, 1 / 3], [0.0] * 4]
    assert found.tolist() == [pytest.approx(row) for row in wanted]
