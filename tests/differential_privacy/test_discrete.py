"""The discrete Gaussian: drawn as its formula says, and priced as its proof says."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import dp_accounting as dp
import mpmath
import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from nacre.core.random import Source
from nacre.differential_privacy.noise.discrete import (
    _falls_below,
    _keeps,
    _table,
    discrete_gaussian,
    discrete_gaussian_event,
)

ROOT = Source(bytes(range(32)))
FAR = 4.75  # deviations; a normal is farther once in 500,000


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


class Fixed:
    """Words in this order, and no others."""

    def __init__(self, *words: int) -> None:
        self.left = list(words)

    def words(self, count: int) -> np.ndarray:
        return np.array([self.left.pop(0) for _ in range(count)], dtype=np.uint64)


def weights(variance: Fraction, shift: int) -> list[mpmath.mpf]:
    """Of the cells, to 60 digits."""
    over = mpmath.mpf(variance.denominator) / (2 * variance.numerator)
    cells = range(math.ceil(25 * math.sqrt(variance) / 2**shift) + 3)
    return [mpmath.exp(-((cell << shift) ** 2) * over) for cell in cells]


@pytest.mark.parametrize("variance", [Fraction(1, 10), Fraction(37, 3), Fraction(10**8, 7)])
def test_cells_have_their_chances_to_the_last_bit(variance: Fraction) -> None:
    table = _table(variance)
    with mpmath.workdps(60):
        each = weights(variance, table.shift)
        chances = [sum(each[: i + 1]) / sum(each) for i in range(len(table.firsts))]
        near = [int(mpmath.floor(chance * 2**64)) for chance in chances]
    assert [int(first) for first in table.firsts] == near
    assert near[-1] == 2**64 - 1  # no word lies behind the table
    assert len(set(near)) > 1


def test_a_word_at_the_border_of_two_cells_is_decided_by_the_bits_behind_it() -> None:
    variance = Fraction(37, 3)
    table = _table(variance)
    first = int(table.firsts[1])
    with mpmath.workdps(80):
        each = weights(variance, 0)
        behind = int(mpmath.floor(sum(each[:2]) / sum(each) * 2**128)) - (first << 64)
    for word, cell in ((behind - 1, 1), (behind + 1, 2)):
        stream = Fixed(word)
        assert table.cells(stream, np.array([first], dtype=np.uint64)) == cell  # type: ignore[arg-type]
        assert stream.left == []
    assert table.cells(Fixed(), np.array([first - 1, first + 1], dtype=np.uint64)).tolist() == [
        1,
        2,
    ]  # type: ignore[arg-type]


def test_a_word_behind_all_cells_of_the_table_finds_one() -> None:
    table = _table(Fraction(37, 3))
    last = np.array([2**64 - 1], dtype=np.uint64)
    far = table.cells(Fixed(2**64 - 1, 2**63), last)  # type: ignore[arg-type]
    near = table.cells(Fixed(0), last)  # type: ignore[arg-type]
    assert 9 * 3.5 < near < far < 16 * 3.5  # as far as one draw in 2**64, and in 2**128


@pytest.mark.parametrize("exponent", [Fraction(1, 3), Fraction(7, 11)])
def test_what_is_kept_is_decided_by_the_bits_behind_a_word(exponent: Fraction) -> None:
    with mpmath.workdps(80):
        chance = mpmath.exp(-mpmath.mpf(exponent.numerator) / exponent.denominator)
        whole = int(mpmath.floor(chance * 2**128))
    first, behind = divmod(whole, 2**64)
    assert _falls_below(Fixed(behind - 1), first, exponent)  # type: ignore[arg-type]
    assert not _falls_below(Fixed(behind + 1), first, exponent)  # type: ignore[arg-type]
    assert _falls_below(Fixed(), first - 1, exponent)  # type: ignore[arg-type]
    assert not _falls_below(Fixed(), first + 1, exponent)  # type: ignore[arg-type]
    assert _falls_below(Fixed(), 2**64 - 1, Fraction(0))  # type: ignore[arg-type]


def test_words_near_a_chance_are_looked_at_exactly() -> None:
    table = _table(Fraction(10**8))
    start, place = np.array([1 << table.shift]), np.array([5])
    exponent = Fraction((2 * int(start[0]) + 5) * 5, 2 * 10**8)
    with mpmath.workdps(60):
        first = int(mpmath.exp(-mpmath.mpf(exponent.numerator) / exponent.denominator) * 2**64)
    # In floating point these two words are one number.
    for word, kept in ((first - 1, True), (first + 1, False)):
        assert _keeps(Fixed(word), table, start, place)[0] == kept  # type: ignore[arg-type]


def rejected(variance: Fraction, count: int, coin: random.Random) -> list[int]:
    """Algorithms 1 to 3 of Canonne, Kamath & Steinke 2020, one draw after the other."""

    def falls(exponent: Fraction) -> bool:  # with chance exp(-exponent)
        while exponent > 1:
            if not falls(Fraction(1)):
                return False
            exponent -= 1
        k = 1
        while coin.randrange(exponent.denominator * k) < exponent.numerator:
            k += 1
        return k % 2 == 1

    t, found = math.isqrt(math.floor(variance)) + 1, list[int]()
    while len(found) < count:
        u, v = coin.randrange(t), 0
        if not falls(Fraction(u, t)):
            continue
        while falls(Fraction(1)):
            v += 1
        y, negative = u + t * v, coin.randrange(2)
        if (negative and y == 0) or not falls((y - variance / t) ** 2 / (2 * variance)):
            continue
        found.append(-y if negative else y)
    return found


@pytest.mark.parametrize("variance", [Fraction(2, 3), Fraction(50), Fraction(10**4)])
def test_draws_have_the_law_of_the_published_sampler(variance: Fraction) -> None:
    slow = np.array(rejected(variance, 5000, random.Random(7)))
    fast = discrete_gaussian(5000, variance, ROOT.child("oracle"))
    edges = np.unique(np.quantile(slow, np.linspace(0, 1, 21)[1:-1]))
    table = [
        np.bincount(np.digitize(draws, edges), minlength=len(edges) + 1) for draws in (slow, fast)
    ]
    assert chi2_contingency(np.array(table)[:, np.sum(table, axis=0) > 0]).pvalue > 1e-5


def test_every_number_of_a_cell_has_its_own_chance() -> None:
    """Where a cell holds several numbers: 4 each at this deviation."""
    draws = discrete_gaussian(200_000, 100.0**2, ROOT.child("cells"))
    assert _table(Fraction(100) ** 2).shift == 2
    x = np.arange(-250, 251)
    law = np.exp(-(x**2) / (2 * 100.0**2))
    expected = 200_000 * law / (math.sqrt(2 * math.pi) * 100)
    seen = np.array([(draws == value).sum() for value in x])
    assert chi2.sf(((seen - expected) ** 2 / expected).sum(), len(x)) > 1e-5


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
