"""Proven bounds on epsilon against closed forms, exact convolutions and dp-accounting's bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.differential_privacy.accounting import composition, powers
from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.composition import epsilon_bounds
from nacre.differential_privacy.accounting.loss_distribution import Atoms, Step, Unsettled, on_grid
from nacre.differential_privacy.accounting.saddle_point import tilted
from tests.oracles.test_accounting import exact_one_step

pytestmark = pytest.mark.slow

RUNS = [
    (256 / 60_000, 1.1, 14_062, 1e-5),
    (1e-3, 0.6, 100_000, 1e-5),
    (4_096 / 50_000, 3.0, 2_500, 1e-5),
    (1e-4, 0.5, 10_000, 1e-5),
    (0.01, 1.0, 1_000, 1e-9),
    (0.5, 8.0, 1_000, 1e-5),
    (0.1, 1.2, 100, 1e-6),
    (0.25, 0.3, 20, 1e-5),
    (0.9, 0.7, 10, 1e-5),
]  # rate, multiplier, steps, delta


def near(bounds: composition.Bounds) -> bool:
    """Whether the bounds are as close as they promise."""
    return 0 <= bounds.upper - bounds.lower <= 1e-3 * max(bounds.upper, 0.05)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_neither_bound_lies_beyond_those_of_dp_accounting(
    run: tuple[float, float, int, float],
) -> None:
    rate, z, steps, delta = run
    found = epsilon_bounds([(Step(z, rate), steps)], delta)
    assert near(found)
    # Their grid is at most a 10,000th of a unit wide, or a 25,000th of epsilon: as near in both.
    width = 1e-4 if found.upper < 25 else 1e-3
    theirs = [
        pld.from_gaussian_mechanism(
            z,
            sampling_prob=rate,
            value_discretization_interval=width,
            pessimistic_estimate=pessimistic,
            use_connect_dots=pessimistic,
        )
        .self_compose(steps)
        .get_epsilon_for_delta(delta)
        for pessimistic in (False, True)
    ]
    assert found.lower <= theirs[1] and theirs[0] <= found.upper
    assert found.upper <= theirs[1] * (1 + 1e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.4, 30), st.integers(1, 2_000), st.floats(-10, -2))
def test_whole_batches_have_a_closed_form(z: float, steps: int, log_delta: float) -> None:
    truth = gaussian_epsilon(z / math.sqrt(steps), 10**log_delta)
    if truth > 300:
        return
    found = epsilon_bounds([(Step(z), steps)], 10**log_delta)
    assert near(found)
    assert found.lower <= truth * (1 + 1e-8) and truth <= found.upper * (1 + 1e-8)


@settings(max_examples=40, deadline=None)
@given(st.floats(-3.5, -0.02), st.floats(-0.5, 1.2), st.floats(-9, -2))
def test_one_sampled_step_has_a_closed_form(rate: float, z: float, delta: float) -> None:
    step, chance = Step(10**z, 10**rate), 10**delta
    found = epsilon_bounds([(step, 1)], chance)
    truth = exact_one_step(step.rate, step.multiplier, chance)
    assert near(found)
    assert found.lower <= truth + 1e-7 and truth <= found.upper + 1e-7


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-3, 0), st.floats(-0.2, 1), st.integers(1, 3_000)),
        min_size=1,
        max_size=3,
    ),
    st.floats(-9, -3),
)
def test_bounds_meet_for_any_composition(
    parts: list[tuple[float, float, int]], delta: float
) -> None:
    steps = [(Step(10**z, 10**rate), count) for rate, z, count in parts]
    try:
        found = epsilon_bounds(steps, 10**delta)
    except Unsettled:
        assert tilted(steps, 10**delta, added=False).epsilon > 300
        return
    assert near(found)
    more = epsilon_bounds([*steps, (Step(5.0, 0.1), 1)], 10**delta)
    assert more.upper >= found.lower  # one more step never costs less


def test_unlike_steps_compose() -> None:
    delta, width = 1e-6, 5e-4
    steps = [(Step(1.0, 0.1), 30), (Step(0.7, 0.02), 100), (Step(4.0), 3)]
    total = pld.identity(value_discretization_interval=width)
    for step, count in steps:
        one = pld.from_gaussian_mechanism(
            step.multiplier, sampling_prob=step.rate, value_discretization_interval=width
        )
        total = total.compose(one.self_compose(count))
    found = epsilon_bounds(steps, delta)
    assert near(found)
    assert found.lower <= total.get_epsilon_for_delta(delta) <= found.upper * (1 + 1e-3)


@pytest.mark.parametrize(("each", "answers"), [(0.5, 10), (0.1, 200), (2.0, 3), (1e-3, 5_000)])
def test_randomised_responses_are_binomial(each: float, answers: int) -> None:
    """n answers with epsilon e: the loss is (2 k - n) e for a binomial k."""
    likely = 1 / (1 + math.exp(-each))
    atoms = Atoms((each, -each), (likely, 1 - likely))
    logs = [
        math.lgamma(answers + 1) - math.lgamma(k + 1) - math.lgamma(answers - k + 1)
        + k * math.log(likely) + (answers - k) * math.log(1 - likely)
        for k in range(answers + 1)
    ]  # fmt: skip
    losses = np.array([(2 * k - answers) * each for k in range(answers + 1)])

    def delta_at(epsilon: float) -> float:
        return float(np.exp(logs) @ np.maximum(-np.expm1(np.minimum(epsilon - losses, 0)), 0))

    found = epsilon_bounds([(atoms, answers)], 1e-5)
    assert near(found)
    assert delta_at(found.upper) <= 1e-5 * (1 + 1e-6)
    assert found.lower <= 0 or delta_at(found.lower) >= 1e-5 * (1 - 1e-6)


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(("rate", "z"), [(0.01, 0.8), (0.3, 1.0), (0.9, 3.0), (1.0, 1.0)])
@pytest.mark.parametrize("width", [0.3, 0.02, 1e-3])
def test_a_step_on_the_grid_lies_above_the_step(
    added: bool, rate: float, z: float, width: float
) -> None:
    """At every epsilon, not at one; and at grid points by no more than what is cut off."""
    x = np.linspace(-12 * z, 1 + 12 * z, 400_001)
    plain = np.exp(-((x / z) ** 2) / 2) / (z * math.sqrt(2 * math.pi))
    moved = np.exp(-(((x - 1) / z) ** 2) / 2) / (z * math.sqrt(2 * math.pi))
    mixed = (1 - rate) * plain + rate * moved
    first, second = (plain, mixed) if added else (mixed, plain)
    found = on_grid(Step(z, rate), width, added, 1e-12)
    losses = (found.first + np.arange(len(found.masses))) * width
    for value in (-1.0, -3 * width, -0.003, 0.0, 0.004, width, 0.4, 10 * width, 3.0):
        truth = float(np.maximum(first - math.exp(value) * second, 0).sum() * (x[1] - x[0]))
        gains = np.maximum(-np.expm1(np.minimum(value - losses, 0)), 0)
        delta = float(found.masses @ gains) + found.lost
        assert truth <= delta + 2e-8
        if value in (0.0, width):
            assert delta <= truth + 2e-8


def test_rounding_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With coarser doubles the bounds move apart, never past each other."""
    steps = [(Step(1.0, 0.01), 1_000)]
    tilt = tilted(steps, 1e-5, added=False)
    fine = composition._bounds(steps, 1e-5, tilt, False, 1e-4)
    for module in (composition, powers):
        monkeypatch.setattr(module, "UNIT", 1e-13)
    coarse = composition._bounds(steps, 1e-5, tilt, False, 1e-4)
    assert coarse.lower < fine.lower <= fine.upper < coarse.upper


def test_what_no_grid_holds_is_refused() -> None:
    with pytest.raises(Unsettled, match="epsilon of about"):
        epsilon_bounds([(Step(0.5, 0.5), 5_000)], 1e-5)
    with pytest.raises(Unsettled, match="points"):
        on_grid(Step(1.0, 0.5), 1e-7, False, 1e-12)
    with pytest.raises(Unsettled, match="points"):
        on_grid(Atoms((5.0, -5.0), (0.9, 0.1)), 1e-7, False, 1e-12)
