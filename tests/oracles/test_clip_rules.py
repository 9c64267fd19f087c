"""Clip rules against what their papers say they do."""

import math

import pytest
import torch

from nacre.core.random import Source
from nacre.core.tensors import norm
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise
from nacre.gradient_clipping import Adaptive, Automatic, Flat, PerLayer
from nacre.gradient_clipping.clipped_sum import clipped_sum
from tests.laws.zoo import distance

PLAIN = NoNoise(because="an oracle")


def _units(lengths, seed=0):
    """A gradient of each length, in a random direction."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(len(lengths), 6, generator=generator).double()
    g = g / g.norm(dim=1, keepdim=True) * torch.as_tensor(lengths)[:, None]
    return {"w": g[:, :4].float(), "b": g[:, 4:].float()}


def test_automatic_has_the_closed_form_of_bu_et_al():
    """AUTO-S of https://arxiv.org/abs/2206.07136: R g / (|g| + gamma), unit by unit."""
    units = _units([0.0, 1e-4, 0.01, 0.3, 5.0, 1e6])
    total = clipped_sum(units, Automatic(norm=0.7, stability=0.02)).total
    lengths = torch.cat(list(units.values()), 1).double().norm(dim=1)
    for name, g in units.items():
        expected = (0.7 * g.double() / (lengths + 0.02)[:, None]).sum(0)
        torch.testing.assert_close(total[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_per_layer_with_one_part_is_flat():
    units = _units([0.1, 0.9, 1.1, 40.0])
    flat = clipped_sum(units, Flat(norm=1.0))
    one = {f"layer.{name}": value for name, value in units.items()}
    for rule in (PerLayer(norm=1.0), PerLayer(norms={"layer": 1.0})):
        total = clipped_sum(one, rule)
        same = {name.removeprefix("layer."): value for name, value in total.total.items()}
        assert distance(same, flat.total) == 0
        assert total.bound == flat.bound


def test_adaptive_clips_as_flat_at_its_present_norm():
    units = _units([0.1, 0.9, 1.1, 40.0])
    flat, adaptive = clipped_sum(units, Flat(norm=1.0)), clipped_sum(units, Adaptive(norm=1.0))
    below = adaptive.total.pop(":below")
    assert distance(adaptive.total, flat.total) == 0
    assert below.item() == pytest.approx(0.0, abs=1e-9)  # two below, two above


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [1e-3, 100.0])
def test_without_noise_the_norm_converges_to_the_quantile(quantile, start):
    """As https://arxiv.org/abs/1905.03871 has it: here to within the resolution of 401 units."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randn(401, generator=generator).double().exp()
    rule, units = Adaptive(norm=start, quantile=quantile, rate=0.2), _units(lengths)
    for _ in range(400):
        release, _ = PLAIN.add(clipped_sum(units, rule), None, Source(bytes(32)), "add_or_remove")
        rule = rule.after(release, 401.0)
    near = torch.quantile(lengths, torch.tensor([quantile - 0.01, quantile + 0.01]).double())
    assert near[0] <= rule.norm <= near[1]


def test_with_noise_the_norm_stays_about_the_quantile():
    """The share seen is wrong by z / (2 share batch) = 0.02 a step, so the norm wanders by about
    the square root of rate / 2 of that, here 1 %; ten deviations are allowed for."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randn(256, generator=generator).double().exp()
    rule, units, source = Adaptive(norm=20.0), _units(lengths), Source(bytes(32))
    noise, seen = Gaussian(multiplier=1.0), []
    for step in range(200):
        total = clipped_sum(units, rule)
        release, _ = noise.add(total, None, source.child(step), "add_or_remove")
        rule = rule.after(release, 256.0)
        seen.append(float((lengths <= rule.norm).double().mean()))
    assert sum(seen[100:]) / 100 == pytest.approx(0.5, abs=0.05)
    assert all(abs(share - 0.5) < 0.1 for share in seen[100:])


@pytest.mark.parametrize("share", [0.05, 0.1, 1.0])
def test_one_noise_for_both_costs_what_andrew_et_al_charge_for_two(share):
    """Theorem 1 of https://arxiv.org/abs/1905.03871: a sum noised at z_sum and a count of units
    (moved by 1/2 each) noised at sigma cost as much as one at z where
    z**-2 = z_sum**-2 + (2 sigma)**-2."""
    z, rule = 1.3, Adaptive(norm=0.4, share=share)
    deviation = z * rule.bound(1)  # of every coordinate of the release
    z_sum = deviation / rule.norm
    answer = float(rule.extras(torch.zeros(1, 1))[":below"])  # of one unit, which stands for 1/2
    sigma = deviation / (2 * answer)
    assert z_sum**-2 + (2 * sigma) ** -2 == pytest.approx(z**-2, rel=1e-6)


def test_the_release_of_the_answers_has_the_deviation_that_is_stated():
    """400 draws: the deviation of their deviation is 1 / sqrt(800) = 3.5 %, so five of them fail a
    right implementation once in two million times; the key is fixed, so this is the same always."""
    rule, noise, source = Adaptive(norm=0.5, share=0.3), Gaussian(multiplier=2.0), Source(bytes(32))
    total = clipped_sum(_units([0.1, 0.2, 9.0]), rule)
    draws = torch.stack(
        [
            noise.add(total, None, source.child(i), "add_or_remove")[0].total[":below"]
            for i in range(400)
        ]
    )
    centred = draws - total.total[":below"]
    expected = 2.0 * 0.5 * math.hypot(1.0, 0.3)
    assert float(centred.std()) == pytest.approx(expected, rel=0.18)
    assert abs(float(centred.mean())) <= 5 * expected / 20
    assert norm(total.total) > 0
