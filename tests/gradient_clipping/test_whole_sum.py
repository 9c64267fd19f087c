import math

import pytest
import torch

from nacre.adversarial_training import Standard
from nacre.core.errors import Incompatible
from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.gradient_clipping import ByNorm, ByValue, Flat, Unclipped, Whole
from tests.laws.zoo import MLP

MEAN = {"a": torch.tensor([3.0, -0.5]), "b": torch.tensor([[-4.0]])}


def test_whole_refuses_a_rule_that_bounds_units():
    whole = Whole(Standard(MLP.task))
    with pytest.raises(Incompatible, match=r"bounds no unit by 0\.5"):
        whole(MLP.model(), MLP.batch(2), Flat(norm=0.5), Source(bytes(32)))


def test_whole_bounds_nothing_and_keeps_no_norms():
    total = Whole(Standard(MLP.task))(MLP.model(), MLP.batch(2), Unclipped(), Source(bytes(32)))
    assert total.bound == math.inf
    assert total.local.norms.numel() == 0


def test_by_value_clamps_each_entry():
    shaped = ByValue(limit=1.0).shape(MEAN)
    assert shaped["a"].tolist() == [1.0, -0.5]
    assert shaped["b"].tolist() == [[-1.0]]
    assert MEAN["b"].item() == -4.0


def test_by_norm_keeps_the_direction():
    shaped = ByNorm(norm=0.5).shape(MEAN)
    assert norm(shaped) == pytest.approx(0.5)
    ratio = 0.5 / norm(MEAN)
    torch.testing.assert_close(shaped["a"], MEAN["a"] * ratio)


def test_by_norm_leaves_a_short_gradient_alone():
    assert ByNorm(norm=10.0).shape(MEAN) is MEAN
    zeros = {"a": torch.zeros(2)}
    assert ByNorm(norm=1.0).shape(zeros)["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
def test_limits_that_limit_nothing_are_refused(value):
    with pytest.raises(ValueError, match=f"limit={value} must be > 0"):
        ByValue(limit=value)
    with pytest.raises(ValueError, match=f"norm={value} must be > 0"):
        ByNorm(norm=value)
