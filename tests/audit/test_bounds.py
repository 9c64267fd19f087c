import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from nacre.audit.bounds import (
    Counts,
    advantage,
    clopper_pearson,
    epsilon_from_one_run,
    epsilon_from_rates,
    one_run_p_value,
    paired_difference,
)


def counts(tp, members, fp, outsiders):
    return Counts(true_positives=tp, members=members, false_positives=fp, outsiders=outsiders)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.data(), st.floats(0.51, 0.999))
def test_clopper_pearson_is_scipys_exact_interval(trials, data, confidence):
    successes = data.draw(st.integers(0, trials))
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    ours = clopper_pearson(successes, trials, confidence)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= successes / trials <= ours.high


@pytest.mark.parametrize("shares", [(0.3, 0.1), (0.05, 0.0), (0.5, 0.5), (0.02, 0.02)])
def test_a_paired_difference_is_covered(shares):
    """Over all outcomes of 15 trials, each with its own probability."""
    trials, covered = 15, 0.0
    law = stats.multinomial(trials, [*shares, 1 - sum(shares)])
    for lost in range(trials + 1):
        for gained in range(trials + 1 - lost):
            low, high = paired_difference(lost, gained, trials, 0.9)
            assert low <= (lost - gained) / trials <= high
            if low <= shares[0] - shares[1] <= high:
                covered += law.pmf([lost, gained, trials - lost - gained])
    assert covered >= 0.9


def test_trials_that_agree_make_a_paired_difference_narrow():
    low, high = paired_difference(5, 0, 1000, 0.95)
    apart = clopper_pearson(905, 1000, 0.95).high - clopper_pearson(900, 1000, 0.95).low
    assert 0 < high - low < 0.6 * apart
    with pytest.raises(ValueError, match="must lie between"):
        paired_difference(3, 3, 5, 0.95)


def test_no_trials_say_nothing():
    assert clopper_pearson(0, 0, 0.95) == (0, 1)
    assert advantage(counts(0, 0, 0, 0), 0.95) == (-1, 1)
    assert counts(0, 0, 0, 0).advantage == 0


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="between 0 and trials"):
        clopper_pearson(successes, trials, 0.95)
    with pytest.raises(ValueError, match="between 0 and trials"):
        counts(successes, trials, 0, 1)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_confidence_lies_between_0_and_1(confidence):
    with pytest.raises(ValueError, match="confidence"):
        clopper_pearson(1, 2, confidence)


def binomials(n, p, repetitions, seed):
    return np.random.default_rng(seed).binomial(n, p, repetitions)


@pytest.mark.parametrize(("tpr", "fpr"), [(0.5, 0.5), (0.9, 0.1), (0.02, 0.01)])
def test_the_advantage_interval_covers_at_its_confidence(tpr, fpr):
    # exact and conservative: more than 8 % misses in 400 at 95 % has probability below 0.5 %
    repetitions = 400
    pairs = zip(binomials(40, tpr, repetitions, 1), binomials(30, fpr, repetitions, 2), strict=True)
    missed = 0
    for tp, fp in pairs:
        low, high = advantage(counts(int(tp), 40, int(fp), 30), 0.95)
        missed += not low <= tpr - fpr <= high
    assert missed / repetitions <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("delta", [0.0, 0.05])
@pytest.mark.parametrize("bound", [epsilon_from_rates, epsilon_from_one_run])
def test_randomised_response_is_never_caught_above_its_epsilon(epsilon, delta, bound):
    # the worst (epsilon, delta) mechanism: it confesses with probability delta, and otherwise
    # tells the truth with probability e^epsilon / (1 + e^epsilon); at 90 % confidence more than
    # 15 % false bounds in 300 has probability below 0.5 %
    truth = delta + (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon))
    repetitions, rows = 300, 60
    right_in = binomials(rows, truth, repetitions, 3)
    right_out = binomials(rows, truth, repetitions, 4)
    false = 0
    for tp, tn in zip(right_in, right_out, strict=True):
        found = bound(counts(int(tp), rows, rows - int(tn), rows), delta, 0.9)
        false += found > epsilon
    assert false / repetitions <= 0.15


@pytest.mark.parametrize("bound", [epsilon_from_rates, epsilon_from_one_run])
def test_bounds_grow_with_the_evidence_and_approach_the_truth(bound):
    truth = 1.0
    share = math.exp(truth) / (1 + math.exp(truth))
    found = []
    for rows in (20, 200, 20_000):
        right = round(share * rows)
        found.append(bound(counts(right, rows, rows - right, rows), 0.0, 0.95))
    assert found == sorted(found)
    assert 0.9 < found[-1] < 1.0


@pytest.mark.parametrize("bound", [epsilon_from_rates, epsilon_from_one_run])
def test_guesses_without_information_bound_nothing(bound):
    assert bound(counts(0, 50, 0, 50), 1e-5, 0.95) == 0
    assert bound(counts(50, 50, 50, 50), 1e-5, 0.95) == 0
    assert bound(counts(25, 50, 25, 50), 1e-5, 0.95) == 0


@pytest.mark.parametrize("bound", [epsilon_from_rates, epsilon_from_one_run])
def test_the_tail_of_outsiders_counts_as_much_as_that_of_members(bound):
    # few members missed, many outsiders accused: only the second inequality sees it
    sharp = bound(counts(100, 100, 70, 100), 0.0, 0.95)
    assert sharp > 1
    assert sharp == pytest.approx(bound(counts(30, 100, 0, 100), 0.0, 0.95))


def test_delta_only_weakens_a_bound():
    evidence = counts(95, 100, 5, 100)
    for bound in (epsilon_from_rates, epsilon_from_one_run):
        found = [bound(evidence, delta, 0.95) for delta in (0.0, 1e-4, 1e-2, 0.5)]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[-1]


def test_perfect_guesses_give_a_finite_bound():
    assert 2 < epsilon_from_one_run(counts(100, 100, 0, 100), 1e-5, 0.95) < 5
    assert 2 < epsilon_from_rates(counts(100, 100, 0, 100), 1e-5, 0.95) < 5


def test_one_run_wants_as_many_members_as_outsiders():
    with pytest.raises(ValueError, match="must be equal"):
        epsilon_from_one_run(counts(1, 2, 1, 3), 0.0, 0.95)


def test_p_value_without_delta_is_the_binomial_test():
    for guesses, right, epsilon in [(10, 9, 0.0), (40, 30, 0.7), (7, 0, 1.0), (0, 0, 1.0)]:
        chance = math.exp(epsilon) / (1 + math.exp(epsilon))
        expected = (
            stats.binomtest(right, guesses, chance, alternative="greater").pvalue if guesses else 1
        )
        assert one_run_p_value(50, guesses, right, epsilon, 0.0) == pytest.approx(expected)


def test_p_value_with_delta_by_hand():
    # two guesses, both right, W ~ Binomial(2, 1/2): P[W >= 2] = 1/4; i = 1: P[W = 1] = 1/2;
    # i = 2: P[W < 2] / 2 = 3/8; so 1/4 + 2 * 2 * 0.01 * 1/2
    assert one_run_p_value(2, 2, 2, 0.0, 0.01) == pytest.approx(0.27)


def test_p_value_grows_with_epsilon_where_bisection_looks():
    grid = np.linspace(0, 6, 200)
    values = [one_run_p_value(400, 150, 130, float(e), 1e-3) for e in grid]
    rising = [v for v in values if v < 0.5]
    assert rising == sorted(rising)


@pytest.mark.parametrize(("rows", "guesses"), [(0, 0), (1, 1), (60, 41), (4000, 3100)])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 12.0, 64.0])
def test_p_value_is_that_of_scipys_binomial_law(rows, guesses, epsilon):
    chance = float(special.expit(epsilon))
    for right in sorted({0, guesses // 2, guesses - guesses // 9, guesses}):
        below = stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, chance)
        spread = (np.cumsum(below) / np.arange(1, right + 1)).max(initial=0.0)
        tail = stats.binom.sf(right - 1, guesses, chance)
        expected = min(1.0, tail + 2 * rows * 1e-3 * spread)
        found = one_run_p_value(rows, guesses, right, epsilon, 1e-3)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-290)


def test_p_value_refuses_impossible_counts():
    with pytest.raises(ValueError, match="must hold"):
        one_run_p_value(10, 5, 6, 0.0, 0.0)
