"""What holds for every rule that bounds units, on gradients as such: see also the gradient sums."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.random import Source
from nacre.core.tensors import norm, summed
from nacre.core.types import BoundedSum, Noised
from nacre.differential_privacy.noise.independent import Gaussian
from nacre.gradient_clipping import CLIP_RULES, Adaptive, Automatic, Flat, PerLayer, Unclipped
from nacre.gradient_clipping.clipped_sum import clipped_sum
from tests.laws.zoo import distance

SHAPES = {"0.weight": (5, 4), "0.bias": (5,), "1.weight": (3, 5), "1.scale": ()}
RULES = [rule(norm=0.7) for rule in CLIP_RULES if rule is not Unclipped] + [
    PerLayer(norm=0.7, by="parameter"),
    PerLayer(norms={"0": 0.2, "1": 0.5, "1.scale": 0.1}),
    Adaptive(norm=0.7, share=1.0),
    Adaptive(norm=0.7, share=1e-3, quantile=0.9, rate=2.0),
]
rules = pytest.mark.parametrize("rule", RULES, ids=repr)


def _gradients(units, seed, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {n: size * torch.randn(units, *s, generator=generator) for n, s in SHAPES.items()}


def _of(gradients, index):
    return {name: value[index] for name, value in gradients.items()}


def _scaled_to(gradients, length):
    """The units' gradients, each of this joint norm before float32 rounds it."""
    whole = torch.cat([g.double().reshape(len(g), -1) for g in gradients.values()], 1).norm(dim=1)
    return {
        n: (g.double() * (length / whole).reshape(-1, *[1] * (g.dim() - 1))).float()
        for n, g in gradients.items()
    }


@rules
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([1e-20, 1e-3, 0.1, 0.7, 1.0, 37.0, 1e25]))
def test_no_unit_is_longer_than_the_bound(rule, seed, size):
    at_norm = _scaled_to(_gradients(1, seed), size)
    for gradients in (_gradients(1, seed, size), at_norm):
        total = clipped_sum(gradients, rule)
        assert norm(total.total) <= total.bound == rule.bound(len(rule.groups(list(SHAPES))))


@pytest.mark.slow
@rules
def test_no_unit_is_longer_than_the_bound_at_any_step(rule):
    """With moving rules too, whose norm each noised release moves."""
    noise, source, clip = Gaussian(multiplier=1.0), Source(bytes(32)), rule
    seen = set()
    for step in range(25):
        units = _gradients(8, step, size=0.3)
        total = clipped_sum(units, clip)
        for unit in range(8):
            without = clipped_sum(_of(units, [i for i in range(8) if i != unit]), clip)
            rounding = 1e-6 * norm(total.total)
            assert distance(total.total, without.total) <= total.bound + rounding
            assert norm(clipped_sum(_of(units, [unit]), clip).total) <= total.bound
        release, _ = noise.add(total, None, source.child("noise", step), "add_or_remove")
        assert isinstance(release.how, Noised)
        assert release.how.deviation == total.bound, "the noise follows the bound"
        seen.add(total.bound)
        clip = clip.after(release, 8.0)
    assert (len(seen) > 1) == bool(rule.moved())


@rules
def test_a_sum_over_nobody_has_the_same_entries(rule):
    like = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    total = clipped_sum(_gradients(3, 0), rule)
    zero = BoundedSum.zero(summed(like, rule), total.bound)
    assert {n: v.shape for n, v in zero.total.items()} == {
        n: v.shape for n, v in total.total.items()
    }
    assert norm((zero + total).total) == norm(total.total)


@rules
def test_units_in_any_order_and_any_split_ride_along_alike(rule):
    units = _gradients(9, 3, size=0.2)
    whole = clipped_sum(units, rule)
    split = clipped_sum(_of(units, slice(0, 2)), rule) + clipped_sum(_of(units, slice(2, 9)), rule)
    turned = clipped_sum(_of(units, torch.arange(8, -1, -1)), rule)
    assert distance(whole.total, split.total) <= 1e-6
    assert distance(whole.total, turned.total) <= 1e-6


@rules
def test_a_unit_that_is_not_finite_has_no_part_in_anything(rule):
    units = _gradients(3, 4)
    units["0.bias"][1, 2] = math.nan
    total, rest = clipped_sum(units, rule), clipped_sum(_of(units, [0, 2]), rule)
    assert total.local.dropped == 1
    assert distance(total.total, rest.total) == 0


@rules
def test_a_rule_comes_back_from_what_it_moved(rule):
    release, _ = Gaussian(multiplier=1.0).add(
        clipped_sum(_gradients(4, 5), rule), None, Source(bytes(32)), "add_or_remove"
    )
    after = rule.after(release, 4.0)
    assert rule.at(after.moved()) == after


@rules
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e-19, 1e19, 9e29, math.inf, math.nan])
def test_extreme_gradients_stay_finite_and_within_the_bound(rule, size):
    gradients = {name: value * size for name, value in _gradients(3, 1).items()}
    gradients["0.weight"][0] = 0.0  # a unit without a gradient beside the extreme ones
    total = clipped_sum(gradients, rule)
    assert all(value.isfinite().all() for value in total.total.values())
    assert norm(clipped_sum(_of(gradients, [1]), rule).total) <= total.bound


EXTREME = [
    Automatic(norm=1e12, stability=1e-12),
    Automatic(norm=1e-12, stability=1e12),
    Flat(norm=1e-12),
    Flat(norm=1e12),
]


@pytest.mark.parametrize("rule", EXTREME, ids=repr)
@pytest.mark.parametrize("size", [0.0, 1e-12, 1.0, 1e12, 1e27, 1e29])
def test_the_widest_options_keep_the_bound(rule, size):
    total = clipped_sum(_gradients(1, 2, size), rule)
    assert all(value.isfinite().all() for value in total.total.values())
    assert norm(total.total) <= total.bound


@pytest.mark.parametrize("value", [1e-13, 1e13, 1e-300, 3.5e38])
def test_lengths_that_float32_does_not_hold_are_refused(value):
    for make in (
        lambda: Automatic(stability=value),
        lambda: PerLayer(norms={"0": value}),
        lambda: Adaptive(norm=value),
    ):
        with pytest.raises(ValueError, match="scale the losses instead"):
            make()
