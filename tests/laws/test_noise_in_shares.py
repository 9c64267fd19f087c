"""Laws of noise that parties add in shares: its price, the ring that it fits, and the one sum that
it makes a release of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import dp_accounting as dp
import pytest
import torch

from nacre.core.errors import BadArgument, Incompatible, Unbounded, UnsupportedEvent
from nacre.core.random import Source
from nacre.core.types import Adjacency, BoundedSum, Noised
from nacre.data.sampling import AllUnits, Poisson
from nacre.differential_privacy.accounting.price import calibrate, epsilon
from nacre.differential_privacy.events import event
from nacre.differential_privacy.noise.distributed import WRAPS, DistributedGaussian, RingSums
from nacre.differential_privacy.options import DistributedGaussianNoise, noise_of

SUMS = RingSums(
    bits=32, parties=100, threshold=80, colluders=5, dimension=10_000, bound=1.5, rounds=40
)
NOISE = DistributedGaussian(multiplier=1.2, sums=SUMS)
ADJACENCIES: list[Adjacency] = ["add_or_remove", "zero_out", "replace_one"]
SOURCE = Source(bytes(32))


def noised(deviation: float = 1.2 * 1.5, bound: float = 1.5) -> BoundedSum:
    values = {"w": torch.full((2, 3), 2.0)}
    return BoundedSum(values, bound, noised=Noised(deviation, bound, 75))


@pytest.mark.parametrize("consume", [False, True])
def test_a_sum_that_holds_the_noise_is_released_as_it_is(consume: bool) -> None:
    of = noised()
    release, state = NOISE.add(of, None, SOURCE, "add_or_remove", consume=consume)
    assert state is None and release.private
    assert release.how == Noised(1.2 * 1.5, 1.5, 75)
    assert torch.equal(release.total["w"], of.total["w"])
    assert (release.total["w"].data_ptr() == of.total["w"].data_ptr()) is consume


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_the_stated_deviation_is_multiplier_times_sensitivity(adjacency: Adjacency) -> None:
    factor = 2 if adjacency == "replace_one" else 1
    step, shares = NOISE.fitted(adjacency)
    assert shares.deviation * step == pytest.approx(1.2 * 1.5 * factor, rel=1e-9)
    assert shares.deviation * step >= 1.2 * 1.5 * factor * (1 - 1e-15)
    NOISE.add(noised(1.2 * 1.5 * factor), None, SOURCE, adjacency)


def test_any_other_sum_is_refused() -> None:
    plain = BoundedSum({"w": torch.zeros(3)}, 1.5)
    for of in (plain, replace(noised(), noised=Noised(1.8, 1.5))):  # noise of the server's own
        with pytest.raises(Unbounded, match="no party has added its share"):
            NOISE.add(of, None, SOURCE, "add_or_remove")
    with pytest.raises(Unbounded, match="has deviation 1"):
        NOISE.add(noised(1.7), None, SOURCE, "add_or_remove")
    with pytest.raises(Unbounded, match="is due"):
        NOISE.add(noised(), None, SOURCE, "replace_one")
    with pytest.raises(Unbounded, match="gradient_clipping"):
        NOISE.add(noised(bound=math.inf), None, SOURCE, "add_or_remove")
    with pytest.raises(ValueError, match="calibrate"):
        replace(NOISE, multiplier=None).add(noised(), None, SOURCE, "add_or_remove")


def test_a_sum_of_which_a_part_alone_is_noised_is_not() -> None:
    assert (noised() + noised()).noised == noised().noised
    part = BoundedSum({"w": torch.zeros(2, 3)}, 1.5)
    assert (noised() + part).noised is None and (part + noised()).noised is None
    grown = noised()
    grown += part
    assert grown.noised is None


def test_what_it_says_of_itself_makes_it_again() -> None:
    facts = json.loads(json.dumps(NOISE.facts()))
    again = noise_of(facts, 40)
    assert replace(again, multiplier=1.2) == NOISE
    assert again.spread(7) == 1.0
    option = DistributedGaussianNoise()
    assert noise_of(option.build(40).facts(), 40) == option.build(40)
    assert option.remembered(40) == 0 and option.unfit() is None


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_the_price_is_that_of_the_shares_of_honest_parties(adjacency: Adjacency) -> None:
    one = event(AllUnits(100), NOISE, 1, adjacency)
    assert isinstance(one, dp.ZCDpEvent) and one.xi == 0
    assert 1 / (2 * 1.2**2) * (1 - 1e-9) < one.rho < 1 / (2 * 1.2**2) * (1 + 1e-9)
    many = event(AllUnits(100), NOISE, 40, adjacency)
    assert isinstance(many, dp.SelfComposedDpEvent) and (many.count, many.event) == (40, one)


def test_the_price_counts_tau_where_the_grid_is_coarse() -> None:
    """4000 parties in 16 bits: 6 steps a vector, shares of a variance of 0.6."""
    sums = replace(SUMS, bits=16, parties=4000, threshold=3900, colluders=0, dimension=20)
    noise = DistributedGaussian(multiplier=8.0, sums=sums)
    _, shares = noise.fitted("add_or_remove")
    assert shares.variance < 0.6
    one = event(AllUnits(4000), noise, 1, "add_or_remove")
    assert isinstance(one, dp.ZCDpEvent) and one.rho == shares.rho > 1.05 / (2 * 8.0**2)


def test_those_who_see_the_model_alone_know_no_share() -> None:
    public = NOISE.without_colluders()
    inside, outside = (noise.fitted("add_or_remove") for noise in (NOISE, public))
    assert inside[0] == outside[0]
    assert inside[1].variance == pytest.approx(outside[1].variance, rel=1e-9)
    assert (inside[1].shares, outside[1].shares) == (75, 80)
    assert public.sums == replace(SUMS, colluders=0)
    prices = [event(AllUnits(100), noise, 1, "zero_out") for noise in (public, NOISE)]
    assert prices[0].rho == pytest.approx(prices[1].rho * 75 / 80, rel=1e-9)  # type: ignore[attr-defined]
    for uncalibrated in (replace(NOISE, multiplier=None), replace(NOISE, sums=None)):
        with pytest.raises(ValueError, match="calibrate"):
            uncalibrated.without_colluders()
        with pytest.raises(ValueError, match="calibrate"):
            uncalibrated.fitted("add_or_remove")


def test_a_draw_is_refused() -> None:
    with pytest.raises(UnsupportedEvent, match="who takes part"):
        event(Poisson(10.0, 100), NOISE, 1, "add_or_remove")


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize(("parties", "multiplier"), [(3, 0.6), (100, 1.0), (900, 40.0)])
def test_the_step_is_the_smallest_that_holds_all_parties_and_their_noise(
    bits: int, parties: int, multiplier: float
) -> None:
    sums = replace(SUMS, bits=bits, parties=parties, threshold=parties, colluders=1)
    step, shares = sums.fitted(multiplier, 2.0, parties - 1)
    assert math.frexp(step)[0] == 0.5

    def needed(step: float, variance: float) -> float:
        tail = 2 * parties * variance * math.log(2 * 10_000 * 40 / WRAPS)
        return parties * math.floor(1.5 / step) + math.ceil(math.sqrt(tail))

    room = 2 ** (bits - 1) - 1
    assert needed(step, shares.variance) <= room
    assert needed(step / 2, 4 * shares.variance) > room
    assert shares.sensitivity == 2 * 1.5 / step


def test_sums_that_are_too_coarse_or_hide_nobody() -> None:
    with pytest.raises(Incompatible, match="bits: 32"):
        replace(SUMS, bits=16, parties=40_000, threshold=40_000).fitted(1.0, 1.0, 40_000)
    with pytest.raises(BadArgument, match="leaves no share"):
        replace(SUMS, threshold=5)
    with pytest.raises(BadArgument, match="bound="):
        replace(SUMS, bound=math.nan)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("target", [0.5, 8.0])
def test_it_is_calibrated_and_costs_what_central_noise_costs_by_the_same_accountant(
    bits: int, target: float
) -> None:
    sums = replace(SUMS, bits=bits)

    def inside(multiplier: float) -> Any:
        noise = DistributedGaussian(multiplier=multiplier, sums=sums)
        return event(AllUnits(100), noise, 40, "add_or_remove")

    def central(multiplier: float) -> Any:
        return dp.SelfComposedDpEvent(dp.GaussianDpEvent(multiplier), 40)

    found, price = calibrate(inside, target, 1e-5, "rdp")
    other, _ = calibrate(central, target, 1e-5, "rdp")
    exact, _ = calibrate(central, target, 1e-5)
    assert 0.999 * target <= price.epsilon <= target
    assert found == pytest.approx(other, rel=2e-3)
    assert exact < found < 1.12 * exact  # what a bound by Rényi divergences costs
    assert epsilon(inside(found), 1e-5).accountant == "rdp"
