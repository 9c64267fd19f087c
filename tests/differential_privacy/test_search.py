"""A search as a mechanism: the price of a draw among mechanisms, and the noise that it takes."""

from __future__ import annotations

import dp_accounting as dp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.errors import Incompatible, UnsupportedEvent
from nacre.data.sampling import AllUnits, Poisson
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve
from nacre.differential_privacy.describe import describe_event
from nacre.differential_privacy.event_types import EitherDpEvent
from nacre.differential_privacy.events import require_priced
from nacre.differential_privacy.group_privacy import group_event
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise
from nacre.differential_privacy.selection.search import Search
from nacre.differential_privacy.selection.trials import Trials
from nacre.gradient_clipping import Flat

BUDGET = Budget(4, 1e-5)


def mechanism(batch: float, steps: int) -> Mechanism:
    return Mechanism(
        unit="example", sampling=Poisson(batch, 1000), clip=Flat(norm=1.0), noise=Gaussian(),
        steps=steps,
    )  # fmt: skip


def search(mean: float = 5, shape: float = 1, deviation: float | None = None) -> Search:
    return Search(trials=Trials(mean=mean, shape=shape), count_deviation=deviation)


@given(
    weights=st.lists(st.floats(0.05, 1.0), min_size=6, max_size=6),
    shifts=st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6),
    order=st.floats(1.05, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_draw_among_mechanisms_loses_no_more_than_the_worst(
    weights: list[float], shifts: list[float], order: float
) -> None:
    """Brute force on two mechanisms of three outputs; what was drawn is seen as well."""
    p = np.array(weights).reshape(2, 3)
    p /= p.sum(1, keepdims=True)
    q = p * np.exp(np.array(shifts).reshape(2, 3))
    q /= q.sum(1, keepdims=True)
    alone = np.log((p**order * q ** (1 - order)).sum(1)) / (order - 1)
    drawn = np.log((p**order * q ** (1 - order)).sum() / 2) / (order - 1)
    mixed = np.log((p.mean(0) ** order * q.mean(0) ** (1 - order)).sum()) / (order - 1)
    assert mixed <= drawn + 1e-12
    assert drawn <= alone.max() + 1e-12


def test_the_curve_is_the_largest_at_each_order() -> None:
    narrow = dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(0.6))
    wide = dp.SelfComposedDpEvent(dp.GaussianDpEvent(8.0), 20)
    one, other = np.array(rdp_curve(narrow)), np.array(rdp_curve(wide))
    assert (one > other).any() and (one < other).any()
    both = np.array(rdp_curve(EitherDpEvent((narrow, wide))))
    assert np.array_equal(both, np.maximum(one, other))
    assert "one of: 1 x Gaussian" in describe_event(EitherDpEvent((narrow, wide)))
    grouped = group_event(EitherDpEvent((narrow, wide)), 2)
    assert isinstance(grouped, EitherDpEvent)
    assert grouped.events == (group_event(narrow, 2), group_event(wide, 2))


def test_a_draw_is_refused_where_a_part_of_it_is() -> None:
    part = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.0))
    inside = Trials(mean=3).event(EitherDpEvent((dp.GaussianDpEvent(1.0), part)))
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        require_priced(inside, "replace_one")
    with pytest.raises(UnsupportedEvent):
        epsilon(EitherDpEvent((part,)), 1e-5, "pld")
    assert epsilon(EitherDpEvent((part, part)), 1e-5).accountant == "rdp"


@pytest.mark.parametrize("deviation", [None, 20.0])
def test_the_whole_search_keeps_within_its_budget(deviation: float | None) -> None:
    mechanisms = [mechanism(batch, steps) for batch in (50, 200) for steps in (10, 100)]
    whole = search(deviation=deviation)
    found = whole.calibrated(mechanisms, BUDGET)
    price = epsilon(whole.event(found), BUDGET.delta, "rdp")
    assert 0.999 * BUDGET.epsilon < price.epsilon <= BUDGET.epsilon
    for one in found:  # each alone costs less than all of them, and more than one trial
        assert epsilon(whole.event([one]), BUDGET.delta, "rdp").epsilon <= price.epsilon
        assert one.price(BUDGET.delta, "rdp").epsilon < 0.8 * BUDGET.epsilon
    if deviation is not None:
        free = search().calibrated(mechanisms, BUDGET)
        noise = [(a.noise.multiplier, b.noise.multiplier) for a, b in zip(found, free, strict=True)]
        assert all(paid > unpaid for paid, unpaid in noise)  # type: ignore[operator]


def test_alternatives_of_one_price_need_no_more_noise_than_one() -> None:
    one = search().calibrated([mechanism(50, 10)], BUDGET)
    assert search().calibrated([mechanism(50, 10)] * 3, BUDGET) == one * 3
    assert search().event(one * 3) == search().event(one)


def test_a_score_is_paid_for_in_every_trial() -> None:
    one = search().calibrated([mechanism(50, 10)], BUDGET)
    event = search(deviation=3.0).event(one)
    rho = 1 / (2 * 3.0**2)
    trial = np.array(rdp_curve(one[0].event())) + rho * np.array(ORDERS)
    law = Trials(mean=5)
    assert rdp_curve(event) == pytest.approx(list(law.curve(ORDERS, trial, ORDERS, trial)))


def test_what_cannot_be_afforded_is_refused() -> None:
    with pytest.raises(Incompatible):
        search(deviation=0.2).calibrated([mechanism(50, 10)], Budget(1, 1e-5))
    silent = Mechanism(
        unit="example",
        sampling=AllUnits(10),
        clip=Flat(norm=1.0),
        noise=NoNoise(because="-"),
        steps=1,
    )
    with pytest.raises(ValueError, match="nothing to calibrate"):
        search().calibrated([silent], BUDGET)
