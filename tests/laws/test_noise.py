"""Laws of every noise: the stated deviation, independence, keys, and refusals."""

from __future__ import annotations

import math

import pytest
import torch

from nacre.core.errors import Incompatible, Unbounded
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Inherited, Noised, Release, Unprotected
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise

NOISES = [Gaussian(multiplier=0.7), Gaussian(multiplier=3.0)]
FACTORS: list[tuple[Adjacency, float]] = [
    ("add_or_remove", 1.0),
    ("zero_out", 1.0),
    ("replace_one", 2.0),
]


def total(bound: float = 0.5, width: int = 4000) -> BoundedSum:
    values = {"weight": torch.full((width, 5), 2.0), "bias": torch.zeros(width)}
    return BoundedSum(values, bound)


def add(noise: Gaussian | NoNoise, of: BoundedSum, key: int, adjacency: Adjacency) -> Release:
    source = Source(bytes([key]) * 32)
    release, state = noise.add(of, noise.init(of.total), source, adjacency)
    assert state is None
    return release


def draws(release: Release, of: BoundedSum) -> torch.Tensor:
    parts = [(release.total[n] - of.total[n]).double().reshape(-1) for n in sorted(of.total)]
    return torch.cat(parts)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("adjacency", "factor"), FACTORS)
def test_deviation_is_multiplier_times_sensitivity(
    noise: Gaussian, adjacency: Adjacency, factor: float
) -> None:
    """24 000 draws under fixed keys; with fresh keys each bound would fail once in 10**6 runs."""
    of = total()
    release = add(noise, of, 1, adjacency)
    stated = noise.multiplier * factor * of.bound  # type: ignore[operator]
    assert release.how == Noised(stated, of.bound)
    sample = draws(release, of) / stated
    count = len(sample)
    assert abs(float(sample.mean())) < 4.9 / math.sqrt(count)
    assert abs(float(sample.square().mean()) - 1) < 4.9 * math.sqrt(2 / count)
    assert abs(float(sample.pow(4).mean()) - 3) < 4.9 * math.sqrt(96 / count)


@pytest.mark.parametrize("noise", NOISES)
def test_no_covariance_between_coordinates_tensors_and_steps(noise: Gaussian) -> None:
    """Each correlation of n draws is normal with deviation 1/sqrt(n): one failure in 10**6."""
    of = total()
    first, second = (draws(add(noise, of, key, "add_or_remove"), of) for key in (1, 2))
    count = len(first)
    limit = 4.9 / math.sqrt(count)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < limit
    for lag in (1, 5, 4000):
        shifted = torch.stack([first[:-lag], first[lag:]])
        assert abs(float(torch.corrcoef(shifted)[0, 1])) < 4.9 / math.sqrt(count - lag)


@pytest.mark.parametrize("noise", NOISES)
def test_same_key_same_noise_whatever_the_values(noise: Gaussian) -> None:
    of, zero = total(), BoundedSum.zero(total().total, 0.5)
    once, again = (add(noise, of, 3, "add_or_remove") for _ in range(2))
    empty = add(noise, zero, 3, "add_or_remove")
    for name in of.total:
        assert torch.equal(once.total[name], again.total[name])
        assert once.total[name].dtype == torch.float32
    assert torch.allclose(draws(once, of), draws(empty, zero), atol=1e-6)
    assert float(draws(empty, zero).abs().max()) > 0, "an empty sum is noised too"
    assert all(torch.equal(value, total().total[name]) for name, value in of.total.items())


@pytest.mark.parametrize("noise", NOISES)
def test_noises_of_two_tensors_have_no_covariance(noise: Gaussian) -> None:
    """Of 2**18 draws each, entry by entry, and of their squares: one failure in 10**6 each."""
    of = BoundedSum({"a": torch.zeros(1 << 18), "b": torch.zeros(512, 512)}, 1.0)
    release = add(noise, of, 5, "add_or_remove")
    a, b = (value.double().reshape(-1) / noise.multiplier for value in release.total.values())
    limit = 4.9 / math.sqrt(len(a))
    assert abs(float((a * b).mean())) < limit
    assert abs(float(((a.square() - 1) * (b.square() - 1)).mean()) / 2) < limit
    mixed = (a + b) / math.sqrt(2)  # joint normality, not covariance alone
    assert abs(float(mixed.pow(4).mean()) - 3) < 4.9 * math.sqrt(96 / len(a))


@pytest.mark.parametrize("noise", [*NOISES, NoNoise("the rows are public")])
def test_a_sum_that_is_given_away_gives_the_same_release(noise: Gaussian | NoNoise) -> None:
    source = Source(bytes([6]) * 32)
    kept, _ = noise.add(total(), None, source, "add_or_remove")
    of = total()
    given, _ = noise.add(of, None, source, "add_or_remove", consume=True)
    for name, value in kept.total.items():
        assert torch.equal(value, given.total[name])
        assert given.total[name].data_ptr() == of.total[name].data_ptr(), "no second copy"


@pytest.mark.parametrize("consume", [False, True])
@pytest.mark.parametrize("noise", NOISES)
def test_strides_and_precision_of_the_sum_do_not_matter(noise: Gaussian, consume: bool) -> None:
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
        release, _ = noise.add(of, None, source, "add_or_remove", consume=consume)
        released.append(release.total["w"])
    assert all(torch.equal(released[0], other) for other in released[1:])
    assert all(other.dtype == torch.float32 for other in released)


def test_scalars_empty_tensors_and_riding_entries_are_noised_too() -> None:
    of = BoundedSum({":below": torch.tensor(0.0), "w": torch.zeros(0, 3), "b": torch.zeros(2)}, 1.0)
    release = add(NOISES[0], of, 9, "add_or_remove")
    assert {n: v.shape for n, v in release.total.items()} == {
        n: v.shape for n, v in of.total.items()
    }
    assert float(release.total[":below"]) != 0, "under this key"


@pytest.mark.parametrize("noise", NOISES)
def test_order_of_names_does_not_matter(noise: Gaussian) -> None:
    of = total(width=3)
    turned = BoundedSum(dict(reversed(of.total.items())), of.bound)
    a, b = (add(noise, each, 4, "add_or_remove") for each in (of, turned))
    assert list(b.total) == list(turned.total)
    assert all(torch.equal(a.total[name], b.total[name]) for name in of.total)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("bound", [math.inf, math.nan, 0.0, -1.0])
def test_unknown_bounds_are_refused(noise: Gaussian, bound: float) -> None:
    with pytest.raises(Unbounded, match="gradient_clipping"):
        add(noise, total(bound, 2), 1, "add_or_remove")


def test_uncalibrated_noise_adds_nothing() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        add(Gaussian(), total(width=2), 1, "add_or_remove")


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
