"""Normals with more digits: from more bits of the same pairs, in float64.

A pair of normals is a radius sqrt(-2 ln U) and an angle 2 pi A, of which the keystream gives the
first 32 bits each. The bits behind them are AES-256 of the pair's place, as many as are asked for,
so both of a pair, and every way to compute them (`plain.py`, here, `intervals.py`), speak of the
same two real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nacre.core.random import Source

Doubles = NDArray[np.float64]

_EIGHTH = 1 << 29  # of a turn, in units of 2**-32 turns


@dataclass(frozen=True)
class Bits:
    """What n normals are made from."""

    pairs: NDArray[np.uint64]  # (n,) the pair's place
    words: NDArray[np.uint32]  # (n,) the first 32 bits of U
    angles: NDArray[np.uint32]  # (n,) of A
    second: NDArray[np.bool_]  # (n,) whether it is the pair's sine

    def one(self, i: int) -> Bits:
        """The bits of the normal at place i, alone."""
        here = slice(i, i + 1)
        return Bits(self.pairs[here], self.words[here], self.angles[here], self.second[here])


def joined_words(some: Sequence[Bits]) -> Bits:
    """One after the other."""
    return Bits(
        np.concatenate([bits.pairs for bits in some]),
        np.concatenate([bits.words for bits in some]),
        np.concatenate([bits.angles for bits in some]),
        np.concatenate([bits.second for bits in some]),
    )


class Fine:
    """The bits behind the first 32 of a source's pairs."""

    def __init__(self, source: Source) -> None:
        self._stream = source.child("normals", "fine").stream()

    def words(self, pairs: NDArray[np.uint64], count: int = 1) -> NDArray[np.uint64]:
        """(n, 2 count) uint64: 64 bits of U and 64 of A in turn."""
        return self._stream.words_of(pairs, 2 * count)


def doubles(bits: Bits, fine: NDArray[np.uint64]) -> Doubles:
    """(n,) the normals, from 96 bits of U and of A, to within 1e-12; but for `vague` ones, which
    are only of about the right size."""
    more, turn = ((fine[:, i].astype(np.float64) + 0.5) * 2.0**-64 for i in (0, 1))
    below = bits.words.astype(np.float64) + more
    above = (2.0**32 - 1 - bits.words) + (1 - more)
    low = -np.log(below * 2.0**-32)
    with np.errstate(divide="ignore"):  # where it is not taken
        high = -np.log1p(-above * 2.0**-32)  # near 1 the distance from 1 has the digits
    radius = np.sqrt(2 * np.where(bits.words < 1 << 31, low, high))
    turned = bits.angles + np.uint32(_EIGHTH)
    quarter = turned >> np.uint32(30)
    rest = (turned & np.uint32((1 << 30) - 1)).astype(np.float64) - _EIGHTH
    x = (rest + turn) * (math.pi / 2**31)
    # The sine of an angle is the cosine of one a quarter turn before.
    quarter = (quarter + np.where(bits.second, np.uint32(3), np.uint32(0))) & 3
    part = np.where(quarter & 1, np.sin(x), np.cos(x))
    return radius * np.where((quarter == 1) | (quarter == 2), -part, part)


def vague(bits: Bits, fine: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) whose U begins with too many zeros for 96 bits to suffice: one in 2**56."""
    return (bits.words == 0) & (fine[:, 0] < np.uint64(1 << 40))
