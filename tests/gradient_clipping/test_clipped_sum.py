import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from nacre.core.tensors import norm
from nacre.gradient_clipping import Adaptive, Flat, Unclipped
from nacre.gradient_clipping.clipped_sum import UnitLosses, clipped_sum, factors_of
from nacre.gradient_clipping.rules import FixedRule
from tests.laws.zoo import MLP


@dataclass(frozen=True)
class PerTensor(FixedRule):
    """A rule with a norm for each tensor, written by somebody else."""

    def groups(self, names):
        return [[name] for name in names]

    def factors(self, norms):
        return torch.where(torch.isfinite(norms), (1.0 / norms).clamp(max=1.0), 0.0)

    def bound(self, groups):
        return math.sqrt(groups)


def test_the_joint_norm_runs_over_all_tensors():
    gradients = {"a": torch.tensor([[3.0], [0.3]]), "b": torch.tensor([[4.0], [0.4]])}
    total = clipped_sum(gradients, Flat(norm=1.0))
    assert total.local.norms.flatten().tolist() == pytest.approx([5.0, 0.5])
    assert total.total["a"].item() == pytest.approx(0.6 + 0.3, rel=1e-6)
    assert total.total["b"].item() == pytest.approx(0.8 + 0.4, rel=1e-6)


def test_each_group_has_a_norm_and_a_factor_of_its_own():
    gradients = {"a": torch.tensor([[3.0], [0.5]]), "b": torch.tensor([[0.5], [8.0]])}
    total = clipped_sum(gradients, PerTensor())
    assert total.local.norms.tolist() == [[3.0, 0.5], [0.5, 8.0]]
    assert total.total["a"].item() == pytest.approx(1.5)
    assert total.total["b"].item() == pytest.approx(1.5)
    assert total.bound == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("clip", [PerTensor(), Flat(norm=1.0), Unclipped()])
def test_one_bad_entry_drops_the_unit_from_every_tensor(clip):
    gradients = {"a": torch.tensor([[0.1], [math.nan]]), "b": torch.tensor([[0.1], [0.9]])}
    total = clipped_sum(gradients, clip)
    assert total.local.dropped == 1
    assert {name: value.item() for name, value in total.total.items()} == {
        "a": pytest.approx(0.1),
        "b": pytest.approx(0.1),
    }


def test_float64_gradients_too_large_for_float32_are_dropped():
    total = clipped_sum({"a": torch.full((1, 4), 1e300, dtype=torch.float64)}, Flat(norm=1.0))
    assert total.local.dropped == 1
    assert norm(total.total) == 0.0


def test_the_bound_does_not_trust_reduced_matrix_products():
    gradients = {"a": torch.stack([torch.full((4096,), 1.37), torch.full((4096,), 0.0011)])}
    plain = clipped_sum(gradients, Flat(norm=0.1)).total["a"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = clipped_sum(gradients, Flat(norm=0.1)).total["a"]
    assert under.dtype == torch.float32
    assert torch.equal(under, plain)


def test_losses_of_another_shape_are_refused():
    class Mean:
        def losses(self, model, batch):
            return model(batch["features"]).mean()

    with pytest.raises(ValueError, match=r"losses returned shape=\(\) for B=3 units"):
        UnitLosses(nn.Linear(6, 3), Mean())(MLP.batch(3))


@pytest.mark.parametrize("size", [1e20, 9e29, 1e31, 1e38])
def test_huge_gradients_keep_the_bound(size):
    """A factor below 1e-38 has too few digits in float32, so such a unit contributes nothing."""
    unit = torch.full((1, 16), size / 4)
    total = clipped_sum({"w": unit}, Flat(norm=1.0))
    norm = float(total.total["w"].double().norm())
    assert norm <= 1.0
    assert total.local.dropped == (0 if size < 1e30 else 1)
    assert norm == (pytest.approx(1.0, rel=1e-5) if size < 1e30 else 0.0)


def test_who_is_not_usable_has_no_part_in_what_rides_along():
    norms = torch.tensor([[0.5], [math.nan], [2.0], [math.inf], [0.1], [1e30]]).double()
    weighed = factors_of(norms, Adaptive(norm=1.0, share=0.5))
    assert weighed.usable.tolist() == [True, False, True, False, True, False]
    assert weighed.factors.flatten().tolist() == pytest.approx([1, 0, 0.5, 0, 1, 0], rel=1e-6)
    assert weighed.extras[":below"].item() == pytest.approx(0.5 * (1 - 1 + 1), rel=1e-6)
    assert weighed.bound == math.hypot(1.0, 0.5)
