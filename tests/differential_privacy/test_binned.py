"""A round of bins: both directions against integration over all outcomes, and its refusals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nacre.core.errors import UnsupportedEvent
from nacre.data.sampling import BallsInBins, Poisson
from nacre.differential_privacy.accounting.allocation import Allocated, law
from nacre.differential_privacy.accounting.binned import _log_away, _log_moments, binned_curve
from nacre.differential_privacy.accounting.price import calibrate, epsilon
from nacre.differential_privacy.accounting.rdp import zcdp_rho
from nacre.differential_privacy.describe import describe_event
from nacre.differential_privacy.event_types import BinnedDpEvent
from nacre.differential_privacy.events import event, require_priced
from nacre.differential_privacy.group_privacy import group_event
from nacre.differential_privacy.leaves import leaves
from nacre.differential_privacy.noise.independent import Gaussian

ORDERS = [1.3, 2.0, 2.6, 3.0, 5.0, 8.0]
DELTA = 1e-5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))


def normal(x: np.ndarray, mean: np.ndarray | float, z: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * z**2)) / (z * math.sqrt(2 * math.pi))


def both(p: np.ndarray, q: np.ndarray, area: float, order: float) -> tuple[float, float]:
    """The Rényi divergences of P from Q and of Q from P."""
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(p), np.log(q)
    ways = ((log_p, log_q), (log_q, log_p))
    found = [
        math.log(np.exp(order * a + (1 - order) * b).sum() * area) / (order - 1) for a, b in ways
    ]
    return found[0], found[1]


def planes(z: float) -> tuple[np.ndarray, np.ndarray, float]:
    grid = np.arange(-10 * z - 8, 10 * z + 9, z / 12)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    return x, y, (z / 12) ** 2


@pytest.mark.parametrize("z", [0.8, 1.5, 4.0])
def test_two_bins_are_those_of_the_plane(z: float) -> None:
    x, y, area = planes(z)
    q = normal(x, 0, z) * normal(y, 0, z)
    p = (normal(x, 1, z) * normal(y, 0, z) + normal(x, 0, z) * normal(y, 1, z)) / 2
    for order in ORDERS:
        there, away = both(p, q, area, order)
        assert _log_away(2, z, order - 1) / (order - 1) == pytest.approx(away, rel=1e-4)
        found = float(binned_curve(2, z, np.array([order]))[0])
        assert max(there, away) <= found * (1 + 1e-6)
        if order == int(order):
            moment = _log_moments(2, z)[int(order)] / (order - 1)
            assert moment == pytest.approx(there, rel=1e-9)
            assert found == pytest.approx(max(there, away), rel=1e-4)


@pytest.mark.parametrize("z", [0.8, 2.0])
def test_shares_that_follow_from_the_step_before_cost_no_more(z: float) -> None:
    """The second step asks for less, and the other way, where the first came out high."""
    x, y, area = planes(z)
    share = np.where(x > 0.5, -0.4, np.where(x > -0.5, 1.0, 0.7))
    q = normal(x, 0, z) * normal(y, 0, z)
    for first in (1.0, 0.6):
        in_first = normal(x, first, z) * normal(y, 0, z)
        p = (in_first + normal(x, 0, z) * normal(y, share, z)) / 2
        for order in ORDERS:
            bound = float(binned_curve(2, z, np.array([order]))[0])
            assert max(both(p, q, area, order)) <= bound * (1 + 1e-6)


@pytest.mark.parametrize(("bins", "z", "s"), [(3, 1.0, 2.5), (10, 2.0, 1.1), (40, 0.8, 5.0)])
def test_many_bins_by_simulation(bins: int, z: float, s: float) -> None:
    """A fixed key; each mean of 400,000 draws lies within six deviations."""
    x = np.random.default_rng(1).normal(size=(400_000, bins)) * z
    ratio = np.exp((2 * x - 1) / (2 * z**2)).mean(1)
    for value, stated in ((ratio**-s, _log_away(bins, z, s)), (ratio**2, _log_moments(bins, z)[2])):
        spread = 6 * value.std() / math.sqrt(len(value))
        assert abs(value.mean() - math.exp(stated)) < spread


@pytest.mark.parametrize(("bins", "z"), [(2, 0.5), (5, 0.1), (100, 1.0), (10_000, 0.6), (7, 20.0)])
def test_a_round_costs_no_more_than_a_step_and_more_bins_cost_less(bins: int, z: float) -> None:
    orders = np.array([1.1, 1.5, 2.0, 4.5, 16.0, 64.0, 256.0, 512.0, 1e5])
    curve = binned_curve(bins, z, orders)
    assert (curve <= orders / (2 * z**2)).all() and (curve >= 0).all()
    assert (np.diff(curve) >= -1e-9).all(), "divergences rise with the order"
    assert (binned_curve(2 * bins, z, orders) <= curve + 1e-12).all()
    assert binned_curve(1, z, orders) == pytest.approx(orders / (2 * z**2))


def test_two_moments_in_closed_form() -> None:
    for bins, z in ((1000, 0.9), (3, 2.0)):
        second = math.log1p(math.expm1(z**-2) / bins)
        assert _log_moments(bins, z)[:3] == pytest.approx([0.0, 0.0, second], abs=1e-12)


def test_rounds_are_amplified_charged_and_refused_as_they_are_proven() -> None:
    z, anew = Gaussian(multiplier=1.0), BallsInBins(10_000, 100, anew=True)
    made = event(anew, z, 1000, "zero_out")
    assert leaves(made) == [
        (BinnedDpEvent(100, leaves(event(anew, z, 1, "replace_one"))[0][0]), 10)
    ]
    price = epsilon(made, DELTA, "pld", "zero_out")
    assert price.accountant == "pld" and price == epsilon(made, DELTA, "auto", "zero_out")
    coins = epsilon(event(Poisson(100, 10_000), z, 1000, "zero_out"), DELTA, "rdp").epsilon
    fixed = epsilon(event(BallsInBins(10_000, 100), z, 1000, "zero_out"), DELTA).epsilon
    assert 0.6 * coins < price.epsilon < coins < 0.2 * fixed
    assert price.epsilon < epsilon(made, DELTA, "rdp", "zero_out").epsilon
    assert zcdp_rho(made) == pytest.approx(5), "ten rounds of rho 1 / 2"
    assert describe_event(group_event(made, 2)) == "10 x Gaussian noise of 0.5 sensitivities"
    assert "on each of 100 bins" in describe_event(made)
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        require_priced(made, "replace_one")


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("z", [0.8, 1.5, 4.0])
def test_the_law_of_two_bins_lies_above_that_of_the_plane(z: float, added: bool) -> None:
    x, y, area = planes(z)
    q = normal(x, 0, z) * normal(y, 0, z)
    p = (normal(x, 1, z) * normal(y, 0, z) + normal(x, 0, z) * normal(y, 1, z)) / 2
    first, second = (q, p) if added else (p, q)
    found = law(Allocated(2, z, 1e-12), added)
    assert found is not None
    for value in (-1.0, -0.2, 0.0, 0.1, 0.5, 1.5):
        truth = float(np.maximum(first - math.exp(value) * second, 0).sum() * area)
        gains = np.maximum(-np.expm1(np.minimum(value - found.losses, 0)), 0)
        stated = float(found.masses @ gains) + found.lost
        assert truth * (1 - 3e-4) - 1e-9 <= stated <= truth * (1 + 2e-2) + 1e-6


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(("bins", "z", "value"), [(12, 2.0, 0.2), (50, 1.0, 0.3), (234, 1.1, 0.1)])
def test_the_law_of_many_bins_by_simulation(bins: int, z: float, value: float, added: bool) -> None:
    """A fixed key; for a right law one of the six means lies beyond five deviations once in
    300,000 keys. In float32, whose rounding is a thousandth of a mean's deviation."""
    x = np.random.default_rng(2).standard_normal((200_000, bins), np.float32)
    x *= np.float32(z)
    x[:, 0] += 0.0 if added else 1.0
    x -= np.float32(0.5)
    x /= np.float32(z**2)
    losses = np.log(np.exp(x, out=x).mean(1, dtype=np.float64)) * (-1 if added else 1)
    drawn = np.maximum(-np.expm1(np.minimum(value - losses, 0)), 0)
    found = law(Allocated(bins, z, 1e-12), added)
    assert found is not None
    gains = np.maximum(-np.expm1(np.minimum(value - found.losses, 0)), 0)
    stated = float(found.masses @ gains) + found.lost
    assert abs(drawn.mean() - stated) < 5 * drawn.std() / math.sqrt(len(drawn))


@pytest.mark.parametrize(
    ("bins", "rounds", "z", "curve"),
    [(234, 60, 1.1, 2.549), (100, 10, 1.0, 1.979), (50, 20, 2.0, 1.407), (12, 40, 2.0, 4.593)],
)
def test_rounds_cost_no_more_than_coins(bins: int, rounds: int, z: float, curve: float) -> None:
    """`curve` is what the Rényi curve alone gives."""
    noise = Gaussian(multiplier=z)
    anew, coins = BallsInBins(1000 * bins, bins, anew=True), Poisson(1000, 1000 * bins)
    steps = bins * rounds
    price = epsilon(event(anew, noise, steps, "zero_out"), DELTA, "pld", "zero_out")
    theirs = epsilon(event(coins, noise, steps, "zero_out"), DELTA, "pld", "zero_out")
    assert price.accountant == "pld"
    assert 0.85 * curve < price.epsilon <= theirs.epsilon < curve


def test_calibration_keeps_the_budget() -> None:
    def of(z: float) -> object:
        return event(BallsInBins(1000, 20, anew=True), Gaussian(multiplier=z), 100, "add_or_remove")

    _, price = calibrate(of, 2.0, DELTA, "pld")  # type: ignore[arg-type]
    assert 0.999 * 2 < price.epsilon <= 2
