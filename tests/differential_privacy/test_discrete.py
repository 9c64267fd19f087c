"""The discrete Gaussian: drawn as its formula says, and priced as its proof says."""

from __future__ import annotations

import math
from fractions import Fraction

import dp_accounting as dp
import numpy as np
import pytest

from nacre.core.random import Source
from nacre.differential_privacy.noise.discrete import (
    below,
    coins,
    discrete_gaussian,
    discrete_gaussian_event,
    exp_coins,
)

ROOT = Source(bytes(range(32)))
FAR = 4.75  # deviations; a normal is farther once in 500,000


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=object)


def far_off(yes: int, count: int, chance: float) -> float:
    return abs(yes - count * chance) / math.sqrt(count * chance * (1 - chance))


@pytest.mark.parametrize("variance", [Fraction(1, 10), 0.5, 2.0, Fraction(37, 3), 400])
def test_draws_follow_the_formula(variance: Fraction | float) -> None:
    draws = discrete_gaussian(8000, variance, ROOT.child(str(variance)))
    reach = math.ceil(6 * math.sqrt(variance)) + 2
    x = np.arange(-reach, reach + 1)
    law = np.exp(-(x**2) / (2 * float(variance)))
    expected = 8000 * law / law.sum()
    seen = np.array([(draws == value).sum() for value in x])
    assert seen.sum() == 8000  # none beyond six deviations
    often = expected >= 5
    together = [(seen[often], expected[often])]
    square = sum(float(((s - e) ** 2 / e).sum()) for s, e in together)
    freedom = int(often.sum()) - 1
    # The cube root of a chi-square is nearly normal (Wilson & Hilferty 1931).
    near = (square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))
    assert near / math.sqrt(2 / (9 * freedom)) < FAR


def test_variance_and_mean_of_wide_noise() -> None:
    draws = discrete_gaussian(4000, 1e8, ROOT.child("wide")) / 1e4
    assert abs(draws.mean()) < FAR / math.sqrt(4000)
    assert abs((draws**2).mean() - 1) < FAR * math.sqrt(2 / 4000)


def test_the_same_source_draws_the_same_and_another_does_not() -> None:
    first = discrete_gaussian(50, 9.0, ROOT)
    assert (first == discrete_gaussian(50, 9.0, ROOT)).all()
    assert (first != discrete_gaussian(50, 9.0, ROOT.child(1))).any()
    assert discrete_gaussian(0, 9.0, ROOT).shape == (0,)


def test_wide_noise_of_any_float_fits_its_integers() -> None:
    draws = discrete_gaussian(20, math.pi * 2.0**70, ROOT)
    assert draws.dtype == np.int64
    assert 2**33 < abs(draws).max() < 2**40


@pytest.mark.parametrize(("over", "under"), [(0, 1), (1, 3), (2, 3), (1, 10**30)])
def test_coins_have_their_chance(over: int, under: int) -> None:
    count = 6000
    drawn = coins(
        ROOT.child("coin", over).stream(), whole(*[over] * count), whole(*[under] * count)
    )
    chance = over / under
    assert drawn.sum() == 0 if chance < 1e-20 else far_off(drawn.sum(), count, chance) < FAR
    assert coins(ROOT.stream(), whole(7), whole(7)).all()


@pytest.mark.parametrize(("over", "under"), [(0, 1), (1, 4), (1, 1), (5, 2), (9, 2)])
def test_exponential_coins_have_their_chance(over: int, under: int) -> None:
    count = 6000
    stream = ROOT.child("exp", over, under).stream()
    yes = exp_coins(stream, whole(*[over] * count), whole(*[under] * count)).sum()
    assert yes == count if over == 0 else far_off(yes, count, math.exp(-over / under)) < FAR


def test_a_ratio_within_one_word_is_decided_by_the_bits_behind_it() -> None:
    class Fixed:
        """Words that stop exactly at the ratio, then go on."""

        def __init__(self, *words: int) -> None:
            self.left = list(words)

        def words(self, count: int) -> np.ndarray:
            return np.array([self.left.pop(0) for _ in range(count)], dtype=np.uint64)

    third = 2**64 // 3  # the first word of 1/3; what is left of it is 1/3 again
    for after, answer in ((third - 1, True), (third + 1, False)):
        stream = Fixed(third, after)
        assert coins(stream, whole(1), whole(3))[0] == answer  # type: ignore[arg-type]
        assert stream.left == []


def test_whole_numbers_below_a_limit_are_uniform() -> None:
    drawn = below(ROOT.child("below").stream(), 7000, 7)
    counts = np.bincount(drawn.astype(np.int64), minlength=7)
    assert len(counts) == 7
    assert ((counts - 1000) ** 2 / 1000).sum() < 33.1  # chi-square, 6 degrees: 1 in 100,000
    # A quarter of the words is thrown away here: taken as they are, they would give 3/4.
    large = below(ROOT.child("large").stream(), 4000, 3 * 2**61)
    assert max(large) < 3 * 2**61
    assert far_off(int((large < 2**62).sum()), 4000, 2 / 3) < FAR


def test_the_price_is_never_below_the_proof() -> None:
    assert discrete_gaussian_event(4.0, 2) == dp.ZCDpEvent(0.5)
    third = discrete_gaussian_event(3, 1)
    assert isinstance(third, dp.ZCDpEvent)
    assert Fraction(1, 6) <= Fraction(third.rho) < Fraction(1, 6) + Fraction(1, 10**16)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf, 2.0**81])
def test_variances_without_a_law(variance: float) -> None:
    with pytest.raises(ValueError, match="variance="):
        discrete_gaussian(1, variance, ROOT)


def test_arguments_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="count=-1"):
        discrete_gaussian(-1, 1.0, ROOT)
    with pytest.raises(ValueError, match="sensitivity=0"):
        discrete_gaussian_event(1.0, 0)
