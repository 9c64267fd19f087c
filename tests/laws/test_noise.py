"""Laws of every noise: the stated deviation, independence, keys, and refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from nacre.core.errors import FileDamaged, Incompatible, Unbounded
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Inherited, Noised, Release, Unprotected
from nacre.differential_privacy.noise.distributed import DistributedGaussian
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise
from nacre.differential_privacy.options import (
    NOISES,
    BandedNoise,
    BufferedNoise,
    DistributedGaussianNoise,
    GaussianNoise,
    TreeNoise,
    noise_of,
)

STEPS, CYCLE = 12, 4
OPTIONS = (GaussianNoise(), BandedNoise(bands=3), TreeNoise(), BufferedNoise(buffers=2))
MADE = [
    replace(option.build(STEPS, CYCLE), multiplier=multiplier)
    for option in OPTIONS
    for multiplier in (0.7, 3.0)
]
every = pytest.mark.parametrize("noise", MADE, ids=lambda n: f"{n.kind} {n.multiplier}")
FACTORS: list[tuple[Adjacency, float]] = [
    ("add_or_remove", 1.0),
    ("zero_out", 1.0),
    ("replace_one", 2.0),
]


def total(bound: float = 0.5, width: int = 4000) -> BoundedSum:
    values = {"weight": torch.full((width, 5), 2.0), "bias": torch.zeros(width)}
    return BoundedSum(values, bound)


def add(noise: Any, of: BoundedSum, key: int, adjacency: Adjacency) -> Release:
    """The release of the first step."""
    source = Source(bytes([key]) * 32)
    return noise.add(of, noise.init(of.total), source, adjacency)[0]


def draws(release: Release, of: BoundedSum) -> torch.Tensor:
    parts = [(release.total[n] - of.total[n]).double().reshape(-1) for n in sorted(of.total)]
    return torch.cat(parts)


@every
@pytest.mark.parametrize(("adjacency", "factor"), FACTORS)
def test_deviation_is_multiplier_times_sensitivity(
    noise: Any, adjacency: Adjacency, factor: float
) -> None:
    """24 000 draws under fixed keys; with fresh keys each bound would fail once in 10**6 runs."""
    of = total()
    release = add(noise, of, 1, adjacency)
    stated = noise.multiplier * noise.spread(0) * factor * of.bound
    assert isinstance(release.how, Noised) and release.how.bound == of.bound
    assert release.how.deviation == pytest.approx(stated, rel=1e-12)
    sample = draws(release, of) / stated
    count = len(sample)
    assert abs(float(sample.mean())) < 4.9 / math.sqrt(count)
    assert abs(float(sample.square().mean()) - 1) < 4.9 * math.sqrt(2 / count)
    assert abs(float(sample.pow(4).mean()) - 3) < 4.9 * math.sqrt(96 / count)


@every
def test_no_covariance_between_coordinates_tensors_and_steps(noise: Any) -> None:
    """Each correlation of n draws is normal with deviation 1/sqrt(n): one failure in 10**6."""
    of = total()
    first, second = (draws(add(noise, of, key, "add_or_remove"), of) for key in (1, 2))
    count = len(first)
    limit = 4.9 / math.sqrt(count)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < limit
    for lag in (1, 5, 4000):
        shifted = torch.stack([first[:-lag], first[lag:]])
        assert abs(float(torch.corrcoef(shifted)[0, 1])) < 4.9 / math.sqrt(count - lag)


@every
def test_same_key_same_noise_whatever_the_values(noise: Any) -> None:
    of, zero = total(), BoundedSum.zero(total().total, 0.5)
    once, again = (add(noise, of, 3, "add_or_remove") for _ in range(2))
    empty = add(noise, zero, 3, "add_or_remove")
    for name in of.total:
        assert torch.equal(once.total[name], again.total[name])
        assert once.total[name].dtype == torch.float32
    assert torch.allclose(draws(once, of), draws(empty, zero), atol=1e-6)
    assert float(draws(empty, zero).abs().max()) > 0, "an empty sum is noised too"
    assert all(torch.equal(value, total().total[name]) for name, value in of.total.items())


@every
def test_noises_of_two_tensors_have_no_covariance(noise: Any) -> None:
    """Of 2**18 draws each, entry by entry, and of their squares: one failure in 10**6 each."""
    of = BoundedSum({"a": torch.zeros(1 << 18), "b": torch.zeros(512, 512)}, 1.0)
    release = add(noise, of, 5, "add_or_remove")
    unit = noise.multiplier * noise.spread(0)
    a, b = (value.double().reshape(-1) / unit for value in release.total.values())
    limit = 4.9 / math.sqrt(len(a))
    assert abs(float((a * b).mean())) < limit
    assert abs(float(((a.square() - 1) * (b.square() - 1)).mean()) / 2) < limit
    mixed = (a + b) / math.sqrt(2)  # joint normality, not covariance alone
    assert abs(float(mixed.pow(4).mean()) - 3) < 4.9 * math.sqrt(96 / len(a))


@pytest.mark.parametrize("noise", [*MADE, NoNoise("the rows are public")])
def test_a_sum_that_is_given_away_gives_the_same_release(noise: Any) -> None:
    source = Source(bytes([6]) * 32)
    of = total(width=8000)  # small ones may be copied beside each other
    kept, _ = noise.add(of, noise.init(of.total), source, "add_or_remove")
    given, _ = noise.add(of, noise.init(of.total), source, "add_or_remove", consume=True)
    for name, value in kept.total.items():
        assert torch.equal(value, given.total[name])
        assert given.total[name].data_ptr() == of.total[name].data_ptr(), "no second copy"


@pytest.mark.parametrize("consume", [False, True])
@every
def test_strides_and_precision_of_the_sum_do_not_matter(noise: Any, consume: bool) -> None:
    values = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    forms = {
        "rows": values,
        "columns": values.t().contiguous().t(),
        "double": values.double(),
        "every other": torch.stack([values, values], dim=2)[..., 0],
    }
    released: list[torch.Tensor] = []
    for value in forms.values():
        source = Source(bytes([7]) * 32)
        of = BoundedSum({"w": value.clone(memory_format=torch.preserve_format)}, 1.0)
        release, _ = noise.add(of, noise.init(of.total), source, "add_or_remove", consume=consume)
        released.append(release.total["w"])
    assert all(torch.equal(released[0], other) for other in released[1:])
    assert all(other.dtype == torch.float32 for other in released)


@every
def test_scalars_empty_tensors_and_riding_entries_are_noised_too(noise: Any) -> None:
    of = BoundedSum({":below": torch.tensor(0.0), "w": torch.zeros(0, 3), "b": torch.zeros(2)}, 1.0)
    release = add(noise, of, 9, "add_or_remove")
    assert {n: v.shape for n, v in release.total.items()} == {
        n: v.shape for n, v in of.total.items()
    }
    assert float(release.total[":below"]) != 0, "under this key"


@every
def test_order_of_names_does_not_matter(noise: Any) -> None:
    of = total(width=3)
    turned = BoundedSum(dict(reversed(of.total.items())), of.bound)
    a, b = (add(noise, each, 4, "add_or_remove") for each in (of, turned))
    assert list(b.total) == list(turned.total)
    assert all(torch.equal(a.total[name], b.total[name]) for name in of.total)


@every
@pytest.mark.parametrize("bound", [math.inf, math.nan, 0.0, -1.0])
def test_unknown_bounds_are_refused(noise: Any, bound: float) -> None:
    with pytest.raises(Unbounded, match="gradient_clipping"):
        add(noise, total(bound, 2), 1, "add_or_remove")


@every
def test_uncalibrated_noise_adds_nothing(noise: Any) -> None:
    with pytest.raises(ValueError, match="calibrate"):
        add(replace(noise, multiplier=None), total(width=2), 1, "add_or_remove")


def test_the_laws_run_over_every_noise() -> None:
    """Noise that parties add themselves has laws of its own (`test_noise_in_shares`)."""
    assert {type(option) for option in OPTIONS} | {DistributedGaussianNoise} == set(NOISES)
    made = {type(noise) for noise in MADE} | {DistributedGaussian}
    assert made == {option.made for option in NOISES}


@every
def test_every_step_has_the_deviation_that_is_stated(noise: Any) -> None:
    """20 000 draws a step under fixed keys; with fresh ones it would fail once in 10**5 runs."""
    of = BoundedSum({"w": torch.zeros(20_000)}, 1.0)
    state = noise.init(of.total)
    for step in range(STEPS):
        source = Source(bytes([step + 1]) * 32)
        release, state = noise.add(of, state, source, "add_or_remove")
        stated = noise.multiplier * noise.spread(step)
        assert release.how.deviation == pytest.approx(stated, rel=1e-9)
        sample = release.total["w"].double() / stated
        assert abs(float(sample.square().mean()) - 1) < 4.9 * math.sqrt(2 / len(sample))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.kind)
def test_a_noise_remembers_as_many_tensors_as_it_says(option: Any) -> None:
    """At most, and at some step just as many."""
    noise = replace(option.build(STEPS, CYCLE), multiplier=1.0)
    of = BoundedSum({"w": torch.zeros(50)}, 1.0)
    state, kept = noise.init(of.total), [0]
    for step in range(STEPS):
        _, state = noise.add(of, state, Source(bytes([step + 1]) * 32), "add_or_remove")
        kept.append(sum(value.numel() >= 50 for value in (state or {}).values()))
    assert max(kept) <= option.remembered(STEPS)
    assert option.correlated == (max(kept) > 0)


@every
def test_what_a_noise_says_of_itself_makes_it_again(noise: Any) -> None:
    """So a plan, read back, knows the deviation of each step."""
    facts = json.loads(json.dumps(noise.facts()))
    assert facts["kind"] == noise.kind and facts["multiplier"] == noise.multiplier
    again = noise_of(facts, STEPS)
    assert replace(again, multiplier=noise.multiplier) == noise
    assert [again.spread(step) for step in range(STEPS)] == [
        noise.spread(step) for step in range(STEPS)
    ]


def test_a_noise_that_nobody_knows_is_not_taken_for_another() -> None:
    with pytest.raises(FileDamaged, match="noise of kind 'pink'"):
        noise_of({"kind": "pink", "multiplier": 1.0}, STEPS)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.inf, math.nan])
def test_gaussian_checks_its_multiplier(multiplier: float) -> None:
    with pytest.raises(ValueError, match="multiplier="):
        Gaussian(multiplier=multiplier)


def test_no_noise_says_by_what_right() -> None:
    of = total(math.inf, 3)
    plain = add(NoNoise("the rows are public"), of, 1, "add_or_remove")
    assert plain.how == Unprotected("the rows are public") and not plain.private
    after = add(NoNoise("private already", inherited=("east",)), of, 1, "add_or_remove")
    assert after.how == Inherited(("east",)) and after.private
    plain.total["bias"] += 1.0
    assert float(of.total["bias"].sum()) == 0, "the release shares no memory with the sum"
    with pytest.raises(ValueError, match="because"):
        NoNoise("")


def test_fast_draws_are_refused_where_their_seed_can_be_tried() -> None:
    noise = Gaussian(multiplier=1.0, draws="fast")
    with pytest.raises(Incompatible, match="32 bits of seed"):
        add(noise, total(), 1, "add_or_remove")


@pytest.mark.parametrize("bound", [1e-40, 1e35])
def test_a_bound_without_a_grid_is_refused(bound: float) -> None:
    with pytest.raises(Unbounded, match="clipping norm nearer to 1"):
        add(Gaussian(multiplier=1.0), total(bound), 1, "add_or_remove")


def test_independent_noise_ends_on_a_grid_that_tells_nothing_of_the_sum() -> None:
    """Sums that differ in their last bits alone reach the same multiples of the same step."""
    of = total()
    moved = BoundedSum({name: value + 1e-6 for name, value in of.total.items()}, of.bound)
    for values in (of, moved):
        release = add(Gaussian(multiplier=2.0), values, 4, "add_or_remove")
        assert all(
            torch.equal(value, (value * 32).round() / 32) for value in release.total.values()
        )


def test_many_small_tensors_are_noised_as_one_row_of_entries() -> None:
    """Whether they are laid side by side or are large enough to be noised one by one."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": 5, "b": 40_000, "c": 7, "d": 0, "e": 3, "f": 33_000}
    values = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    noise, source = Gaussian(multiplier=1.0), Source(bytes([5]) * 32)
    parts, _ = noise.add(BoundedSum(values, 1.0), None, source, "add_or_remove")
    whole, _ = noise.add(
        BoundedSum({"a": torch.cat(list(values.values()))}, 1.0), None, source, "add_or_remove"
    )
    assert torch.equal(torch.cat(list(parts.total.values())), whole.total["a"])
    together = [parts.total[name].data_ptr() for name in sizes]
    assert len(set(together)) >= 5, "nothing lies on another"
