"""Laws of every event: how its price moves with noise, rate, steps, adjacency and group size."""

from __future__ import annotations

import math
from pathlib import Path

import dp_accounting as dp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.core.errors import UnsupportedEvent
from nacre.core.parts import Sampling
from nacre.core.types import Adjacency
from nacre.data.sampling import AllUnits, BallsInBins, CyclicPoisson, FixedSize, Poisson, Shuffled
from nacre.differential_privacy.accounting.analytic import gaussian_epsilon
from nacre.differential_privacy.accounting.price import Accountant, epsilon
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_curve, rdp_epsilon, zcdp_rho
from nacre.differential_privacy.describe import describe_event
from nacre.differential_privacy.event_types import BinnedDpEvent
from nacre.differential_privacy.events import event, require_priced, span
from nacre.differential_privacy.group_privacy import group_event
from nacre.differential_privacy.leaves import leaves, pure_epsilon, pure_event
from nacre.differential_privacy.noise.blt import Buffered
from nacre.differential_privacy.noise.correlated import Banded, Correlated, Tree, WholeRun
from nacre.differential_privacy.noise.independent import Gaussian, NoNoise

ADJACENCIES: list[Adjacency] = ["add_or_remove", "zero_out", "replace_one"]
DELTA = 1e-5
SLACK = 1 + 1e-9

rates = st.floats(0.01, 0.9)
multipliers = st.floats(0.6, 8.0)
few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path))


def sampled(rate: float, z: float, steps: int) -> dp.DpEvent:
    return event(Poisson(rate * 1000, 1000), Gaussian(multiplier=z), steps, "add_or_remove")


def full(z: float, steps: int, adjacency: Adjacency = "add_or_remove") -> dp.DpEvent:
    return event(AllUnits(1000), Gaussian(multiplier=z), steps, adjacency)


@pytest.mark.slow
@pytest.mark.parametrize("accountant", ["rdp", "pld"])
@given(rate=rates, z=multipliers, steps=st.integers(1, 60))
@few
def test_price_falls_with_noise_and_rises_with_rate_and_steps(
    accountant: Accountant, rate: float, z: float, steps: int
) -> None:
    # PLD epsilons come from grids that may differ: each is high by at most a thousandth.
    slack = SLACK if accountant == "rdp" else 1.002
    base = epsilon(sampled(rate, z, steps), DELTA, accountant).epsilon
    assert epsilon(sampled(rate, z * 1.3, steps), DELTA, accountant).epsilon <= base * slack
    assert epsilon(sampled(rate * 1.1, z, steps), DELTA, accountant).epsilon * slack >= base
    assert epsilon(sampled(rate, z, steps + 5), DELTA, accountant).epsilon * slack >= base


@pytest.mark.slow
@given(rate=rates, z=multipliers, steps=st.integers(1, 60))
@few
def test_sampling_only_helps_and_the_tight_price_is_below_the_curve(
    rate: float, z: float, steps: int
) -> None:
    tight = epsilon(sampled(rate, z, steps), DELTA, "pld").epsilon
    assert tight <= epsilon(sampled(rate, z, steps), DELTA, "rdp").epsilon
    assert tight <= epsilon(full(z, steps), DELTA, "closed").epsilon * 1.001


@pytest.mark.parametrize("adjacency", ADJACENCIES)
@pytest.mark.parametrize("z", [0.8, 1.0, 5.0])
def test_one_convention_for_every_adjacency_and_pricer(adjacency: Adjacency, z: float) -> None:
    """The multiplier is in units of the sensitivity, so every adjacency has the same price."""
    exact = gaussian_epsilon(z / math.sqrt(3), DELTA)
    made = full(z, 3, adjacency)
    for accountant in ("closed", "pld", "auto"):
        assert epsilon(made, DELTA, accountant, adjacency).epsilon == pytest.approx(exact, 1e-8)
    curve = epsilon(made, DELTA, "rdp", adjacency).epsilon
    assert exact <= curve <= 1.12 * exact + 0.02


@pytest.mark.slow
def test_where_the_pricers_disagree() -> None:
    """Why the convention exists: one step, z = 1, asked under replace-one without conversion."""
    relation = dp.NeighboringRelation.REPLACE_ONE
    one = dp.GaussianDpEvent(1.0)
    by_rdp = dp.rdp.RdpAccountant(neighboring_relation=relation).compose(one).get_epsilon(DELTA)
    by_pld = dp.pld.PLDAccountant(relation).compose(one).get_epsilon(DELTA)
    assert (round(by_rdp, 2), round(by_pld, 2)) == (4.73, 10.0)
    assert epsilon(full(1.0, 1, "replace_one"), DELTA, "pld", "replace_one").epsilon < 4.4
    assert gaussian_epsilon(0.5, DELTA) == pytest.approx(by_pld, 1e-4)


def test_poisson_under_replace_one_is_refused() -> None:
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        event(Poisson(10, 1000), Gaussian(multiplier=1.0), 5, "replace_one")
    with pytest.raises(UnsupportedEvent, match="add_or_remove"):
        epsilon(sampled(0.1, 1.0, 5), DELTA, "auto", "replace_one")
    require_priced(sampled(0.1, 1.0, 5), "zero_out")


@pytest.mark.slow
def test_poisson_under_zero_out_costs_as_under_add_or_remove() -> None:
    """A zeroed unit adds nothing; dp-accounting's `REPLACE_SPECIAL` agrees."""
    relation = dp.NeighboringRelation.REPLACE_SPECIAL
    made = event(Poisson(100, 1000), Gaussian(multiplier=1.5), 20, "zero_out")
    theirs = dp.pld.PLDAccountant(relation).compose(made).get_epsilon(DELTA)
    assert epsilon(made, DELTA, "pld", "zero_out").epsilon == pytest.approx(theirs, rel=1e-3)


def test_unknown_pairs_are_refused_never_free() -> None:
    class Cauchy:
        multiplier = 1.0

    with pytest.raises(UnsupportedEvent, match="kind: poisson"):
        event(AllUnits(10).draw, Gaussian(multiplier=1.0), 5, "add_or_remove")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedEvent, match="Cauchy"):
        event(AllUnits(10), Cauchy(), 5, "add_or_remove")
    with pytest.raises(ValueError, match="calibrate"):
        event(AllUnits(10), Gaussian(), 5, "add_or_remove")
    with pytest.raises(ValueError, match="steps"):
        event(AllUnits(10), Gaussian(multiplier=1.0), -1, "add_or_remove")


@pytest.mark.parametrize("accountant", ["auto", "pld", "rdp"])
def test_no_noise_and_no_steps(accountant: Accountant) -> None:
    free = event(Shuffled(10, 1000), NoNoise("public"), 5, "replace_one")
    assert free == dp.NonPrivateDpEvent()
    assert epsilon(free, DELTA, accountant).epsilon == math.inf
    assert zcdp_rho(free) == math.inf
    assert group_event(free, 3) == free
    nothing = event(AllUnits(10), Gaussian(multiplier=1.0), 0, "add_or_remove")
    assert epsilon(nothing, DELTA, accountant).epsilon == 0
    assert group_event(nothing, 3) == nothing


def test_a_rate_of_one_is_a_full_batch() -> None:
    made = event(Poisson(10, 10), Gaussian(multiplier=1.0), 5, "replace_one")
    assert made == event(AllUnits(10), Gaussian(multiplier=1.0), 5, "replace_one")


@pytest.mark.parametrize("rows", [2, 5])
def test_group_price(rows: int) -> None:
    made = dp.ComposedDpEvent([full(4.0, 3), sampled(0.2, 4.0, 2), pure_event(0.3)])
    group = group_event(made, rows)
    z = 4.0 / rows
    assert epsilon(group_event(full(4.0, 3), rows), DELTA).epsilon == pytest.approx(
        gaussian_epsilon(z / math.sqrt(3), DELTA), rel=1e-8
    )
    assert zcdp_rho(group) == pytest.approx(5 / (2 * z**2) + (0.3 * rows) ** 2 / 2)
    assert not any(isinstance(leaf, dp.PoissonSampledDpEvent) for leaf, _ in leaves(group))
    assert epsilon(group, DELTA, "rdp").epsilon > epsilon(made, DELTA, "rdp").epsilon
    assert group_event(dp.ZCDpEvent(0.1), rows) == dp.ZCDpEvent(0.1 * rows**2)
    assert group_event(made, 1) is made


@pytest.mark.slow
def test_group_price_covers_every_draw_of_the_group() -> None:
    """Two of a unit's rows under Poisson, exactly: a mixture of shifts 0, 1, 2 (Ganesh 2024)."""
    rate, z, steps = 0.3, 3.0, 10
    odds = [(1 - rate) ** 2, 2 * rate * (1 - rate), rate**2]
    exact = dp.dp_event.MixtureOfGaussiansDpEvent(z, [0.0, 1.0, 2.0], odds)
    accountant = dp.pld.PLDAccountant(value_discretization_interval=1e-3)
    truth = accountant.compose(exact, steps).get_epsilon(DELTA)
    assert truth <= epsilon(group_event(sampled(rate, z, steps), 2), DELTA).epsilon


def test_group_price_refusals() -> None:
    with pytest.raises(ValueError, match="rows"):
        group_event(full(1.0, 1), 0)
    for leaf in (dp.ZCDpEvent(0.1, 0.2), dp.LaplaceDpEvent(1.0)):
        with pytest.raises(UnsupportedEvent, match="group price"):
            group_event(leaf, 2)
    assert group_event(pure_event(400.0), 2) == dp.NonPrivateDpEvent()


@given(st.floats(0.01, 20.0))
@few
def test_pure_epsilon_is_exact_and_covers_the_laplace_mechanism(value: float) -> None:
    assert pure_epsilon(pure_event(value)) == pytest.approx(value, rel=1e-9)
    pure = rdp_curve(pure_event(value))
    laplace = dp.rdp.RdpAccountant(ORDERS).compose(dp.LaplaceDpEvent(1 / value)).rdp
    assert all(a >= b * (1 - 1e-6) for a, b in zip(pure, laplace, strict=True))
    assert max(pure) <= value * SLACK
    assert all(a <= order * value**2 / 2 * SLACK for a, order in zip(pure, ORDERS, strict=True))


def test_full_and_sampled_steps_compose_in_one_price() -> None:
    both = dp.ComposedDpEvent([full(2.0, 1), sampled(0.2, 2.0, 5)])
    price = epsilon(both, DELTA, "pld").epsilon
    assert epsilon(full(2.0, 1), DELTA).epsilon < price < epsilon(full(2.0, 6), DELTA).epsilon
    assert price < epsilon(both, DELTA, "rdp").epsilon


def test_pure_price_by_pld() -> None:
    alone = epsilon(pure_event(1.0), 1e-12, "pld").epsilon
    assert alone == pytest.approx(1.0, rel=2e-3)
    both = dp.ComposedDpEvent([pure_event(1.0), sampled(0.2, 2.0, 5)])
    price = epsilon(both, DELTA, "pld").epsilon
    assert price <= alone + epsilon(sampled(0.2, 2.0, 5), DELTA, "pld").epsilon


@pytest.mark.parametrize(
    "leaf", [dp.LaplaceDpEvent(1.0), dp.PoissonSampledDpEvent(0.1, dp.LaplaceDpEvent(1.0))]
)
def test_events_without_a_rule_are_refused_by_every_pricer(leaf: dp.DpEvent) -> None:
    for accountant in ("auto", "pld", "rdp", "closed"):
        with pytest.raises(UnsupportedEvent):
            epsilon(leaf, DELTA, accountant)
    with pytest.raises(UnsupportedEvent, match="zCDP"):
        zcdp_rho(leaf)
    with pytest.raises(UnsupportedEvent, match="group price"):
        group_event(leaf, 2)


def test_zcdp_events() -> None:
    query = dp.ZCDpEvent(0.05)
    same = dp.GaussianDpEvent(math.sqrt(10))
    assert zcdp_rho(query) == pytest.approx(zcdp_rho(same)) == pytest.approx(0.05)
    assert rdp_curve(query) == pytest.approx(rdp_curve(same))
    assert epsilon(query, DELTA).accountant == "rdp"
    with pytest.raises(UnsupportedEvent, match="accountant: rdp"):
        epsilon(query, DELTA, "pld")
    with pytest.raises(UnsupportedEvent):
        zcdp_rho(dp.ZCDpEvent(0.05, 0.1))


def test_rho_is_not_amplified_and_adds_up() -> None:
    assert zcdp_rho(sampled(0.1, 2.0, 8)) == pytest.approx(1.0)


def test_describe() -> None:
    assert describe_event(dp.NoOpDpEvent()) == "nothing"
    assert describe_event(sampled(0.25, 1.5, 8)) == (
        "8 x Gaussian noise of 1.5 sensitivities, each unit drawn with probability 0.25"
    )
    both = dp.ComposedDpEvent([pure_event(0.5), dp.ZCDpEvent(0.1), dp.NonPrivateDpEvent()])
    assert describe_event(both) == (
        "1 x a query with epsilon 0.5 and delta 0; 1 x a sum with rho 0.1 (zCDP); "
        "1 x a release without protection"
    )
    assert "Laplace" in describe_event(dp.LaplaceDpEvent(1.0))


def test_curves_check_their_orders() -> None:
    with pytest.raises(ValueError, match="orders"):
        rdp_curve(full(1.0, 1), [1.0, 2.0])
    assert rdp_epsilon([0.0], [2.0], 0.9) == 0


BANDED = Banded(coefficients=(0.8, 0.6), multiplier=1.5)
CYCLIC = CyclicPoisson(50, 1000, 4)


@pytest.mark.parametrize("noise", [Gaussian(multiplier=1.5), BANDED])
@pytest.mark.parametrize(("steps", "turns"), [(1, 1), (4, 1), (5, 2), (8, 2), (97, 25)])
def test_units_that_take_turns_pay_for_their_turns(
    noise: Gaussian | Banded, steps: int, turns: int
) -> None:
    made = event(CYCLIC, noise, steps, "add_or_remove")
    step = dp.PoissonSampledDpEvent(0.2, dp.GaussianDpEvent(1.5))
    assert leaves(made) == [(step, turns)]
    assert span(CYCLIC, noise) == 4


def test_a_cycle_of_one_group_is_poisson_sampling() -> None:
    one = CyclicPoisson(100, 1000, 1)
    z = Gaussian(multiplier=1.5)
    assert event(one, z, 7, "add_or_remove") == event(Poisson(100, 1000), z, 7, "add_or_remove")


def blt(steps: int, z: float) -> Buffered:
    return Buffered(weights=(0.3,), decays=(0.9,), steps=steps, separation=4, multiplier=z)


@pytest.mark.parametrize("noise", [Tree(steps=40, separation=4, multiplier=2.0), blt(40, 2.0)])
def test_noise_of_the_whole_run_is_one_release_however_many_steps_are_taken(
    noise: WholeRun,
) -> None:
    for steps in (1, 17, 40):
        for adjacency in ADJACENCIES:
            made = event(CYCLIC, noise, steps, adjacency)
            assert leaves(made) == [(dp.GaussianDpEvent(2.0), 1)]
    with pytest.raises(ValueError, match=r"at most those of the (tree|noise), 40"):
        event(CYCLIC, noise, 41, "zero_out")


@pytest.mark.parametrize(
    "sampling",
    [
        AllUnits(1000),
        Poisson(10, 1000),
        FixedSize(10, 1000),
        Shuffled(10, 1000),
        BallsInBins(1000, 100, anew=True),
    ],
)
@pytest.mark.parametrize(
    "noise", [BANDED, Tree(steps=5, separation=4, multiplier=1.0), blt(5, 1.0)]
)
def test_correlated_noise_without_turns_is_refused(sampling: Sampling, noise: Correlated) -> None:
    with pytest.raises(UnsupportedEvent, match="cyclic_poisson"):
        event(sampling, noise, 5, "add_or_remove")


def test_noise_that_reaches_beyond_a_turn_is_refused() -> None:
    one = CyclicPoisson(50, 1000, 1)
    with pytest.raises(UnsupportedEvent, match="bands: 1"):
        event(one, BANDED, 5, "add_or_remove")
    with pytest.raises(UnsupportedEvent, match="cycle=1"):
        event(one, Tree(steps=5, separation=4, multiplier=1.0), 5, "add_or_remove")
    with pytest.raises(UnsupportedEvent, match="noise is scaled for turns every 4 steps"):
        event(one, blt(5, 1.0), 5, "add_or_remove")
    with pytest.raises(UnsupportedEvent, match="replace_one"):
        event(CYCLIC, BANDED, 5, "replace_one")


@pytest.mark.slow
def test_the_price_of_turns_is_that_of_the_exact_mixture() -> None:
    """Two bands, one turn: the rows (c_0, c_1) of a unit, with and without, against the event."""
    z, q = 1.5, 0.2
    exact = dp.dp_event.MixtureOfGaussiansDpEvent(z, [0.0, math.hypot(0.8, 0.6)], [1 - q, q])
    # A tenth of this interval moves the truth by less than 10**-6 of it, in seven times the time.
    accountant = dp.pld.PLDAccountant(value_discretization_interval=1e-3)
    truth = accountant.compose(exact).get_epsilon(DELTA)
    made = event(CYCLIC, BANDED, 4, "add_or_remove")
    assert epsilon(made, DELTA, "pld").epsilon == pytest.approx(truth, rel=5e-3)


FIXED = dp.SampledWithoutReplacementDpEvent(1000, 100, dp.GaussianDpEvent(1.5))
ONCE = dp.GaussianDpEvent(1.5)


@pytest.mark.parametrize(
    ("sampling", "allowed", "leaf", "covers"),
    [
        (AllUnits(1000), ADJACENCIES, ONCE, 1),
        (FixedSize(100, 1000), ["replace_one"], FIXED, 1),
        (FixedSize(1000, 1000), ["replace_one"], ONCE, 1),
        (Shuffled(100, 1090), ["zero_out", "replace_one"], ONCE, 10),
        (BallsInBins(1000, 7), ADJACENCIES, ONCE, 7),
        (BallsInBins(1000, 1, anew=True), ADJACENCIES, ONCE, 1),
    ],
)
def test_every_draw_under_every_adjacency(
    sampling: Sampling, allowed: list[Adjacency], leaf: dp.DpEvent, covers: int
) -> None:
    noise = Gaussian(multiplier=1.5)
    assert span(sampling, noise) == covers
    for adjacency in ADJACENCIES:
        if adjacency not in allowed:
            with pytest.raises(UnsupportedEvent, match=f"adjacency={adjacency}.*use `"):
                event(sampling, noise, 21, adjacency)
            continue
        made = event(sampling, noise, 21, adjacency)
        assert leaves(made) == [(leaf, -(-21 // covers))]
        for accountant in ("auto", "pld", "rdp"):
            assert 0 < epsilon(made, DELTA, accountant, adjacency).epsilon < math.inf


def test_fixed_size_draws_are_priced_under_replace_one_alone() -> None:
    made = event(FixedSize(100, 1000), Gaussian(multiplier=1.5), 5, "replace_one")
    assert zcdp_rho(made) == pytest.approx(5 / (2 * 1.5**2)), "sampling is no help"
    for adjacency in ("add_or_remove", "zero_out"):
        with pytest.raises(UnsupportedEvent, match="replace_one"):
            require_priced(made, adjacency)
    assert leaves(group_event(made, 3)) == [(dp.GaussianDpEvent(0.5), 5)]
    assert describe_event(made) == (
        "5 x Gaussian noise of 1.5 sensitivities, 100 of 1000 units drawn each time"
    )


@pytest.mark.parametrize(
    "noise", [BANDED, Tree(steps=40, separation=4, multiplier=1.5), blt(40, 1.5)]
)
def test_bins_that_stay_are_a_cycle_of_certain_coins(noise: Correlated) -> None:
    for adjacency in ADJACENCIES:
        bins, coins = BallsInBins(1000, 4), CyclicPoisson(250, 1000, 4)
        assert event(bins, noise, 40, adjacency) == event(coins, noise, 40, adjacency)
    with pytest.raises(UnsupportedEvent, match="cycle=1"):
        event(BallsInBins(1000, 1), noise, 40, "zero_out")


def test_bins_that_are_thrown_anew_are_amplified_but_for_a_unit_that_is_exchanged() -> None:
    anew, z = BallsInBins(1000, 10, anew=True), Gaussian(multiplier=1.5)
    assert leaves(event(anew, z, 35, "replace_one")) == [(ONCE, 4)]
    for adjacency in ("add_or_remove", "zero_out"):
        assert leaves(event(anew, z, 35, adjacency)) == [(BinnedDpEvent(10, ONCE), 4)]
        assert span(anew, z) == 10


def test_a_bin_that_stays_costs_more_than_a_coin_of_the_same_chance() -> None:
    """No amplification is claimed for it."""
    z = Gaussian(multiplier=1.5)
    bins = epsilon(event(BallsInBins(1000, 10), z, 100, "zero_out"), DELTA).epsilon
    coins = epsilon(event(Poisson(100, 1000), z, 100, "zero_out"), DELTA).epsilon
    assert coins < bins == epsilon(full(1.5, 10), DELTA).epsilon
