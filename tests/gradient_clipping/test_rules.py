import math

import pytest
import torch

from nacre.core.types import Noised, Release
from nacre.gradient_clipping import Flat, Unclipped

SPECIAL = torch.tensor([0.0, 1e-300, 2.0, 1e300, math.inf, math.nan], dtype=torch.float64)[:, None]


def test_flat_scales_what_is_too_long_and_leaves_the_rest():
    factors = Flat(norm=2.0).factors(torch.tensor([[1.0], [2.0], [8.0]]).double())
    assert factors.flatten().tolist() == pytest.approx([1.0, 1.0, 0.25], rel=1e-6)
    assert factors[2] * 8.0 <= 2.0


def test_flat_has_a_factor_for_every_norm():
    factors = Flat(norm=1.0).factors(SPECIAL).flatten().tolist()
    assert factors[:2] == [1.0, 1.0]
    assert factors[2] == pytest.approx(0.5, rel=1e-6)
    assert 0.0 <= factors[3] <= 1e-299
    assert factors[4:] == [0.0, 0.0]


def test_flat_leaves_room_for_rounding():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        gradient = torch.randn(1000, generator=generator) * 37.0
        length = gradient.double().norm()
        factor = Flat(norm=0.1).factors(length.reshape(1, 1)).float()
        assert (gradient * factor[0, 0]).double().norm() <= 0.1


def test_unclipped_scales_nothing_and_bounds_nothing():
    rule = Unclipped()
    assert rule.factors(SPECIAL).flatten().tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert rule.bound(1) == math.inf


@pytest.mark.parametrize("rule", [Flat(norm=0.5), Unclipped()])
def test_both_rules_take_the_joint_norm_and_never_move(rule):
    assert rule.groups(["a", "b"]) == [["a", "b"]]
    assert rule.after(Release({}, Noised(1.0))) is rule


def test_the_bound_of_a_flat_rule_is_its_norm():
    assert Flat(norm=0.3).bound(1) == 0.3


@pytest.mark.parametrize("norm", [0.0, -1.0, math.inf, math.nan])
def test_a_norm_that_bounds_nothing_is_refused(norm):
    with pytest.raises(ValueError, match=f"norm={norm} must be > 0"):
        Flat(norm=norm)
