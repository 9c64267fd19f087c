"""Prices that keep rare large losses apart: against exact divergences and the other accountant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from nacre.differential_privacy.accounting import jumps, powers
from nacre.differential_privacy.accounting.composition import epsilon_bounds
from nacre.differential_privacy.accounting.jumps import upper_by_jumps
from nacre.differential_privacy.accounting.loss_distribution import (
    Step,
    Unsettled,
    above,
    part_on_grid,
)

GAP = 1e-3


def by_jumps(steps: list[tuple[Step, int]], delta: float) -> float:
    removed = upper_by_jumps(steps, delta, False, GAP)
    return max(removed, upper_by_jumps(steps, delta, True, GAP, removed))


@pytest.mark.parametrize(
    ("rate", "multiplier", "steps", "delta", "slack"),
    [
        (1e-3, 0.6, 100_000, 1e-5, 1e-3),
        (1e-4, 0.5, 10_000, 1e-5, 2e-3),
        (0.01, 1, 1000, 1e-9, 3e-3),
    ],
)
def test_where_both_settle_they_agree(
    rate: float, multiplier: float, steps: int, delta: float, slack: float
) -> None:
    bounds = epsilon_bounds([(Step(multiplier, rate), steps)], delta)
    found = by_jumps([(Step(multiplier, rate), steps)], delta)
    assert bounds.lower <= found <= bounds.upper * (1 + slack)


@pytest.mark.parametrize(
    ("rate", "multiplier", "steps", "delta", "least", "most"),
    [
        # dp-accounting 0.6: 0.0723 on a grid of 1e-5 (69 s), 0.165 on one of 1e-4
        (1e-6, 0.6, 10**7, 1e-8, 0.06, 0.0723),
        # dp-accounting 0.6, pessimistic on a grid of 1e-4: 7.0374
        (1e-6, 0.3, 10**6, 1e-6, 7.03, 7.045),
    ],
)
def test_rates_of_one_in_a_million(
    rate: float, multiplier: float, steps: int, delta: float, least: float, most: float
) -> None:
    assert least <= by_jumps([(Step(multiplier, rate), steps)], delta) <= most


def test_wide_noise_is_the_gaussian_limit() -> None:
    """Many steps of tiny loss are one Gaussian of multiplier 1 / (rate sqrt(T (e^(1/z^2) - 1)))."""
    rate, z, steps, delta = 1e-4, 1000.0, 10**6, 1e-9
    from nacre.differential_privacy.accounting.analytic import gaussian_epsilon

    limit = gaussian_epsilon(1 / (rate * math.sqrt(steps * math.expm1(z**-2))), delta)
    assert limit * (1 - 1e-4) <= by_jumps([(Step(z, rate), steps)], delta) <= limit * 1.005


def test_several_kinds_lie_above_their_bounds_and_near() -> None:
    kinds = [(Step(0.8 + n / 8, 0.005 + n / 1600), 250) for n in range(8)]
    bounds = epsilon_bounds(kinds, 1e-5)
    assert bounds.lower > 0
    assert bounds.lower <= by_jumps(kinds, 1e-5) <= bounds.upper * 1.01


def merged(step: Step, times: int, delta: float, most: float) -> float:
    """An epsilon that is certainly spent: what an observer is left with who sees of each step only
    whether its loss is large, and of a large one a cell, is post-processing of the run.

    Losses are rounded down to a grid, and what is left out is no mass, so all errors are down.
    """
    rate, z = step.rate, step.multiplier

    def tails(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mass above each loss, with the unit and without."""
        x = z**2 * np.log1p(np.expm1(losses) / rate) + 0.5
        return (1 - rate) * ndtr(-x / z) + rate * ndtr((1 - x) / z), ndtr(-x / z)

    found = 0.0
    for expected in (0.1, 1.0, 5.0):
        tried = np.geomspace(1e-9, 50, 4000)
        start = float(tried[np.argmax(times * tails(tried)[0] <= expected)])
        edges = np.geomspace(start, start + 1.5 * most, 2000)
        p, q = (np.append(-np.diff(tail), tail[-1]) for tail in tails(edges))
        p, q = p[(p > 1e-200) & (q > 1e-200)], q[(p > 1e-200) & (q > 1e-200)]
        none = math.log1p(-p.sum()) - math.log1p(-q.sum())
        size, width = 4096, (start + 1.5 * most) / 4096
        places = np.clip(np.floor((np.log(p / q) - none) / width), 0, size - 1).astype(int)
        law = np.bincount(places, p, size)
        weight, power = math.exp(times * math.log1p(-p.sum())), np.eye(1, size)[0]
        masses = weight * power
        for k in range(1, int(4 * expected) + 12):
            grown = np.convolve(power, law)
            power = grown[:size].copy()
            power[-1] += grown[size:].sum()
            weight *= (times - k + 1) / k / (1 - p.sum())
            masses += weight * power
        losses = np.arange(size) * width + times * none
        for epsilon in np.linspace(found, most, 400):
            over = losses > epsilon
            if masses[over] @ -np.expm1(epsilon - losses[over]) * (1 - 1e-9) >= delta:
                found = float(epsilon)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_no_bound_lies_below_what_is_certainly_spent(seed: int) -> None:
    """In the whole region where jumps answer, and not a fifth above it."""
    rng = np.random.default_rng(seed)
    rate, z = 10 ** rng.uniform(-6.5, -2.6), float(rng.choice([0.25, 0.3, 0.4, 0.5]))
    times = int(min(10 ** rng.uniform(2.5, 6.5), 5 / rate))
    delta = float(rng.choice([1e-5, 1e-6, 1e-8]))
    bound = upper_by_jumps([(Step(z, rate), times)], delta, False, GAP)
    spent = merged(Step(z, rate), times, delta, 1.2 * bound)
    assert 0.8 * bound <= spent <= bound, (rate, z, times, delta)


def test_jumps_answer_only_where_they_were_held_against_other_bounds() -> None:
    """One rate in fifty thousand was priced 0 by them at a multiplier of 0.1."""
    rate = 0.0001142055119535939
    with pytest.raises(Unsettled) as told:
        epsilon_bounds([(Step(0.1, rate), 1000)], 1e-5)
    assert told.value.upper == math.inf
    many = [(Step(0.9 + n / 100, 0.01), 10) for n in range(70)]
    assert epsilon_bounds(many, 1e-5).lower > 0, "many kinds go another way"


def test_powers_are_repeated_sums() -> None:
    """Against sums without a Fourier transform, within the error that is stated."""
    drawn = np.random.default_rng(0).random((3, 50)) ** 3
    masses = drawn / drawn.sum(1, keepdims=True)
    direct = np.ones(1)
    for row, number in zip(masses[:3], (2, 3, 1), strict=True):
        for _ in range(number):
            direct = np.convolve(direct, row)
    found = powers.power(-7, masses[:3], np.array([2.0, 3.0, 1.0]), 512)
    placed = np.roll(found.masses, found.first + 7 * 6)[: len(direct)]
    assert abs(placed - direct).max() <= found.error


def test_parts_of_a_step_keep_both_masses() -> None:
    """P's and Q's mass below and above a threshold; the jumps' and the rest's are all."""
    step, width, cut = Step(0.8, 0.02), 1e-3, 0.05
    low = part_on_grid(step, width, False, math.log1p(-0.02), cut)
    high = part_on_grid(step, width, False, cut, 12.0, cut, gathered=False)
    p, q = above(step, cut)
    losses = (low.first + np.arange(len(low.masses))) * width
    assert low.masses.sum() == pytest.approx(1 - p, rel=1e-9)
    assert low.masses @ np.exp(-losses) == pytest.approx(1 - q, rel=1e-9)
    beyond = cut + np.arange(len(high.masses)) * width
    assert high.masses.sum() == pytest.approx(p, rel=1e-6)
    assert high.masses @ np.exp(-beyond) == pytest.approx(q, rel=1e-6)


@pytest.mark.parametrize(("rate", "added"), [(0.0001142055119535939, False), (0.02, True)])
def test_no_loss_is_moved_down(rate: float, added: bool) -> None:
    """Of the first rate the least loss rounds to an outcome where half of the mass lies below; of
    the second some mass lies below the floor. Q's mass on the grid is at most the true one."""
    step, width = Step(0.1, rate), 1e-3
    assert added or math.isfinite(step.outcome(np.array([math.log1p(-rate)]))[0])
    ends = (-0.0123, -math.log1p(-rate)) if added else (math.log1p(-rate), 0.05)
    found = part_on_grid(step, width, added, *ends)
    losses = (found.first + np.arange(len(found.masses))) * width
    p, q = above(step, -ends[0] if added else ends[1])
    most = 1.0 if added else 1 - q  # where the unit is added, all of Q
    assert found.masses.sum() == pytest.approx(1.0 if added else 1 - p, abs=1e-12)
    assert found.masses @ np.exp(-losses) <= most + 1e-12


@pytest.mark.parametrize("steps", [100, 1000])
def test_a_rate_whose_least_loss_rounds_costs_what_its_neighbour_does(steps: int) -> None:
    rate = 0.0001142055119535939
    one, other = (
        upper_by_jumps([(Step(0.1, q), steps)], 1e-5, False, GAP) for q in (rate, rate * (1 - 1e-9))
    )
    assert one == pytest.approx(other, rel=1e-3)
    assert one > 90


def test_what_is_no_number_is_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that is nan does not pass for one below delta."""
    monkeypatch.setattr(jumps.Curve, "at", lambda _, e: np.full(np.shape(e), math.nan))
    with pytest.raises(Unsettled):
        upper_by_jumps([(Step(2.0, 1e-2), 1000)], 1e-6, False, GAP)
