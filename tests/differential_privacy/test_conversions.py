from __future__ import annotations

import math
from pathlib import Path

import dp_accounting as dp
import pytest

from nacre.core.errors import Incompatible, UnsupportedEvent
from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.conversions import (
    DELTAS,
    curve,
    gaussian_mu,
    in_other_words,
    most,
)
from nacre.differential_privacy.accounting.price import epsilon

DELTA = 1e-5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))


def steps_of(count: int) -> dp.DpEvent:
    return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.5)), count)


def batch_of(units: int) -> dp.DpEvent:
    drawn = dp.PoissonSampledDpEvent(units / 1000, dp.GaussianDpEvent(1.5))
    return dp.SelfComposedDpEvent(drawn, 100)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("event_of", [steps_of, batch_of])
def test_one_more_is_too_many(event_of: object, accountant: str) -> None:
    number, price = most(event_of, 1.0, DELTA, 999, accountant)
    assert 1 < number < 999
    assert price == epsilon(event_of(number), DELTA, accountant)
    assert price.epsilon <= 1 < epsilon(event_of(number + 1), DELTA, accountant).epsilon


def test_the_highest_number_may_be_covered() -> None:
    number, price = most(steps_of, 50.0, DELTA, 7)
    assert number == 7 and price == epsilon(steps_of(7), DELTA)


def test_numbers_that_cannot_be_met() -> None:
    with pytest.raises(Incompatible, match="first one"):
        most(lambda n: dp.SelfComposedDpEvent(dp.GaussianDpEvent(0.5), n), 1.0, DELTA, 10)
    with pytest.raises(ValueError, match="epsilon="):
        most(steps_of, math.inf, DELTA, 10)
    with pytest.raises(ValueError, match="highest="):
        most(steps_of, 1.0, DELTA, 0)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_the_curve_falls_with_delta(accountant: str) -> None:
    points = curve(steps_of(50), [1e-9, 1e-7, 1e-5, 1e-3], accountant)
    values = [price.epsilon for _, price in points]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4
    assert points[2] == (1e-5, epsilon(steps_of(50), 1e-5, accountant))


def test_mu_is_exact_for_gaussians_and_refused_for_the_rest() -> None:
    event = dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(dp.GaussianDpEvent(3.0), 4), dp.GaussianDpEvent(2.0)]
    )
    mu = gaussian_mu(event)
    assert mu == pytest.approx(math.sqrt(4 / 9 + 1 / 4))
    assert epsilon(event, DELTA).epsilon == pytest.approx(gaussian_epsilon(1 / mu, DELTA))
    assert gaussian_mu(dp.NoOpDpEvent()) == 0
    with pytest.raises(UnsupportedEvent, match="promise too much"):
        gaussian_mu(steps_of(5))


def test_the_promise_in_the_words_of_others() -> None:
    """A full-batch Gaussian has all of them; a sampled one no mu, and a pure query no mu either."""
    plain = dp.SelfComposedDpEvent(dp.GaussianDpEvent(5.0), 10)
    found = in_other_words(plain, "auto", "add_or_remove")
    assert found["mu"] == pytest.approx(math.sqrt(10) / 5)
    assert found["rho"] == pytest.approx(10 / 50)
    deltas, epsilons = zip(*found["epsilon_by_delta"], strict=True)
    assert deltas == DELTAS
    assert list(epsilons) == sorted(epsilons)
    assert epsilons[1] == epsilon(plain, DELTAS[1]).epsilon
    sampled = in_other_words(
        dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(2.0)), "pld", "add_or_remove"
    )
    assert sampled["mu"] is None
    assert sampled["rho"] == pytest.approx(1 / 8), "not amplified"
