"""An interval that may be looked at after each trial."""

import math

import numpy as np
import pytest
from scipy import special

from nacre.audit.bounds import at_any_time, clopper_pearson

CONFIDENCE = 0.9


def ever_missed(chance, trials, looks, runs, seed, interval):
    """The share of runs in which a look at any of those numbers of trials misses the chance."""
    numbers = np.random.default_rng(seed)
    missed = 0
    for _ in range(runs):
        successes = np.cumsum(numbers.random(trials) < chance)
        ends = (interval(int(successes[n - 1]), n, CONFIDENCE) for n in looks)
        missed += any(not low <= chance <= high for low, high in ends)
    return missed / runs


LOOKS = sorted({math.ceil(1.25**k) for k in range(1, 29)})  # up to 517 trials


@pytest.mark.parametrize("chance", [0.02, 0.3, 0.86])
def test_it_covers_at_all_looks_together(chance):
    missed = ever_missed(chance, max(LOOKS), LOOKS, 300, 1, at_any_time)
    assert missed <= 0.1 + 3 * math.sqrt(0.09 / 300)


def test_an_interval_for_one_look_does_not():
    missed = ever_missed(0.3, max(LOOKS), LOOKS, 300, 1, clopper_pearson)
    assert missed > 0.1 + 3 * math.sqrt(0.09 / 300)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 7), (40, 40), (900, 1000)])
def test_its_ends_are_where_the_martingale_reaches_its_bound(successes, trials):
    low, high = at_any_time(successes, trials, 0.95)
    failures = trials - successes

    def log_martingale(p):
        mixed = special.betaln(successes + 0.5, failures + 0.5) - math.log(math.pi)
        return mixed - special.xlogy(successes, p) - special.xlog1py(failures, -p)

    assert low <= successes / trials <= high
    for end in {low, high} - {0.0, 1.0}:
        assert log_martingale(end) == pytest.approx(math.log(20), abs=1e-4)
    assert low > 0 or not successes
    assert high < 1 or not failures


def test_the_mixture_is_a_law_over_the_counts():
    # Under any chance p the mean of M is the sum over all counts of the mixture's own chances.
    trials = 30
    counts = np.arange(trials + 1)
    mixed = np.exp(special.betaln(counts + 0.5, trials - counts + 0.5)) / math.pi
    assert float((special.binom(trials, counts) * mixed).sum()) == pytest.approx(1)


def test_it_is_wider_than_one_look_and_shrinks():
    widths = []
    for trials in (10, 100, 1000):
        low, high = at_any_time(trials // 2, trials, 0.95)
        one_low, one_high = clopper_pearson(trials // 2, trials, 0.95)
        assert low < one_low and one_high < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_no_trials_say_nothing_and_bad_counts_are_refused():
    assert at_any_time(0, 0, 0.95) == (0, 1)
    with pytest.raises(ValueError, match="successes=3"):
        at_any_time(3, 2, 0.95)
