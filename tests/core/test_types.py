import math

import pytest
import torch

from nacre.core.types import BoundedSum, Inherited, LocalMetrics, Noised, Release, Unprotected


def _sum(value: float, bound: float, norms: int = 0) -> BoundedSum:
    return BoundedSum(
        {"w": torch.full((2,), value)}, bound, LocalMetrics(torch.ones(norms, 1), norms)
    )


def test_sums_add_and_the_larger_bound_stays():
    total = _sum(1.0, 0.5, 2) + _sum(2.0, 1.5, 1)
    assert total.total["w"].tolist() == [3.0, 3.0]
    assert total.bound == 1.5
    assert total.local.norms.shape == (3, 1)
    assert total.local.dropped == 3


def test_an_unknown_bound_is_contagious():
    assert (_sum(1.0, 1.0) + _sum(1.0, math.inf)).bound == math.inf


def test_the_empty_sum_changes_nothing():
    zero = BoundedSum.zero({"w": torch.ones(2)}, 0.5)
    assert (zero + _sum(2.0, 0.5, 1)).total["w"].tolist() == [2.0, 2.0]
    assert (_sum(2.0, 0.5, 1) + zero).local.norms.shape == (1, 1)


def test_sums_over_other_parameters_do_not_add():
    with pytest.raises(ValueError, match="different parameters"):
        _sum(1.0, 1.0) + BoundedSum({"v": torch.ones(2)}, 1.0)

    with pytest.raises(ValueError, match="different parameters"):
        total = _sum(1.0, 1.0)
        total += BoundedSum({"v": torch.ones(2)}, 1.0)


def test_a_sum_may_grow_in_its_own_memory():
    first, second = _sum(1.0, 0.5, 2), _sum(2.0, 1.5, 1)
    memory = first.total["w"]
    apart = first + second
    assert memory.tolist() == [1.0, 1.0]
    first += second
    assert first.total["w"] is memory
    assert torch.equal(memory, apart.total["w"]) and second.total["w"].tolist() == [2.0, 2.0]
    assert (first.bound, first.local.dropped) == (1.5, 3)


def test_replace_one_doubles_the_sensitivity():
    total = _sum(1.0, 0.5)
    assert total.sensitivity("add_or_remove") == 0.5
    assert total.sensitivity("zero_out") == 0.5
    assert total.sensitivity("replace_one") == 1.0


@pytest.mark.parametrize(
    ("how", "private"), [(Noised(1.0), True), (Inherited(("a",)), True), (Unprotected("x"), False)]
)
def test_only_noised_and_inherited_releases_are_private(how, private):
    assert Release({}, how).private is private
