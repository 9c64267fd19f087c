"""Many kinds of steps: against closed forms, integrals of many digits and grids."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import mpmath
import numpy as np
import pytest

from nacre.differential_privacy.accounting import composition
from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.characteristic import bounds, quadrature
from nacre.differential_privacy.accounting.characteristic.bounds import bounds_of_many
from nacre.differential_privacy.accounting.characteristic.quadrature import (
    DifferentSteps,
    Quadrature,
    quadratures,
)
from nacre.differential_privacy.accounting.composition import epsilon_bounds
from nacre.differential_privacy.accounting.loss_distribution import Step, Unsettled

ONES = [(1.0, 0.01), (0.5, 0.2), (3.0, 0.9), (0.7, 1.0)]  # multiplier, rate


def one_kind(multiplier: float, rate: float, added: bool) -> DifferentSteps:
    return DifferentSteps(np.array([multiplier]), np.array([rate]), np.ones(1), added)


def transform(part: Quadrature, frequency: float) -> complex:
    """phi(order + i t) / phi(order)."""
    return complex((part.weights * np.exp(1j * frequency * part.losses)).sum())


def exact(multiplier: float, rate: float, added: bool, order: float, frequency: float) -> Any:
    """phi(order + i t), by mpmath."""
    square = mpmath.mpf(multiplier) ** 2
    base = mpmath.npdf

    def integrand(x: Any) -> Any:
        w = 1 - rate + rate * mpmath.exp((2 * x - 1) / (2 * square))
        s = order + 1j * frequency
        return base(x, 0, multiplier) * w ** (-s if added else 1 + s)

    far = 12 * multiplier + abs(order) + 1
    return mpmath.quad(integrand, mpmath.linspace(-far, far, 17))


@pytest.mark.diagonal
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(("multiplier", "rate"), ONES)
@pytest.mark.parametrize(("order", "frequency"), [(0.3, 0.0), (4.0, 3.0), (9.0, 20.0)])
def test_transforms_are_as_exact_as_they_say(
    multiplier: float, rate: float, added: bool, order: float, frequency: float
) -> None:
    [part] = quadratures(one_kind(multiplier, rate, added), order, frequency)
    whole = exact(multiplier, rate, added, order, 0.0)
    assert part.cumulants[0] == pytest.approx(
        float(mpmath.log(whole.real)), abs=part.unsure(0.0)[0]
    )
    true = complex(exact(multiplier, rate, added, order, frequency) / whole)
    away = abs(transform(part, frequency) - true)
    assert away <= part.unsure(frequency)[0] < 1e-10


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(("multiplier", "rate"), ONES)
def test_the_error_of_few_points_is_within_its_bound(
    multiplier: float, rate: float, added: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules so coarse that their error can be seen."""
    kinds, order, frequency = one_kind(multiplier, rate, added), 3.0, 2.0
    [fine] = quadratures(kinds, order, frequency)
    seen = 0.0
    for exactness in (2.0, 4.0, 8.0):
        monkeypatch.setattr(quadrature, "_EXACT", exactness)
        [coarse] = quadratures(kinds, order, frequency)
        grown = math.exp(coarse.cumulants[0] - fine.cumulants[0])
        away = abs(transform(coarse, frequency) * grown - transform(fine, frequency))
        assert away <= coarse.unsure(frequency)[0]
        seen = max(seen, away / coarse.unsure(frequency)[0])
    assert seen > 0.05 or multiplier < 3, "for wide noise the bound is near to what happens"


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(("multiplier", "rate"), ONES)
@pytest.mark.parametrize("order", [0.1, 2.0, 12.0])
def test_no_higher_frequency_exceeds_its_bound(
    multiplier: float, rate: float, added: bool, order: float
) -> None:
    kinds = one_kind(multiplier, rate, added)
    [part] = quadratures(kinds, order, 60.0)
    last = math.inf
    for frequency in np.linspace(0.1, 50.0, 30):
        bound = float(np.exp(part.log_at_most(float(frequency))[0]))
        assert bound <= last + part.unsure(float(frequency))[0]
        assert abs(transform(part, float(frequency))) <= bound
        last = bound


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_gaussian_steps_have_a_closed_form(delta: float) -> None:
    steps = [(Step(1.0 + n / 7), 1 + n) for n in range(20)]
    lower, upper = bounds_of_many(steps, delta)
    inverse = sum(times * kind.multiplier**-2 for kind, times in steps)
    truth = gaussian_epsilon(inverse**-0.5, delta)  # itself rounded up
    assert lower <= truth <= upper * (1 + 1e-8)
    assert upper - lower <= 1e-6 * upper


@pytest.mark.parametrize("seed", range(8))
def test_bounds_lie_within_those_of_the_grid(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    z = float(rng.choice([0.6, 1.0, 2.0])) * np.exp(rng.uniform(0, 1.5, 12))
    q = float(rng.choice([0.02, 0.2, 1.0])) * np.exp(-rng.uniform(0, 4, 12))
    times = rng.integers(20, 200, 12)
    kinds = [(Step(float(z[i]), float(q[i])), int(times[i])) for i in range(12)]
    delta = float(10 ** -rng.uniform(3, 8))
    lower, upper = epsilon_bounds(kinds, delta)
    assert upper - lower < 1e-6 * max(upper, 0.05)
    monkeypatch.setattr(composition, "_FEW_KINDS", len(kinds))
    grid = epsilon_bounds(kinds, delta)
    assert grid.lower <= upper <= grid.upper * (1 + 1e-9)
    assert grid.lower * (1 - 1e-9) <= lower


def test_a_thousand_kinds_that_are_one() -> None:
    """What is composed must not depend on how it is written."""
    lower, upper = epsilon_bounds([(Step(1.1, 0.01), 10)] * 1000, 1e-5)
    one = epsilon_bounds([(Step(1.1, 0.01), 10_000)], 1e-5)
    assert one.lower <= lower <= upper <= one.upper


def test_what_a_short_period_adds_is_taken_off() -> None:
    """Every third frequency, or fewer: the sum over the periods grows, and neither bound is moved
    past the truth by it."""
    kinds = DifferentSteps(1 + np.arange(10) / 7, np.full(10, 0.7), np.full(10, 5.0), False)
    order, guess = bounds._saddle_point(kinds, 1e-5)
    curve, seen = bounds._curve(kinds, order, guess), 0
    for fewer in (2, 3, 4, 6):
        thinned = dataclasses.replace(
            curve, frequencies=curve.frequencies[::fewer], values=curve.values[::fewer]
        )
        for epsilon in np.linspace(0.5, 2.0, 16) * guess:
            assert thinned.lower(epsilon) <= curve.upper(epsilon)
            assert thinned.upper(epsilon) >= curve.lower(epsilon)
            seen += thinned._sum(epsilon) - thinned._wrong(epsilon) > 1.01 * curve._sum(epsilon)
    assert seen > 5, "what the periods add can be seen"


def test_many_kinds_are_refused_what_few_are(recwarn: pytest.WarningsRecorder) -> None:
    """An epsilon of a million is none, and a wide multiplier warns of nothing."""
    for number in (8, 9):
        with pytest.raises(Unsettled, match="is none"):
            epsilon_bounds([(Step(1.4 + n / 1000), 500_000) for n in range(number)], 3e-4)
    found = epsilon_bounds([(Step(95.0 + n, 0.5), 10_000) for n in range(10)], 1e-5)
    assert found.upper - found.lower <= 1e-3 * found.upper
    assert not recwarn.list


def test_where_few_steps_decide_the_grid_does() -> None:
    kinds = [(Step(0.4 + n / 1000, 0.001), 3) for n in range(10)]
    with pytest.raises(Unsettled, match="too many"):
        bounds_of_many(kinds, 1e-6)
    found = epsilon_bounds(kinds, 1e-6)
    assert 0 < found.lower < found.upper <= found.lower * (1 + 2e-3)
