"""Records noised one by one. Random checks fail once in about 10**6 runs each."""

import itertools
import math

import numpy as np
import pytest

from nacre.differential_privacy.accounting.price import epsilon
from nacre.statistics.local import (
    LocalLaplace,
    RandomisedResponse,
    estimated_counts,
    estimated_mean,
    noised_numbers,
    record_event,
    responses,
)

WARD = RandomisedResponse(categories=("east", "west", "north"), epsilon=1.2)
AGE = LocalLaplace(low=10, high=60, epsilon=2.0)


def test_a_response_is_true_as_often_as_epsilon_allows():
    """The likelihood ratio of any written category, over any two true ones, is e^epsilon at most:
    each pair of probabilities as formula, and the kept share of 4,000 responses beside it."""
    lie = (1 - WARD.truth) / 2
    assert math.log(WARD.truth / lie) == pytest.approx(WARD.epsilon)
    written = responses(["west"] * 4000, WARD)
    for category, chance in (("west", WARD.truth), ("east", lie), ("north", lie)):
        deviation = math.sqrt(4000 * chance * (1 - chance))
        assert abs(written.count(category) - 4000 * chance) < 5 * deviation


def test_noise_is_as_wide_as_the_range_over_epsilon():
    written = np.array(noised_numbers([1e9] * 2000 + [-math.inf] * 2000, AGE))
    for part, true in ((written[:2000], 60), (written[2000:], 10)):
        assert AGE.scale == 25
        assert abs(float(np.mean(part)) - true) < 5 * math.sqrt(2 / 2000) * 25, "clamped first"
        assert abs(float(np.mean(np.abs(part - true))) / 25 - 1) < 5 / math.sqrt(2000)


def test_every_record_draws_its_own_noise():
    assert len(set(noised_numbers([30.0] * 50, AGE))) == 50


def test_columns_add_up_and_are_priced_for_replaced_records():
    event = record_event({"ward": WARD, "age": AGE})
    found = epsilon(event, 1e-12, "pld", "replace_one")
    assert found.epsilon == pytest.approx(3.2, rel=5e-3)
    assert found.epsilon <= 3.2 * (1 + 1e-9) or found.epsilon < 3.2 * 1.005


@pytest.mark.slow
def test_estimates_are_without_bias_and_their_intervals_cover():
    """60 tables, 95 % stated: fewer than 46 hits happen once in 10**6, if it holds."""
    true = ["east"] * 100 + ["west"] * 45 + ["north"] * 5
    ages = np.linspace(10, 60, 150).tolist()
    # Every record draws its own noise, so 60 tables can be drawn at once.
    wards, years = responses(true * 60, WARD), noised_numbers(ages * 60, AGE)
    tables = [slice(150 * n, 150 * (n + 1)) for n in range(60)]
    counts = [estimated_counts(wards[rows], WARD) for rows in tables]
    means = [estimated_mean(years[rows], AGE) for rows in tables]
    for category in WARD.categories:
        found = [each[category] for each in counts]
        exact = true.count(category)
        spread = (found[0].high - found[0].low) / 2 / 1.96 / math.sqrt(60)
        assert abs(np.mean([e.value for e in found]) - exact) < 5 * spread
        assert sum(e.low <= exact <= e.high for e in found) >= 46
    assert sum(e.low <= 35 <= e.high for e in means) >= 46
    assert abs(np.mean([e.value for e in means]) - 35) < 5 * math.sqrt(2 / 150 / 60) * 25


def test_counts_of_all_categories_are_the_records():
    found = estimated_counts(["east", "west", "west"], WARD)
    assert sum(e.value for e in found.values()) == pytest.approx(3)


@pytest.mark.parametrize("epsilon_", [0.3, 4.0])
@pytest.mark.parametrize("count", [2, 7])
def test_opendps_map_agrees_with_the_formula(count, epsilon_):
    import opendp.prelude as dp

    names = [str(n) for n in range(count)]
    option = RandomisedResponse(categories=tuple(names), epsilon=epsilon_)
    dp.enable_features("contrib")
    respond = dp.m.make_randomized_response(names, option.truth * (1 - 1e-9))
    assert respond.map(1) == pytest.approx(epsilon_, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RandomisedResponse(categories=("a",), epsilon=1), "at least two"),
        (lambda: RandomisedResponse(categories=("a", "a"), epsilon=1), "at least two"),
        (lambda: RandomisedResponse(categories=("a", "b"), epsilon=0), "epsilon=0"),
        (lambda: LocalLaplace(low=0, high=1, epsilon=51), "epsilon=51"),
        (lambda: LocalLaplace(low=1, high=1, epsilon=1), "low=1"),
        (lambda: LocalLaplace(low=0, high=1e308, epsilon=1), "high=1e"),
        (lambda: estimated_mean([], AGE), "no records"),
    ],
)
def test_options_check_their_values(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_every_pair_of_records_is_within_epsilon():
    """Brute force over the whole mechanism of two categorical columns: 6 x 6 records, 6 outputs."""
    two = RandomisedResponse(categories=("a", "b"), epsilon=0.5)

    def law(record):
        chances = {}
        for written in itertools.product(WARD.categories, two.categories):
            chance = 1.0
            for option, true, seen in zip((WARD, two), record, written, strict=True):
                lie = (1 - option.truth) / (len(option.categories) - 1)
                chance *= option.truth if true == seen else lie
            chances[written] = chance
        return chances

    laws = [law(record) for record in itertools.product(WARD.categories, two.categories)]
    worst = max(math.log(p[w] / q[w]) for p in laws for q in laws for w in p)
    assert worst == pytest.approx(1.7)
    assert all(sum(p.values()) == pytest.approx(1) for p in laws)
