"""Laws of proven bounds on epsilon: they bracket each other whatever the grid, and move with noise,
rate and steps as the truth must."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.differential_privacy.accounting import loss_distribution, price
from nacre.differential_privacy.accounting.allocation import Allocated
from nacre.differential_privacy.accounting.composition import (
    CountedSteps,
    epsilon_bounds,
    epsilon_near,
)
from nacre.differential_privacy.accounting.loss_distribution import (
    Atoms,
    LossKind,
    Replaced,
    Step,
    Unsettled,
    on_grid,
)
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, rdp_epsilon

rates = st.floats(0.01, 1.0)
multipliers = st.floats(0.6, 8.0)
counts = st.integers(1, 1_000)
deltas = st.sampled_from([1e-3, 1e-5, 1e-9])
some = settings(max_examples=15, deadline=None)


@pytest.mark.slow
@given(rate=rates, z=multipliers, count=counts, delta=deltas)
@some
def test_lower_lies_below_upper_however_fine_the_grid(
    rate: float, z: float, count: int, delta: float
) -> None:
    steps = [(Step(z, rate), count)]
    fine, coarse = (epsilon_bounds(steps, delta, gap) for gap in (1e-3, 4e-2))
    for low in (fine.lower, coarse.lower):
        for high in (fine.upper, coarse.upper):
            assert low <= high


@pytest.mark.slow
@given(rate=st.floats(0.01, 0.9), z=multipliers, count=counts, delta=deltas)
@some
def test_bounds_move_with_noise_rate_steps_and_delta(
    rate: float, z: float, count: int, delta: float
) -> None:
    lower, upper = epsilon_bounds([(Step(z, rate), count)], delta)
    for less in (Step(z * 1.2, rate), Step(z, rate * 0.8)):
        assert epsilon_bounds([(less, count)], delta).lower <= upper
    answers = Atoms((0.1, -0.1), (0.524979187478940, 0.475020812521060))
    for more in (
        [(Step(z, rate), count + 1)],
        [(Step(z, min(1.0, rate * 1.1)), count)],
        [(Step(z, rate), count), (answers, 2)],
    ):
        assert lower <= epsilon_bounds(more, delta).upper
    assert lower <= epsilon_bounds([(Step(z, rate), count)], delta / 2).upper


@pytest.mark.parametrize(
    ("steps", "delta"),
    [
        ([(Step(1.1, 256 / 60000), 14062)], 1e-5),
        ([(Step(0.5, 1e-4), 10_000)], 1e-5),
        ([(Step(0.45, 1e-4), 10_000)], 1e-5),
        ([(Step(0.3, 1e-3), 100)], 1e-5),
        ([(Step(40.0), 3000)], 1e-6),
        ([(Replaced(2.0, 0.1), 100), (Step(3.0, 0.01), 500)], 1e-6),
    ],
    ids=str,
)
def test_guesses_lie_near_the_tight_bound(steps: CountedSteps, delta: float) -> None:
    tight = epsilon_bounds(steps, delta).upper
    assert epsilon_near(steps, delta, tight) == pytest.approx(tight, rel=5e-4)
    for aim in (tight / 4, tight * 4):  # far from what is looked for: which way, and how far
        assert epsilon_near(steps, delta, aim) == pytest.approx(tight, rel=0.15)


def test_what_a_guess_may_not_say_is_said_by_bounds() -> None:
    many = [(Step(1.0 + n, 0.01), 5) for n in range(9)]
    for steps in (many, [(Allocated(4, 2.0, 1e-12), 3)]):
        with pytest.raises(Unsettled):
            epsilon_near(steps, 1e-6, 1.0)


def test_noise_is_searched_by_guesses_and_proven_by_one_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))
    asked: list[float] = []
    bounds = price.epsilon_bounds

    def counted(steps: CountedSteps, delta: float, gap: float) -> price.Bounds:
        asked.append(gap)
        return bounds(steps, delta, gap)

    def event_of(z: float) -> dp.DpEvent:
        step = dp.PoissonSampledDpEvent(1e-4, dp.GaussianDpEvent(z))
        return dp.SelfComposedDpEvent(step, 10_000)

    monkeypatch.setattr(price, "epsilon_bounds", counted)
    z, found = price.calibrate(event_of, 1.0, 1e-5)
    assert 1 - price.TOLERANCE < found.epsilon <= 1
    assert found.lower is not None and found.epsilon - found.lower <= 1e-3
    assert len(asked) <= 2
    assert bounds([(Step(z * 0.999, 1e-4), 10_000)], 1e-5).upper > 1


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(
    ("kind", "width"),
    [(Step(0.5, 1e-4), 5e-4), (Step(3.0, 0.3), 1e-4), (Replaced(1.0, 0.02), 1e-3)],
)
def test_cells_whose_tails_are_not_computed_have_the_same_masses(
    kind: LossKind, width: float, added: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = on_grid(kind, width, added, 1e-13)
    monkeypatch.setattr(loss_distribution, "_TAILS", 0.0)
    monkeypatch.setattr(loss_distribution, "_BLOCK", 1 << 30)
    slow = on_grid(kind, width, added, 1e-13)
    assert fast.masses.tobytes() == slow.masses.tobytes()
    assert replace(fast, masses=slow.masses) == slow


@pytest.mark.parametrize(
    ("rate", "z", "count", "delta"),
    [(0.6015625, 0.55, 820, 1e-3), (0.5, 0.6, 500, 1e-2), (0.6, 0.4, 300, 1e-5)],
)
def test_epsilons_of_hundreds_have_bounds_too(
    rate: float, z: float, count: int, delta: float
) -> None:
    """Where the tilt has an order below 0.5: a guess from there was three times too high."""
    lower, upper = epsilon_bounds([(Step(z, rate), count)], delta)
    assert 250 < lower <= upper < lower * 1.001


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "z", "count", "delta", "least"),
    [(1e-6, 1.0, 1, 1e-15, 5e-4), (1e-3, 1.0, 10, 1e-12, 0.523), (1e-5, 1.0, 100, 1e-12, 0.0)],
)
def test_what_does_not_settle_has_an_upper_bound_all_the_same(
    rate: float,
    z: float,
    count: int,
    delta: float,
    least: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dp_accounting as dp

    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))

    with pytest.raises(Unsettled) as told:
        epsilon_bounds([(Step(z, rate), count)], delta)
    event = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z)), count)
    renyi = rdp_epsilon(rdp_curve(event), ORDERS, delta)
    assert least <= told.value.upper < renyi
    assert price.epsilon(event, delta, "pld").epsilon == told.value.upper


@pytest.mark.parametrize("rate", [0.01, 0.5])
@pytest.mark.parametrize("z", [0.7, 2.0])
@pytest.mark.parametrize("count", [1, 300])
def test_no_bound_lies_above_the_renyi_price(rate: float, z: float, count: int) -> None:
    import dp_accounting as dp

    step = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(z))
    curve = rdp_curve(dp.SelfComposedDpEvent(step, count))
    upper = epsilon_bounds([(Step(z, rate), count)], 1e-5).upper
    assert upper <= rdp_epsilon(curve, ORDERS, 1e-5) * 1.001


def test_the_order_of_steps_does_not_matter() -> None:
    steps = [(Step(1.0, 0.1), 20), (Step(0.7, 0.02), 50), (Step(6.0), 2)]
    forward, backward = epsilon_bounds(steps, 1e-6), epsilon_bounds(steps[::-1], 1e-6)
    assert forward == pytest.approx(backward, rel=1e-9)
    split = [(Step(1.0, 0.1), 13), (Step(1.0, 0.1), 7), *steps[1:]]
    assert forward == pytest.approx(epsilon_bounds(split, 1e-6), rel=1e-9)
