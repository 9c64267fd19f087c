"""Prices against closed forms, quadrature, dp-accounting's own and published figures."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import dp_accounting as dp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nacre.data.sampling import AllUnits, Poisson
from nacre.differential_privacy.accounting.analytic import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_multiplier,
)
from nacre.differential_privacy.accounting.price import TOLERANCE, calibrate, epsilon
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, rdp_epsilon
from nacre.differential_privacy.events import event
from nacre.differential_privacy.noise.independent import Gaussian

DELTA = 1e-5

# expected, size, multiplier, steps, epsilon by RDP, by PLD: docs/anchors, section 2 (delta = 1e-5)
SETTINGS = [
    pytest.param(256, 60_000, 1.1, 14_062, 2.597, 2.382, id="60 epochs"),
    pytest.param(1, 1_000, 0.6, 100_000, 6.874, 6.113, id="long"),
    pytest.param(5, 5, 5.0, 1_000, 48.80, 46.2112, id="full batch"),
    pytest.param(4_096, 50_000, 3.0, 2_500, 7.099, 6.579, id="large batch"),
    pytest.param(1, 10_000, 0.5, 10_000, 2.764, 1.175, id="little noise"),
    pytest.param(1, 100, 1.0, 1, 0.956, 0.1995, id="one step"),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))


def steps_of(expected: float, size: int, z: float, steps: int) -> dp.DpEvent:
    return event(Poisson(expected, size), Gaussian(multiplier=z), steps, "add_or_remove")


@pytest.mark.parametrize(("expected", "size", "z", "steps", "by_rdp", "by_pld"), SETTINGS)
def test_anchors(
    expected: float, size: int, z: float, steps: int, by_rdp: float, by_pld: float
) -> None:
    made = steps_of(expected, size, z, steps)
    # More orders than dp-accounting's default can only lower the RDP figure.
    assert 0.995 * by_rdp <= epsilon(made, DELTA, "rdp").epsilon <= 1.0005 * by_rdp
    assert epsilon(made, DELTA, "pld").epsilon == pytest.approx(by_pld, rel=1e-3)


@pytest.mark.parametrize("z", [0.05, 0.3, 1.0, 5.0, 100.0, 1e4])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_gaussian_closed_form_by_another_route(z: float, delta: float) -> None:
    """At the returned epsilon the textbook formula (Balle & Wang 2018, theorem 8) gives delta."""
    value = gaussian_epsilon(z, delta)
    if value == 0:
        assert math.erf(1 / (z * math.sqrt(8))) <= delta
        return
    shift = 1 / z
    second = math.exp(value + norm.logcdf(-shift / 2 - value / shift))
    assert norm.cdf(shift / 2 - value / shift) - second == pytest.approx(delta, rel=1e-6)
    assert gaussian_delta(value, z) <= delta
    assert gaussian_multiplier(value, delta) == pytest.approx(z, rel=1e-6)
    assert gaussian_epsilon(gaussian_multiplier(value, delta), delta) <= value


def test_gaussian_closed_form_against_dp_accounting() -> None:
    theirs = dp.get_epsilon_gaussian(5 / math.sqrt(1000), DELTA)
    assert gaussian_epsilon(5 / math.sqrt(1000), DELTA) == pytest.approx(theirs, rel=1e-6)
    assert gaussian_epsilon(5 / math.sqrt(1000), DELTA) == pytest.approx(46.2112, abs=5e-5)


def exact_one_step(rate: float, z: float, delta: float) -> float:
    """The epsilon of one sampled Gaussian step, from the hockey-stick divergence both ways."""

    def divergence(value: float) -> float:
        ratio = math.exp(value)
        # Removing: where the mixture is more than `ratio` times N(0, z**2); adding: the reverse.
        if ratio > 1 - rate:
            cut = z**2 * math.log((ratio - 1 + rate) / rate) + 0.5
        plain = norm.sf(cut / z)
        removed = rate * norm.sf((cut - 1) / z) + (1 - rate - ratio) * plain
        added = 0.0
        if ratio * (1 - rate) < 1:
            edge = z**2 * math.log((1 / ratio - 1 + rate) / rate) + 0.5
            mixture = rate * norm.cdf((edge - 1) / z) + (1 - rate) * norm.cdf(edge / z)
            added = norm.cdf(edge / z) - ratio * mixture
        return max(removed, added)

    low, high = 0.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(("rate", "z"), [(0.01, 1.0), (0.5, 2.0), (0.9, 0.7), (0.2, 5.0)])
def test_one_sampled_step_in_closed_form(rate: float, z: float) -> None:
    exact = exact_one_step(rate, z, DELTA)
    price = epsilon(steps_of(rate * 1000, 1000, z, 1), DELTA, "pld").epsilon
    assert exact * (1 - 1e-9) <= price <= exact * 1.001


@pytest.mark.parametrize(("rate", "z"), [(0.001, 0.6), (0.01, 2.0), (0.3, 20.0), (0.99, 1.0)])
def test_integer_orders_against_dp_accounting(rate: float, z: float) -> None:
    step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z))
    orders = [order for order in ORDERS if order.is_integer() and order <= 1024]
    theirs = dp.rdp.RdpAccountant(orders).compose(step).rdp
    np.testing.assert_allclose(rdp_curve(step, orders), theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("rate", "z"), [(0.001, 0.6), (0.1, 2.0), (0.5, 1.0), (0.9, 0.3)])
@pytest.mark.parametrize("order", [1.1, 2.5, 7.7])
def test_fractional_orders_against_adaptive_quadrature(rate: float, z: float, order: float) -> None:
    def integrand(x: float) -> float:
        ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * z**2))
        return math.exp(order * ratio + norm.logpdf(x, scale=z))

    corners = [-12 * z, 0.0, 0.5, 1.0, order, order + 12 * z]
    pairs = itertools.pairwise(corners)
    moment = sum(quad(integrand, *pair, epsabs=0, epsrel=1e-11, limit=200)[0] for pair in pairs)
    exact = math.log(moment) / (order - 1)
    step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z))
    assert rdp_curve(step, [order])[0] == pytest.approx(exact, rel=1e-6, abs=1e-9)
    assert exact <= dp.rdp.RdpAccountant([order]).compose(step).rdp[0] * (1 + 1e-6)


@pytest.mark.parametrize("rate", [1e-9, 1e-4, 0.1, 0.9])
@pytest.mark.parametrize("order", [1.1, 1.9, 2.5, 7.7])
def test_very_little_noise_is_bounded_from_above(rate: float, order: float) -> None:
    """Against the integral itself, where a grid still holds it; and below the chord of D."""
    for z in (0.05, 0.09):
        x = np.arange(-12 * z, order + 12 * z, z**2 / 4)
        ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * z**2))
        terms = order * ratio + norm.logpdf(x, scale=z) + math.log(z**2 / 4)
        exact = max(0.0, float(np.logaddexp.reduce(terms))) / (order - 1)
        step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z))
        found = rdp_curve(step, [order])[0]
        assert exact * (1 - 1e-9) - 1e-9 <= found <= order / (2 * z**2)
        assert found <= 1.3 * exact + 1.0


@pytest.mark.parametrize("z", [0.005, 0.01, 0.05, 0.099, 0.3, 1.0, 30.0, 1e4])
def test_no_setting_is_too_extreme_for_a_price(z: float) -> None:
    """Rising with the rate and the steps, falling with delta, and never above the whole batch."""

    def price(rate: float, steps: int, delta: float) -> float:
        step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z))
        return epsilon(dp.SelfComposedDpEvent(step, steps), delta, "rdp").epsilon

    rates = (1e-9, 1e-5, 0.01, 0.5, 0.999)
    for delta in (1e-15, 1e-5, 0.5):
        for steps in (1, 1000, 10**8):
            found = [price(rate, steps, delta) for rate in rates]
            assert found == sorted(found) and all(0 <= value < math.inf for value in found)
            whole = dp.SelfComposedDpEvent(dp.GaussianDpEvent(z), steps)
            assert found[-1] <= epsilon(whole, delta, "rdp").epsilon * (1 + 1e-9)
            assert price(0.01, steps, delta) <= price(0.01, 10 * steps, delta)
            assert price(0.01, steps, delta / 10) >= price(0.01, steps, delta)


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"),
    [(1000.0, 1e-5, 0.125, 100), (100.0, 1e-5, 0.01, 3), (1e-6, 1e-8, 1e-5, 1)],
)
def test_every_budget_has_a_noise(
    target: float, delta: float, rate: float, steps: int, accountant: str
) -> None:
    def event_of(z: float) -> dp.DpEvent:
        step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z))
        return dp.SelfComposedDpEvent(step, steps)

    z, price = calibrate(event_of, target, delta, accountant)
    assert price.epsilon <= target
    assert epsilon(event_of(z * 0.99), delta, accountant).epsilon > target


@pytest.mark.parametrize("rate", [0.5, 0.6, 0.99])
def test_curves_where_the_series_fails_lie_between_their_neighbours(rate: float) -> None:
    """(order - 1) * divergence is convex in the order, so integer orders bound the others."""
    step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(2.0))
    for whole in (2.0, 5.0, 9.0):
        middle = whole + 0.5
        low, mid, high = rdp_curve(step, [whole, middle, whole + 1])
        assert low <= mid <= high
        chord = ((whole - 1) * low + whole * high) / 2
        assert (middle - 1) * mid <= chord * (1 + 1e-12)


def test_conversion_against_dp_accounting() -> None:
    curve = rdp_curve(steps_of(100, 1000, 1.0, 50))
    theirs, _ = dp.rdp.compute_epsilon(ORDERS, curve, DELTA)
    assert rdp_epsilon(curve, ORDERS, DELTA) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("expected", "size", "steps", "target"),
    [(156, 313, 50, 2.0), (64, 313, 100, 20.0), (100, 100, 40, 1.0), (4_096, 50_000, 2_500, 8.0),
     (1, 100, 1_000, 0.01), (313, 313, 30, 1e-3)],
)  # fmt: skip
@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_calibrations_land_just_below_the_target(
    expected: float, size: int, steps: int, target: float, accountant: str
) -> None:
    def event_of(z: float) -> dp.DpEvent:
        return steps_of(expected, size, z, steps)

    z, price = calibrate(event_of, target, DELTA, accountant)
    assert (1 - TOLERANCE) * target <= price.epsilon <= target
    assert price == epsilon(event_of(z), DELTA, accountant)
    assert epsilon(event_of(z * 0.99), DELTA, accountant).epsilon > target


def test_full_batch_calibration_is_the_closed_form() -> None:
    def event_of(z: float) -> dp.DpEvent:
        return event(AllUnits(313), Gaussian(multiplier=z), 1000, "replace_one")

    z, price = calibrate(event_of, 1.0, DELTA, "pld", "replace_one")
    assert z == pytest.approx(gaussian_multiplier(1.0, DELTA) * math.sqrt(1000), rel=1e-6)
    assert price.accountant == "closed" and price.lower is not None
    assert 0 < price.epsilon - price.lower < 1e-8
    assert 1 - 1e-6 < price.epsilon <= 1.0
