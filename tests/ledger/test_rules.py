"""Currencies, allowances and what comes back."""

from __future__ import annotations

import math

import dp_accounting as dp
import pytest

from nacre.core.errors import UnsupportedEvent
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, rdp_epsilon
from nacre.differential_privacy.leaves import pure_event
from nacre.ledger.rules import Pld, Rdp, Zcdp, build_rule, conversion, first_order, smallest_epsilon

from .conftest import GAUSSIAN, SAMPLED

DELTA = 1e-5


@pytest.mark.parametrize("order", [1.5, 8.0, 200.0])
def test_conversion_is_that_of_the_pricer(order: float) -> None:
    assert rdp_epsilon([9.0], [order], DELTA) == pytest.approx(9.0 + conversion(order, DELTA))


def test_a_run_that_the_rdp_accountant_prices_at_the_grant_takes_all_of_it() -> None:
    cost = epsilon(dp.SelfComposedDpEvent(SAMPLED, 500), DELTA, "rdp").epsilon
    order = first_order("rdp", cost, DELTA, SAMPLED, 500)
    assert order is not None
    rule = Rdp(cost, DELTA, order)
    asked = rule.take(rule.price(SAMPLED, 500), 500)
    assert asked / rule.allowance == pytest.approx(1.0)
    assert rule.epsilon([asked]) == pytest.approx(cost)


def test_the_first_order_takes_the_smallest_share() -> None:
    order = first_order("rdp", 3.0, DELTA, SAMPLED, 100)
    shares = {
        a: 100 * price / (3.0 - conversion(a, DELTA))
        for a, price in zip(ORDERS, rdp_curve(SAMPLED), strict=True)
        if conversion(a, DELTA) < 3.0
    }
    assert order == min(shares, key=shares.__getitem__)


def test_only_rdp_has_an_order() -> None:
    assert first_order("zcdp", 3.0, DELTA, SAMPLED, 100) is None
    with pytest.raises(ValueError, match="order=None"):
        build_rule("rdp", 3.0, DELTA, None)


def test_an_event_that_costs_nothing_fixes_no_order() -> None:
    with pytest.raises(UnsupportedEvent, match="costs nothing"):
        first_order("rdp", 3.0, DELTA, dp.NoOpDpEvent(), 1)


def test_filters_add_up_and_give_back_what_was_not_journalled() -> None:
    rule = Rdp(3.0, DELTA, 8.0)
    assert rule.take(0.25, 4) == 1.0
    assert rule.settle(10, 3) == 3
    assert rule.left([rule.allowance, 1.0]) == 0.0
    assert rule.fits([rule.allowance / 2], rule.allowance / 2)
    assert not rule.fits([rule.allowance], 1e-9)
    assert rule.epsilon([]) == 0.0
    assert rule.epsilon([rule.allowance]) == pytest.approx(3.0)


@pytest.mark.parametrize("granted", [1e-4, 1.0, 50.0])
def test_zcdp_allowance_is_the_root_of_its_epsilon(granted: float) -> None:
    rule = Zcdp(granted, DELTA)
    assert rule.epsilon([rule.allowance]) == pytest.approx(granted)
    assert rule.price(SAMPLED, 7) == 0.5  # 1 / (2 z**2): sampling is no help
    assert rule.take(0.5, 7) == 3.5
    assert rule.settle(7, 0) == 0


@pytest.mark.parametrize("granted", [0.01, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_zcdp_reads_epsilon_at_the_best_order_and_never_below_the_truth(
    granted: float, delta: float
) -> None:
    """A Gaussian of that rho has at most the granted epsilon: its exact delta is not above it."""
    rho = Zcdp(granted, delta).allowance
    orders = [1 + math.exp(place / 100) for place in range(-900, 2500)]
    assert rho == pytest.approx(max((granted - conversion(a, delta)) / a for a in orders), rel=1e-4)
    simple = rho + 2 * math.sqrt(rho * -math.log(delta))
    assert granted < simple  # Bun & Steinke's epsilon of the same rho
    exact = epsilon(dp.GaussianDpEvent(1 / math.sqrt(2 * rho)), delta).epsilon
    assert exact <= granted


def test_pld_is_for_one_run_priced_as_a_whole() -> None:
    rule = Pld(3.0, DELTA)
    whole = epsilon(dp.SelfComposedDpEvent(GAUSSIAN, 9), DELTA, "pld").epsilon
    assert rule.price(GAUSSIAN, 9) == whole == rule.take(whole, 2)
    assert (rule.settle(9, 1), rule.settle(9, 0)) == (9, 0)
    assert rule.fits([], 3.0) and not rule.fits([], 3.1)
    assert rule.left([]) == 3.0 and rule.left([0.1]) == 0.0
    assert rule.epsilon([0.1]) == 0.1


@pytest.mark.slow
def test_queries_of_one_file_are_one_run_under_pld_and_cost_less_than_their_sum() -> None:
    rule = Pld(3.0, DELTA)
    parts = [pure_event(0.5), pure_event(1.0), dp.GaussianDpEvent(4.0)]
    together = rule.price(dp.ComposedDpEvent(parts), 1)
    assert 1.5 < together < sum(rule.price(part, 1) for part in parts)
    assert rule.fits([], together)


def test_runs_without_epsilon_still_use_up_the_delta_of_a_pld_grant() -> None:
    rule = Pld(3.0, 0.1)
    price = rule.price(dp.GaussianDpEvent(100.0), 1)
    assert price == 0.0
    assert not rule.fits([price], price)


def test_the_smallest_epsilon_leaves_nothing_at_any_order() -> None:
    assert smallest_epsilon("zcdp", DELTA) == 0.0
    assert smallest_epsilon("rdp", DELTA) == 0.0
    least = smallest_epsilon("rdp", 1e-300)
    assert least > 0
    assert all(Rdp(least, 1e-300, order).allowance <= 0 for order in ORDERS)
    assert math.isfinite(least)
