import math

import pytest
import torch

from nacre.core.errors import Incompatible
from nacre.core.types import Noised, Release
from nacre.gradient_clipping import Automatic, Flat, PerLayer, Unclipped

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


@pytest.mark.parametrize("rule", [Flat(norm=0.5), Automatic(norm=0.5), Unclipped()])
def test_rules_of_one_group_take_the_joint_norm(rule):
    assert rule.groups(["a", "b"]) == [["a", "b"]]


@pytest.mark.parametrize("rule", [Flat(), Automatic(), PerLayer(norm=1.0), Unclipped()])
def test_fixed_rules_never_move_and_carry_nothing(rule):
    assert rule.after(Release({}, Noised(1.0)), 10.0) is rule
    assert rule.moved() == {}
    assert rule.at({}) is rule
    assert rule.extras(torch.ones(3, 1)) == {}


def test_automatic_makes_all_gradients_almost_as_long():
    norms = torch.tensor([[1e-3], [1.0], [1e3]]).double()
    lengths = (Automatic(norm=2.0, stability=0.01).factors(norms) * norms).flatten().tolist()
    assert lengths == pytest.approx([2 / 11, 2 / 1.01, 2 / 1.00001], rel=1e-6)
    factors = Automatic(norm=2.0).factors(SPECIAL).flatten().tolist()
    assert factors[0] == pytest.approx(200, rel=1e-6)  # of a gradient of zero
    assert factors[4:] == [0.0, 0.0]


def test_the_parts_are_layers_parameters_or_what_is_named():
    names = ["enter.0.weight", "enter.0.bias", "enter.1.weight", "scale", "head.weight"]
    layers = [["enter.0.weight", "enter.0.bias"], ["enter.1.weight"], ["scale"], ["head.weight"]]
    assert PerLayer(norm=1.0).groups(names) == layers
    assert PerLayer(norm=1.0, by="parameter").groups(names) == [[name] for name in names]
    named = PerLayer(norms={"scale": 1.0, "enter": 2.0, "head": 1.0, "enter.1": 1.0})
    assert named.groups(names) == [["scale"], names[:2], ["head.weight"], ["enter.1.weight"]]
    assert named.bound(4) == math.sqrt(7)


def test_each_part_has_its_own_norm_and_together_they_keep_the_bound():
    norms = torch.tensor([[9.0, 0.1, 9.0, 9.0], [0.0, math.nan, 1.0, 9.0]]).double()
    even = PerLayer(norm=2.0)
    assert even.factors(norms)[0].tolist() == pytest.approx([1 / 9, 1.0, 1 / 9, 1 / 9], rel=1e-6)
    assert even.factors(norms)[1, 1] == 0.0
    assert even.bound(4) == even.bound(1) == 2.0
    named = PerLayer(norms={"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.5})
    lengths = (named.factors(norms) * norms)[0]
    assert lengths.tolist() == pytest.approx([1.0, 0.1, 3.0, 4.5], rel=1e-6)
    assert lengths.norm() <= named.bound(4)


def test_names_that_leave_a_parameter_unbounded_are_refused():
    rule = PerLayer(norms={"enter": 1.0, "head": 1.0})
    with pytest.raises(Incompatible, match=r"covers the trained parameter 'entered\.weight'"):
        rule.groups(["entered.weight", "head.weight"])
    with pytest.raises(Incompatible, match="an entry 'head' and no trained parameter"):
        rule.groups(["enter.weight"])
    for wrong in ({}, {"norm": 1.0, "norms": {"a": 1.0}}, {"norms": {}}):
        with pytest.raises(ValueError, match="say one of them"):
            PerLayer(**wrong)
    with pytest.raises(ValueError, match=r"norms\.a=-1"):
        PerLayer(norms={"a": -1.0})


def test_the_bound_of_a_flat_rule_is_its_norm():
    assert Flat(norm=0.3).bound(1) == 0.3


@pytest.mark.parametrize("norm", [0.0, -1.0, math.inf, math.nan])
def test_a_norm_that_bounds_nothing_is_refused(norm):
    with pytest.raises(ValueError, match=f"norm={norm} must be > 0"):
        Flat(norm=norm)
    with pytest.raises(ValueError, match=f"norm={norm} must be > 0"):
        PerLayer(norm=norm)
    with pytest.raises(ValueError, match=f"stability={norm} must be > 0"):
        Automatic(stability=norm)
