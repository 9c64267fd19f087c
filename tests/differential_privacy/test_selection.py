"""Private selection: its price against brute force on tiny mechanisms, and against others' code."""

from __future__ import annotations

import itertools
import math

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.errors import UnsupportedEvent
from nacre.core.random import Source
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, rdp_epsilon, zcdp_rho
from nacre.differential_privacy.describe import describe_event
from nacre.differential_privacy.events import require_priced
from nacre.differential_privacy.group_privacy import group_event
from nacre.differential_privacy.leaves import pure_event
from nacre.differential_privacy.selection.trials import Trials, best

SHAPES = [-0.5, 0.0, 0.5, 1.0, 3.0, math.inf]
KNOWN = ORDERS[::8]
ASKED = [1.1, 1.5, 2.0, 4.0, 16.0, 64.0]
TRIAL = dp.SelfComposedDpEvent(dp.GaussianDpEvent(5.0), 4)


def divergence(p: np.ndarray, q: np.ndarray, order: float) -> float:
    """The larger Rényi divergence of two ways; both have full support."""
    log_p, log_q = np.log(p), np.log(q)
    ways = [order * a + (1 - order) * b for a, b in ((log_p, log_q), (log_q, log_p))]
    return max(float(np.logaddexp.reduce(way)) for way in ways) / (order - 1)


def handed_on(trial: np.ndarray, trials: Trials) -> np.ndarray:
    """The law of the best of K outputs, by the law of K alone: K = 0 is an outcome of its own."""
    chances = np.array(list(itertools.islice(trials.chances(), 3000)))
    at_most = np.concatenate([[0.0], np.cumsum(trial)])
    moments = np.power(np.minimum(at_most, 1.0)[:, None], np.arange(3000)[None, :])[:, 1:]
    found = np.diff(moments @ chances[1:])
    return np.append(found, chances[0]) if chances[0] else found


@pytest.mark.parametrize("shape", SHAPES)
@given(
    weights=st.lists(st.floats(0.02, 1.0), min_size=3, max_size=3),
    shifts=st.lists(st.floats(-0.7, 0.7), min_size=3, max_size=3),
    mean=st.floats(1.2, 6.0),
)
@settings(max_examples=20, deadline=None)
def test_no_tiny_mechanism_loses_more_than_the_curve(
    shape: float, weights: list[float], shifts: list[float], mean: float
) -> None:
    p = np.array(weights) / sum(weights)
    q = p * np.exp(shifts)
    q = q / q.sum()
    trials = Trials(mean=mean, shape=shape)
    curve = trials.curve(
        ASKED, [divergence(p, q, a) for a in ASKED],
        KNOWN, [divergence(p, q, a) for a in KNOWN],
    )  # fmt: skip
    real = [divergence(handed_on(p, trials), handed_on(q, trials), a) for a in ASKED]
    assert all(r <= c + 1e-9 for r, c in zip(real, curve, strict=True))


def test_few_trials_by_poisson_never_cost_less_than_they_reveal() -> None:
    # Without the outcome K = 0 the bound would fall below zero here.
    p, q = np.array([0.5, 0.5]), np.array([0.6, 0.4])
    trials = Trials(mean=0.05, shape=math.inf)
    one = [divergence(p, q, 2.0)]
    curve = trials.curve([2.0], one, [2.0], one)
    assert 0 < divergence(handed_on(p, trials), handed_on(q, trials), 2.0) <= curve[0]


@pytest.mark.parametrize("shape", [0.0, 0.5, 1.0, 5.0, math.inf])
@pytest.mark.parametrize("mean", [1.5, 10.0, 100.0])
def test_prices_are_those_of_dp_accounting(shape: float, mean: float) -> None:
    event = Trials(mean=mean, shape=shape).event(TRIAL)
    theirs = rdp.RdpAccountant(orders=list(ORDERS))
    theirs.compose(event)
    for delta in (1e-5, 1e-8):
        mine = rdp_epsilon(rdp_curve(event), ORDERS, delta)
        assert mine == pytest.approx(theirs.get_epsilon(delta), rel=1e-6)


@pytest.mark.parametrize("shape", [-0.5, 0.0, 1.0])
def test_pure_epsilon_is_paid_two_plus_shape_times(shape: float) -> None:
    # Papernot & Steinke 2022, corollary 3: what is eps-private once costs (2 + eta) eps.
    event = Trials(mean=10.0, shape=shape).event(pure_event(0.3))
    assert rdp_curve(event, [1e9])[0] == pytest.approx((2 + shape) * 0.3, rel=1e-3)


def test_a_search_costs_more_than_a_trial_and_less_than_all_of_them() -> None:
    one = epsilon(TRIAL, 1e-5, "rdp").epsilon
    all_ten = epsilon(dp.SelfComposedDpEvent(TRIAL, 10), 1e-5, "rdp").epsilon
    for shape in (0.0, 1.0, math.inf):
        assert one < epsilon(Trials(mean=10, shape=shape).event(TRIAL), 1e-5).epsilon < all_ten


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1.01, 3.0, 20.0])
def test_the_chances_are_a_law_with_this_mean(shape: float, mean: float) -> None:
    chances = list(itertools.islice(Trials(mean=mean, shape=shape).chances(), 60_000))
    assert min(chances) >= 0
    assert sum(chances) == pytest.approx(1, abs=1e-9)
    assert sum(k * c for k, c in enumerate(chances)) == pytest.approx(mean, rel=1e-8)


def test_the_geometric_law_by_its_own_formula() -> None:
    chances = list(itertools.islice(Trials(mean=4.0, shape=1.0).chances(), 5))
    assert chances == pytest.approx([0.0, 0.25, 0.1875, 0.140625, 0.10546875])


def test_drawn_numbers_follow_the_law_and_repeat() -> None:
    trials, root = Trials(mean=3.0, shape=0.0), Source(bytes(32))
    drawn = [trials.draw(root.child(i)) for i in range(4000)]
    assert drawn == [trials.draw(root.child(i)) for i in range(4000)]
    counts = np.bincount(drawn, minlength=8)
    expected = np.array(list(itertools.islice(trials.chances(), 6))) * 4000
    assert counts[0] == 0
    squares = (counts[1:6] - expected[1:]) ** 2 / expected[1:]
    assert squares.sum() < 25.7  # chi-square, 5 degrees: exceeded once in 10,000 keys


def test_how_long_a_search_may_take() -> None:
    trials = Trials(mean=4.0, shape=1.0)
    assert [trials.at_most(chance) for chance in (0.24, 0.26)] == [1, 2]
    assert trials.at_most(0.99) == math.ceil(math.log(0.01) / math.log(0.75))
    with pytest.raises(ValueError, match="chance=1"):
        trials.at_most(1.0)
    assert trials.at_most(1 - 2**-53) > 100  # where the sum of doubles stays below the chance


@pytest.mark.parametrize(
    ("mean", "shape", "message"),
    [
        (1.0, 1.0, "mean=1.0 must be > 1"),
        (0.0, math.inf, "mean=0.0 must be > 0"),
        (math.inf, 1.0, "finite"),
        (math.nan, 1.0, "mean=nan"),
        (3.0, -1.0, "shape=-1.0"),
        (3.0, math.nan, "shape=nan"),
        (1e6, -0.999, "out of reach"),
    ],
)
def test_laws_that_do_not_exist(mean: float, shape: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trials(mean=mean, shape=shape)


def test_arguments_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="no gamma"):
        _ = Trials(mean=3.0, shape=math.inf).log_gamma
    with pytest.raises(ValueError, match="orders"):
        Trials(mean=3.0).curve([1.0], [0.1], [2.0], [0.2])


def test_a_search_is_priced_by_its_curve_and_by_nothing_else() -> None:
    event = Trials(mean=3.0).event(TRIAL)
    assert epsilon(event, 1e-5).accountant == "rdp"
    for refused in (lambda: zcdp_rho(event), lambda: epsilon(event, 1e-5, "pld")):
        with pytest.raises(UnsupportedEvent):
            refused()


def test_groups_and_adjacency_reach_into_the_trials() -> None:
    search = Trials(mean=3.0)
    grouped = group_event(search.event(dp.GaussianDpEvent(6.0)), 3)
    assert grouped == search.event(dp.GaussianDpEvent(2.0))
    sampled = search.event(dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.0)))
    require_priced(sampled, "add_or_remove")
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        require_priced(sampled, "replace_one")
    assert "best of about 3 trials" in describe_event(sampled)


def test_trials_without_protection_make_a_search_without_protection() -> None:
    curve = rdp_curve(Trials(mean=3.0).event(dp.NonPrivateDpEvent()), [2.0])
    assert curve == [math.inf]


def test_the_best_trial() -> None:
    with pytest.raises(ValueError, match="there is no trial"):
        best([])
    assert best([0.1, 0.5, 0.5]) == 1
    assert best([math.nan, -3.0]) == 1
    assert best([math.nan, math.nan]) == 0
