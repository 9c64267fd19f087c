# pyright: reportMissingTypeStubs=false
"""Whole numbers from the discrete Gaussian, exactly, a million in a fraction of a second.

The law is cut into cells of 2**shift numbers each. A cell is drawn by a table of its weights, a
number in it uniformly, and it is kept with the chance that corrects the cell's weight to its own.
A random real number U is compared with a threshold by its first 64 bits, and by all the bits behind
them where these do not decide: the thresholds are then computed to as many digits. So nothing is
rounded, no attack on floating-point noise applies (Mironov 2012), and the law is the one that the
proof is about.

*Guarantee:* `discrete_gaussian` draws from P(x) ∝ exp(-x**2 / (2 variance)) over all whole numbers,
up to the stream's being AES rather than random. How long a draw takes depends on it, so whoever can
time single draws learns something; draws of a whole vector are made together.

*Why:* with w(i) = exp(-(i 2**shift)**2 / (2 variance)), cell i is drawn in proportion to w(i), a
place in it with chance 2**-shift and a sign with 1/2. A magnitude x in the cell is kept with chance
exp(-x**2 / (2 variance)) / w(i), which is at most 1. The product is exp(-x**2 / (2 variance)) times
a constant. Zero with a minus is drawn again, so that it counts once.

*Source:* the law and its price are those of Canonne, Kamath & Steinke 2020, "The discrete Gaussian
for differential privacy" (NeurIPS), definition 1 and theorem 4; their own sampler is the oracle of
the tests. Comparing by as many digits as it takes: Knuth & Yao 1976.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nacre.core.random import Source, Stream

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

_LARGEST = 1 << 80
"""The largest variance: beyond it draws would not fit into 64 bits."""
_CHUNK = 1 << 16  # candidates at a time, so that they stay in a processor's cache
_CELLS = 4  # two to this power, at least, within one deviation
_BEYOND = 10.5
"""Deviations that a table reaches: a 64-bit word that lies beyond is looked at with its further
bits, once in 2**64 draws."""
_SURE = 2.0**-44
"""How far a word has to be from a chance, both in floating point, to be sure of the comparison:
300 times the error of either (`_keeps`)."""


def discrete_gaussian(
    count: int,
    variance: Fraction | float,  # taken exactly, a float too; the parameter, not the deviation
    source: Source,  # its own for each release: the same one gives the same draws
) -> NDArray[np.int64]:  # (count,)
    """`count` independent draws of the discrete Gaussian around 0.

    Raises `ValueError` for a negative count, or a variance that is not positive or above 2**80.

    >>> noise = discrete_gaussian(3, 4, Source(bytes(32)))
    >>> noise.shape, noise.dtype
    ((3,), dtype('int64'))
    """
    table = _table(_checked(count, variance))
    stream = source.child("discrete gaussian").stream()
    result, done = np.empty(count, dtype=np.int64), 0
    while done < count:
        # About `table.kept` of the candidates stay; which ones depends on each alone.
        tried = min(_CHUNK, math.ceil((count - done) / table.kept) + 16)
        some = _candidates(stream, table, tried)[: count - done]
        result[done : done + len(some)] = some
        done += len(some)
    return result


def discrete_gaussian_event(variance: Fraction | float, sensitivity: Fraction | float) -> DpEvent:
    """What whole numbers with this noise reveal: rho = sensitivity**2 / (2 variance), rounded up.

    `sensitivity` is how far one unit moves the vector of whole numbers, in L2. Each entry has noise
    of its own. Raises `ValueError` where either is not positive.
    """
    import dp_accounting

    exact = _checked(0, variance)
    if not 0 < sensitivity < math.inf:
        raise ValueError(f"sensitivity={sensitivity} must be > 0 and finite")
    rho = Fraction(sensitivity) ** 2 / (2 * exact)
    nearest = float(rho)
    return dp_accounting.ZCDpEvent(nearest if nearest >= rho else math.nextafter(nearest, math.inf))


def _checked(count: int, variance: Fraction | float) -> Fraction:
    if count < 0:
        raise ValueError(f"count={count} must be at least 0")
    if not 0 < variance <= _LARGEST:
        raise ValueError(f"variance={variance} must be > 0 and at most 2**80")
    return Fraction(variance)


@dataclass(frozen=True)
class _CellTable:
    """The cells of one variance."""

    variance: Fraction
    shift: int  # a cell holds 2**shift numbers
    firsts: NDArray[np.uint64]  # (cells,) the first 64 bits of the chance of each cell or a lower
    kept: float  # about the share of candidates that stay

    def cells(self, stream: Stream, words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The cell that each word falls into, with bits of `stream` behind it where it takes them;
        (N,)."""
        found = np.searchsorted(self.firsts, words, side="left")
        unsure = np.flatnonzero(self.firsts[np.minimum(found, len(self.firsts) - 1)] == words)
        for place in unsure:
            found[place] = self._cell_behind(stream, int(words[place]))
        return found

    def _cell_behind(self, stream: Stream, bits: int) -> int:
        """The cell of the number that begins with these 64 bits and goes on with the stream's."""
        known = 64
        while True:
            cell = 0
            while (first := _first_bits(self.variance, self.shift, cell, known)) < bits:
                cell += 1
            if first > bits:
                return cell
            bits, known = bits << 64 | int(stream.words(1)[0]), known + 64


@lru_cache(maxsize=32)
def _table(variance: Fraction) -> _CellTable:
    deviation = math.sqrt(variance)
    shift = max(0, math.frexp(deviation)[1] - 1 - _CELLS)
    width = math.ldexp(1, shift)
    cells = math.ceil(_BEYOND * deviation / width) + 1
    firsts = [_first_bits(variance, shift, cell, 64) for cell in range(cells)]
    weights = np.exp(-((np.arange(cells) * width / deviation) ** 2) / 2)
    # Of all candidates, the shares that lie at a zero with a minus, and under the law.
    law = math.sqrt(2 * math.pi) * deviation if deviation > 1 else 2 * weights.sum() - 1
    kept = min(1.0, law / (2 * width * float(weights.sum())))
    return _CellTable(variance, shift, np.array(firsts, dtype=np.uint64), kept)


@lru_cache(maxsize=4096)
def _first_bits(variance: Fraction, shift: int, cell: int, bits: int) -> int:
    """The first bits of the chance of this cell or a lower one: the whole part of it times
    2**bits."""
    digits = math.ceil(bits * 0.302) + 10
    while True:
        sums = _sums(variance, shift, digits + 10)
        context = Context(prec=digits + 10)
        share = context.divide(sums[min(cell, len(sums) - 1)], sums[-1])
        scaled = context.multiply(share, Decimal(1 << bits))
        # The sums leave out, and rounded, far less than a unit of the digits that are asked for.
        off = Decimal(1 << bits).scaleb(-digits)
        low = int(context.subtract(scaled, off).to_integral_value(ROUND_FLOOR, context))
        high = int(context.add(scaled, off).to_integral_value(ROUND_FLOOR, context))
        if low == high:
            return low
        if cell >= len(sums) - 1 and high == 1 << bits and low == high - 1:
            # What is left of 1 is less than these digits show: it is above 0, so the bits are ones.
            return low
        digits *= 2


@lru_cache(maxsize=64)
def _sums(variance: Fraction, shift: int, digits: int) -> list[Decimal]:
    """The weights of the cells 0 … i added up, to this many digits; the last is that of all."""
    context = Context(prec=digits + 10)
    p, q = Decimal(2 * variance.numerator), Decimal(variance.denominator)
    least = Decimal(1).scaleb(-digits - 5)
    sums, cell = [Decimal(1)], 0
    while True:
        cell += 1
        over = context.multiply(Decimal((cell << shift) ** 2), q)
        weight = context.exp(context.minus(context.divide(over, p)))
        if weight < least:  # each one behind is at most two thirds of the one before it
            return sums
        sums.append(context.add(sums[-1], weight))


def _candidates(stream: Stream, table: _CellTable, count: int) -> NDArray[np.int64]:
    """What is kept of so many candidates, in order."""
    words = stream.words(2 * count)
    cells, rest = table.cells(stream, words[:count]), words[count:]
    negative = rest >> np.uint64(63) == 1
    if table.shift == 0:
        stays = ~(negative & (cells == 0))
        return np.where(negative, -cells, cells)[stays]
    start = cells << table.shift
    place = (rest & np.uint64((1 << table.shift) - 1)).astype(np.int64)
    stays = _keeps(stream, table, start, place)
    x = start + place
    stays &= ~(negative & (x == 0))
    return np.where(negative, -x, x)[stays]


def _keeps(
    stream: Stream,
    table: _CellTable,
    start: NDArray[np.int64],  # (N,) of the cell
    place: NDArray[np.int64],  # (N,) in the cell
) -> NDArray[np.bool_]:  # (N,)
    """Coins of chance exp(-(x**2 - start**2) / (2 variance)), exactly.

    In floating point first: the exponent has a relative error of less than 2**-50, and x exp(-x) is
    at most 1/e, so the chance has an absolute error of less than 2**-50; the word, of 2**-53.
    """
    words = stream.words(len(start))
    whole, tail = start.astype(np.float64), place.astype(np.float64)
    chance = np.exp(-(2 * whole + tail) * tail / float(2 * table.variance))
    gap = words.astype(np.float64) * 2.0**-64 - chance
    keeps = gap < 0
    for i in np.flatnonzero(np.abs(gap) < _SURE):
        exponent = Fraction((2 * int(start[i]) + int(place[i])) * int(place[i]))
        keeps[i] = _falls_below(stream, int(words[i]), exponent / (2 * table.variance))
    return keeps


def _falls_below(stream: Stream, bits: int, exponent: Fraction) -> bool:
    """Whether the number that begins with these 64 bits, and goes on with the stream's, is below
    exp(-exponent)."""
    if exponent == 0:
        return True
    known = 64
    while True:
        context = Context(prec=math.ceil(known * 0.302) + 30)
        over, under = Decimal(exponent.numerator), Decimal(exponent.denominator)
        chance = context.exp(context.minus(context.divide(over, under)))
        scaled = context.multiply(chance, Decimal(1 << known))
        off = Decimal(1).scaleb(-10)
        if context.subtract(scaled, off) >= bits + 1:
            return True
        if context.add(scaled, off) <= bits:
            return False
        bits, known = bits << 64 | int(stream.words(1)[0]), known + 64
