"""Noise in shares: the law of the sum, and its price against exact divergences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2

from nacre.core.errors import BadArgument
from nacre.core.random import Source
from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.noise.shares import NoiseShares

ROOT = Source(bytes(range(32)))
ORDERS = (1.001, 1.5, 2.0, 5.0, 20.0, 60.0)


def log_law(variance: float, shares: int, reach: int) -> np.ndarray:
    """(2 reach + 1,) log chances of the sum of some discrete Gaussians on -reach … reach, by
    convolution one after the other."""
    x = np.arange(-reach, reach + 1)
    one = -(x**2) / (2 * variance)
    one -= logsumexp(one)
    total = one
    for _ in range(shares - 1):
        wide = np.full(4 * reach + 1, -np.inf)
        wide[reach : 3 * reach + 1] = total
        windows = np.lib.stride_tricks.sliding_window_view(wide, 2 * reach + 1)
        total = logsumexp(windows + one[::-1], axis=1)
    return total


def divergence(law: np.ndarray, moved: int, order: float) -> float:
    """Of the law moved by some whole number from the law itself."""
    moved = abs(moved)
    if moved == 0:
        return 0.0
    here, there = law[moved:], law[: len(law) - moved]
    return float(logsumexp(order * there + (1 - order) * here)) / (order - 1)


@pytest.mark.parametrize(("variance", "count"), [(0.3, 4), (1.0, 3), (6.25, 5)])
def test_the_sum_of_shares_has_the_law_of_the_convolution(variance: float, count: int) -> None:
    part = NoiseShares(variance=variance, shares=count, dimension=40_000, sensitivity=1.0)
    total = np.sum([part.drawn(ROOT.child("share", n)) for n in range(count)], axis=0)
    law = np.exp(log_law(variance, count, 80))
    x = np.arange(-80, 81)
    seen = np.array([(total == value).sum() for value in x])
    often = law * part.dimension >= 5
    expected = law[often] * part.dimension
    square = ((seen[often] - expected) ** 2 / expected).sum()
    assert chi2.sf(square, int(often.sum())) > 1e-5
    assert abs(total.mean()) < 5 * part.deviation / math.sqrt(part.dimension)
    exact = float((law * x**2).sum())
    assert (total.astype(float) ** 2).mean() == pytest.approx(exact, rel=0.05)
    assert 0.86 * part.deviation**2 < exact <= part.deviation**2 * (1 + 1e-12)


@pytest.mark.parametrize("variance", [0.25, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shares", [2, 3, 6])
def test_a_sum_of_shares_is_as_near_to_a_discrete_gaussian_as_tau_says(
    variance: float, shares: int
) -> None:
    reach = 60
    near = math.ceil(6 * math.sqrt(shares * variance))  # farther out digits are lost
    middle = slice(reach - near, reach + near + 1)
    off = log_law(variance, shares, reach) - log_law(shares * variance, 1, reach)
    tau = NoiseShares(variance=variance, shares=shares, dimension=1, sensitivity=1.0).tau
    assert np.abs(off[middle]).max() <= tau / 2 + 1e-12
    if variance == 0.25:  # and is not so near by orders of magnitude
        assert np.abs(off[middle]).max() > tau / 20


@pytest.mark.parametrize("variance", [0.25, 0.4, 1.0, 4.0])
@pytest.mark.parametrize("shares", [1, 2, 4])
@pytest.mark.parametrize("moved", [(1,), (3,), (1, 1, 1), (2, 1, 0, 1)])
def test_the_price_is_above_the_exact_divergence_and_near_it(
    variance: float, shares: int, moved: tuple[int, ...]
) -> None:
    law = log_law(variance, shares, 400)
    length = math.sqrt(sum(q**2 for q in moved))
    part = NoiseShares(variance=variance, shares=shares, dimension=len(moved), sensitivity=length)
    for order in ORDERS:
        if order * max(moved) > 350:  # the mass of the sum would lie outside
            continue
        exact = sum(divergence(law, q, order) for q in moved)
        assert exact <= part.rho * order * (1 + 1e-9)
        if variance >= 1.0:
            assert exact >= part.rho * order * 0.99


@pytest.mark.parametrize(("variance", "shares", "moved"), [(0.3, 3, 1), (1.0, 4, 3), (4.0, 2, 1)])
def test_the_epsilon_is_above_the_exact_one(variance: float, shares: int, moved: int) -> None:
    law = np.exp(log_law(variance, shares, 200))
    part = NoiseShares(variance=variance, shares=shares, dimension=1, sensitivity=float(moved))
    for delta in (1e-2, 1e-5):
        priced = epsilon(part.event(), delta).epsilon
        here, there = law[moved:], law[:-moved]
        lost = np.maximum(there - math.exp(priced) * here, 0).sum()
        assert lost <= delta
        if variance >= 1.0:
            assert priced <= 1.3 * gaussian_epsilon(part.deviation / moved, delta)


def test_fine_shares_cost_what_one_gaussian_of_zcdp_costs() -> None:
    part = NoiseShares.of(1.3, shares=80, dimension=1_000_000, sensitivity=2.0**16)
    assert part.deviation == pytest.approx(1.3 * 2**16, rel=1e-9)
    assert part.rho == pytest.approx(1 / (2 * 1.3**2), rel=1e-9)
    assert part.rho >= 1 / (2 * 1.3**2) * (1 - 2e-12)


def test_each_of_the_two_bounds_is_the_smaller_one_somewhere() -> None:
    def lines(part: NoiseShares) -> tuple[float, float]:
        apart = part.sensitivity**2 / part.deviation**2
        one = apart + 2 * part.tau * part.dimension
        total = min(math.sqrt(part.dimension) * part.sensitivity, part.sensitivity**2)
        rest = part.tau**2 * part.dimension
        return one / 2, (apart + 2 * part.tau * total / part.deviation + rest) / 2

    first = NoiseShares(variance=0.5, shares=10, dimension=4, sensitivity=40.0)
    second = NoiseShares(variance=1.0, shares=10, dimension=10**6, sensitivity=10.0)
    assert lines(first)[0] < lines(first)[1]
    assert lines(second)[1] < lines(second)[0]
    for part in (first, second):
        assert part.rho == pytest.approx(min(lines(part)), rel=1e-9)


def test_more_noise_more_shares_and_fewer_entries_cost_less() -> None:
    def rho(**changed: float) -> float:
        facts = {"variance": 0.6, "shares": 5, "dimension": 20, "sensitivity": 2.0}
        return NoiseShares(**{**facts, **changed}).rho  # type: ignore[arg-type]

    assert rho(variance=0.8) < rho() < rho(dimension=40)
    assert rho(shares=6) < rho() < rho(sensitivity=2.1)


@pytest.mark.parametrize(("variance", "parties"), list(itertools.product((0.5, 9.0), (1, 6))))
def test_no_entry_reaches_farther(variance: float, parties: int) -> None:
    part = NoiseShares(variance=variance, shares=1, dimension=50, sensitivity=1.0)
    law = np.exp(log_law(variance, parties, 200))
    x = np.arange(-200, 201)
    for chance in (0.1, 1e-6):
        reach = part.reach(parties, chance)
        assert 50 * law[np.abs(x) > reach].sum() <= chance
        assert reach < 8 * math.sqrt(parties * variance) + 1


def test_shares_are_keyed_by_their_source_alone() -> None:
    part = NoiseShares(variance=9.0, shares=3, dimension=64, sensitivity=1.0)
    again = NoiseShares(variance=9.0, shares=2, dimension=64, sensitivity=5.0)
    assert (part.drawn(ROOT.child("a")) == again.drawn(ROOT.child("a"))).all()
    assert (part.drawn(ROOT.child("a")) != part.drawn(ROOT.child("b"))).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shares": 0}, "nobody is left"),
        ({"dimension": 0}, "dimension=0"),
        ({"sensitivity": math.nan}, "sensitivity=nan"),
        ({"sensitivity": math.inf}, "sensitivity=inf"),
        ({"variance": 0.249}, "between 1/4"),
        ({"variance": math.nan}, "between 1/4"),
        ({"variance": 2.0**81}, "between 1/4"),
    ],
)
def test_numbers_without_a_price(changed: dict[str, float], message: str) -> None:
    facts = {"variance": 1.0, "shares": 2, "dimension": 3, "sensitivity": 1.0}
    with pytest.raises(BadArgument, match=message):
        NoiseShares(**{**facts, **changed})  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="nobody is left"):
        NoiseShares.of(1.0, shares=0, dimension=1, sensitivity=1.0)
    with pytest.raises(BadArgument, match="chance=0"):
        NoiseShares(**facts).reach(2, 0.0)  # type: ignore[arg-type]
