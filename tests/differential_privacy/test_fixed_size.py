"""Draws of a fixed size: both prices against closed forms, dp-accounting, and real neighbours."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from scipy.optimize import brentq
from scipy.special import ndtr

from nacre.data.sampling import FixedSize
from nacre.differential_privacy.accounting.composition import epsilon_bounds
from nacre.differential_privacy.accounting.fixed_size import fixed_size_curve
from nacre.differential_privacy.accounting.loss_distribution import Replaced, Unsettled, on_grid
from nacre.differential_privacy.accounting.price import calibrate, epsilon
from nacre.differential_privacy.accounting.saddle_point import tilted
from nacre.differential_privacy.events import event
from nacre.differential_privacy.noise.independent import Gaussian

DELTA = 1e-5
SETTINGS = [(0.1, 1.0), (0.01, 0.8), (0.3, 3.0), (0.5, 1.5), (0.02, 6.0)]  # rate, multiplier


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))


def made(rate: float, z: float, steps: int) -> dp.DpEvent:
    return event(FixedSize(round(1000 * rate), 1000), Gaussian(multiplier=z), steps, "replace_one")


@pytest.mark.parametrize(("rate", "z"), SETTINGS)
def test_the_curve_is_that_of_dp_accounting(rate: float, z: float) -> None:
    orders = [1.5, 2.0, 2.3, 3.0, 4.0, 5.0, 7.5, 16.0, 31.0, 64.0, 200.0, 300.0]
    relation = dp.NeighboringRelation.REPLACE_ONE
    theirs = dp.rdp.RdpAccountant(orders, relation).compose(made(rate, z, 1)).rdp
    plain = np.array(orders) / (2 * z**2)
    mine = fixed_size_curve(rate, z, np.array(orders))
    assert mine == pytest.approx(np.minimum(theirs, plain), rel=1e-8)


@pytest.mark.parametrize(("rate", "z"), SETTINGS)
def test_one_step_has_the_closed_form(rate: float, z: float) -> None:
    """(1 - q) N(0) + q N(1) from N(0): no pair is told apart better at epsilon >= 0."""

    def excess(value: float) -> float:
        x = z**2 * math.log1p(math.expm1(value) / rate) + 0.5
        mixed = (1 - rate) * ndtr(-x / z) + rate * ndtr((1 - x) / z)
        return float(mixed - math.exp(value) * ndtr(-x / z)) - DELTA

    exact = brentq(excess, 1e-9, 50)
    found = epsilon_bounds([(Replaced(z, rate), 1)], DELTA)
    assert found.lower <= exact * (1 + 1e-9) and exact <= found.upper * (1 + 1e-9)
    assert found.upper - found.lower <= 1e-3 * max(found.upper, 0.05)


def cells(kind: Replaced, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair of the event, by outcome, in `count` cells of x: what it claims, less a little."""
    z, q = kind.multiplier, kind.rate
    x = np.linspace(0.5, 1 + 9 * z, count)
    base = np.append(-np.diff(ndtr(-x / z)), ndtr(-x[-1] / z))
    moved = np.append(-np.diff(ndtr((1 - x) / z)), ndtr((1 - x[-1]) / z))
    mixed = (1 - q) * base + q * moved
    rest = 1 - base.sum() - mixed.sum()
    return np.concatenate([mixed, base, [rest]]), np.concatenate([base, mixed, [rest]])


@pytest.mark.parametrize(("rate", "z", "steps"), [(0.1, 1.0, 20), (0.3, 3.0, 50), (0.02, 0.8, 100)])
def test_many_steps_are_those_of_the_pair_composed_by_dp_accounting(
    rate: float, z: float, steps: int
) -> None:
    upper, lower = cells(Replaced(z, rate), 3000)
    assert upper.sum() == pytest.approx(1, abs=1e-12)
    pld = privacy_loss_distribution.from_two_probability_mass_functions(
        dict(enumerate(np.log(lower))),
        dict(enumerate(np.log(upper))),
        value_discretization_interval=1e-4,
    )
    truth = pld.self_compose(steps).get_epsilon_for_delta(DELTA)
    found = epsilon(made(rate, z, steps), DELTA, "pld", "replace_one").epsilon
    assert found == pytest.approx(truth, rel=5e-3)


def laws(values: tuple[float, ...], size: int, z: float, grid: np.ndarray) -> np.ndarray:
    """(N,) the density of one step on these units, on the grid: a mixture over all draws."""
    sums = [sum(drawn) for drawn in itertools.combinations(values, size)]
    each = [np.exp(-((grid - s) ** 2) / (2 * z**2)) for s in sums]
    return sum(each, np.zeros_like(grid)) / len(sums) / math.sqrt(2 * math.pi) / z


@pytest.mark.parametrize(("units", "size"), [(3, 1), (3, 2), (4, 2)])
def test_both_prices_cover_all_real_neighbours_and_are_nearly_met(units: int, size: int) -> None:
    """Units at either end of the bound, two steps, by integration over both outcomes."""
    z, rate, delta = 1.2, size / units, 1e-3
    grid = np.linspace(-9, 9, 721)
    area = (grid[1] - grid[0]) ** 2
    worst, divergence = 0.0, 0.0
    for values in itertools.product((-0.5, 0.5), repeat=units):
        for other in ((-values[0], *values[1:]), (0.0, *values[1:])):
            one, two = laws(values, size, z, grid), laws(other, size, z, grid)
            p, q = np.outer(one, one), np.outer(two, two)

            def excess(value: float, p: np.ndarray = p, q: np.ndarray = q) -> float:
                return float(np.maximum(p - math.exp(value) * q, 0).sum()) * area - delta

            worst = max(worst, brentq(excess, 0.0, 20.0) if excess(0.0) > 0 else 0.0)
            moment = float((p**4 / q**3).sum()) * area
            divergence = max(divergence, math.log(moment) / 3)
    found = epsilon_bounds([(Replaced(z, rate), 2)], delta)
    attained = epsilon_bounds([(Replaced(z, rate).attained, 2)], delta)
    assert attained.lower <= worst * (1 + 1e-6) <= found.upper * (1 + 1e-6)
    assert found.upper < 1.1 * worst
    assert divergence <= 2 * fixed_size_curve(rate, z, np.array([4.0]))[0]


@pytest.mark.parametrize(("rate", "z"), SETTINGS)
def test_the_tight_price_lies_below_the_curve_and_above_real_neighbours(
    rate: float, z: float
) -> None:
    found = epsilon(made(rate, z, 50), DELTA, "auto", "replace_one")
    assert found.accountant == "pld" and found.lower is not None
    curve = epsilon(made(rate, z, 50), DELTA, "rdp", "replace_one")
    assert found.lower <= found.epsilon <= curve.epsilon
    # As long as neighbours by add-or-remove at the same share are told apart.
    coins = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z)), 50)
    assert found.lower == pytest.approx(epsilon(coins, DELTA, "pld").epsilon, rel=2e-3)


def test_calibration_keeps_the_budget() -> None:
    z, price = calibrate(lambda z: made(0.1, z, 40), 3.0, DELTA, "pld", "replace_one")
    assert 0.999 * 3 < price.epsilon <= 3
    assert price.accountant == "pld" and z < 2


@pytest.mark.parametrize(("rate", "z"), SETTINGS)
def test_the_losses_of_a_step_are_a_law_and_its_mirror_image(rate: float, z: float) -> None:
    masses = on_grid(Replaced(z, rate), 1e-3, False, 1e-15)
    assert masses.masses.sum() + masses.lost == pytest.approx(1, abs=1e-9)
    losses = (masses.first + np.arange(len(masses.masses))) * 1e-3
    assert masses.masses @ np.exp(-losses) == pytest.approx(1, abs=1e-9)
    law = tilted([(Replaced(z, rate), 1)], DELTA, False).laws[0][0]
    assert law.cumulants(0.0)[0] == pytest.approx(0, abs=1e-12)
    assert law.cumulants(-1.0)[0] == pytest.approx(0, abs=1e-12)


def test_too_little_noise_takes_the_curve() -> None:
    with pytest.raises(Unsettled, match="points"):
        on_grid(Replaced(1e-3, 0.5), 1e-3, False, 1e-12)
    assert epsilon(made(0.5, 0.02, 2), DELTA, "pld", "replace_one").accountant == "rdp"
