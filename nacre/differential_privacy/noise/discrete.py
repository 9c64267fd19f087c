# pyright: reportMissingTypeStubs=false
"""Whole numbers from the discrete Gaussian, and coins of exact chance.

Nothing here is rounded: chances are ratios of whole numbers, compared with as many random bits as
the answer needs. So no attack on floating-point noise applies (Mironov 2012), and the law is the
one that the proof is about.

*Guarantee:* `discrete_gaussian` draws from P(x) ∝ exp(-x**2 / (2 variance)) over all whole numbers,
up to the stream's being AES rather than random. How long a draw takes depends on it, so whoever can
time single draws learns something; draws of a whole vector are made together.

*Source:* Canonne, Kamath & Steinke 2020, "The discrete Gaussian for differential privacy"
(NeurIPS): algorithms 1 (coins), 2 (discrete Laplace) and 3 (discrete Gaussian), theorem 4 (price).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.random import Source, Stream

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

Wholes = NDArray[Any]
"""(N,) Python integers, of any size."""

Coins = NDArray[np.bool_]

_WORD = 1 << 64
_LARGEST = 1 << 80
"""The largest variance: beyond it draws would not fit into 64 bits."""


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
    exact = _checked(count, variance)
    p, q = exact.numerator, exact.denominator
    t = math.isqrt(p // q) + 1
    stream = source.child("discrete gaussian").stream()
    found: list[int] = []
    while len(found) < count:
        # About half of the candidates stay; which ones depends on each alone, so order is free.
        y = _laplace(stream, 2 * (count - len(found)) + 16, t)
        off = (abs(y) * (q * t) - p) ** 2
        kept = exp_coins(stream, off, np.full(len(y), 2 * p * q * t * t, dtype=object))
        found += [int(value) for value in y[kept]]
    return np.array(found[:count], dtype=np.int64)


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


def _laplace(
    stream: Stream,
    count: int,  # candidates; fewer come back
    t: int,  # the scale
) -> Wholes:
    """Draws of P(x) ∝ exp(-|x| / t); algorithm 2."""
    u = below(stream, count, t)
    u = u[exp_coins(stream, u, np.full(len(u), t, dtype=object))]
    x = u + t * _runs(stream, len(u))
    negative = coins(stream, *_same(len(x), 1, 2))
    return np.where(negative, -x, x)[~(negative & (x == 0))]


def _runs(stream: Stream, count: int) -> Wholes:
    """How often a coin of chance 1/e falls on "yes" before its first "no"; (count,)."""
    lengths = np.zeros(count, dtype=object)
    going = np.arange(count)
    while len(going):
        going = going[exp_coins(stream, *_same(len(going), 1, 1))]
        lengths[going] += 1
    return lengths


def exp_coins(
    stream: Stream,
    numerators: Wholes,  # (N,) at least 0
    denominators: Wholes,  # (N,) above 0
) -> Coins:  # (N,)
    """Coins that are True with chance exp(-numerator / denominator), exactly; algorithm 1."""
    result = np.zeros(len(numerators), dtype=np.bool_)
    whole = numerators // denominators
    result[:] = _small_exp_coins(stream, numerators % denominators, denominators)
    turn = 0
    while len(going := np.flatnonzero(result & (whole > turn).astype(np.bool_))):
        ones = np.ones(len(going), dtype=object)
        result[going] = _small_exp_coins(stream, ones, ones)
        turn += 1
    return result


def _small_exp_coins(stream: Stream, numerators: Wholes, denominators: Wholes) -> Coins:
    """As `exp_coins`, for ratios of at most 1: the first of the coins of chance ratio / k that
    fails has an odd k with chance exp(-ratio), by the alternating series."""
    result = np.zeros(len(numerators), dtype=np.bool_)
    going, k = np.arange(len(numerators)), 1
    while len(going):
        passed = coins(stream, numerators[going], denominators[going] * k)
        result[going[~passed]] = k % 2 == 1
        going, k = going[passed], k + 1
    return result


def coins(
    stream: Stream,
    numerators: Wholes,  # (N,) at least 0
    denominators: Wholes,  # (N,) at least the numerators
) -> Coins:  # (N,)
    """Coins that are True with chance numerator / denominator, exactly.

    A random number of 64 bits, and of all the bits behind them, is compared with the ratio; the
    bits behind are drawn in the rare case that they decide.
    """
    words = stream.words(len(numerators)).astype(object)
    low, level = words * denominators, numerators * _WORD
    result = (low + denominators <= level).astype(np.bool_)
    unsure = np.flatnonzero((low < level).astype(np.bool_) & ~result)
    if len(unsure):
        rest = level[unsure] - low[unsure]
        result[unsure] = coins(stream, rest, denominators[unsure])
    return result


def below(stream: Stream, count: int, limit: int) -> Wholes:
    """`count` uniform whole numbers from 0 to `limit` - 1, exactly; limit at most 2**63."""
    usable = _WORD - _WORD % limit
    found = np.zeros(0, dtype=object)
    while len(found) < count:
        words = stream.words(count - len(found)).astype(object)
        found = np.concatenate([found, words[(words < usable).astype(np.bool_)] % limit])
    return found


def _same(count: int, numerator: int, denominator: int) -> tuple[Wholes, Wholes]:
    """The same ratio, `count` times."""
    over, under = np.empty(count, dtype=object), np.empty(count, dtype=object)
    over[:], under[:] = numerator, denominator
    return over, under
