"""Marks of columns: which of them a table has, and how much it says that another has the same.

A column of many values tells one table from every other; of columns with few values, several do, or
pairs of them. How much each says follows from its own counts (`_information`).
"""

# Parts of NumPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from nacre.data.sketches.cells import Hashes, Hashing

_LONG = 1 << 16  # rows, from which on a column is known by the values of the smallest hashes
_ENOUGH = 256  # of those values
_LEAST = 8.0  # bits of information without which a column is not compared
_PLENTY = 400.0  # bits in the columns alone, from which on pairs of columns are not looked at
_OFTEN = 8  # times a value, from which on chance leaves no counts one apart
_PROOF = 20.0  # bits: tables of other people look like the same once in a million times
_ALL = 2**64 - 1


def judged(hashing: Hashing, cells: list[Hashes]) -> tuple[list[Hashes], set[int]]:
    """The columns that tell rows apart, those of the most different values first, and the `_mark`
    of each that would not be equal by chance.

    A constant column and the copy of another say nothing; running numbers came as nothing. Of a
    single row nothing is constant.
    """
    kept: dict[int, tuple[int, Hashes]] = {}
    bits: dict[int, float] = {}
    marks: set[int] = set()
    for column in cells:
        values, counts = _counted(column)
        if len(values) < min(2, len(column)) or not values[-1]:
            continue
        digest = multiset(hashing, values, counts)
        if digest not in kept:
            kept[digest] = (-len(values), column)
            bits[digest] = _information(counts)
            if bits[digest] >= _LEAST:
                marks.add(_mark(hashing, counts, digest, bits[digest]))
    if sum(found for found in bits.values() if found >= _LEAST) < _PLENTY:
        marks |= _marks_of_pairs(hashing, {d: column for d, (_, column) in kept.items()}, bits)
    order = sorted(kept, key=lambda digest: (kept[digest][0], digest))
    return [kept[digest][1] for digest in order], marks


def _counted(column: Hashes) -> tuple[Hashes, NDArray[np.int64]]:
    """The different values of a column and their counts; of a long one with many of them, those
    with the smallest hashes."""
    if len(column) > _LONG:
        near = column[column <= np.uint64(_ALL // 64)]
        values, counts = np.unique(near, return_counts=True)
        if len(values) >= _ENOUGH:
            return values, counts
    return np.unique(column, return_counts=True)


def _marks_of_pairs(
    hashing: Hashing, columns: dict[int, Hashes], bits: dict[int, float]
) -> set[int]:
    """Marks of neighbours in the order of the digests: where no column says much, two at a time do.

    Who takes a column away leaves all pairs but two. A pair's information is what it says beyond
    its columns, of which the first was counted with the pair before, and the second by itself if it
    has a mark.
    """
    marks: set[int] = set()
    order = sorted(columns)
    for first, second in itertools.pairwise(order):
        with np.errstate(over="ignore"):
            pair = hashing.mixed(columns[first] + hashing.mixed(columns[second]))
        values, counts = np.unique(pair, return_counts=True)
        alone = bits[first] + (bits[second] if bits[second] >= _LEAST else 0.0)
        if (found := _information(counts) - alone) >= _LEAST:
            marks.add(_mark(hashing, counts, multiset(hashing, values, counts), found))
    return marks


def _information(counts: NDArray[np.int64]) -> float:
    """Bits: of two samples of one population, the share that have the same counts of k values is
    2 to the minus this, about sqrt(n / ((4 pi)^(k - 1) c_1 … c_k)): the chance that two draws of a
    multinomial agree, by its normal approximation. Counts that are equal, multiples of one number
    or one apart (weekdays of a series) are so by design and say nothing.
    """
    if len(counts) and (least := int(counts.min())) >= _OFTEN:
        times = counts // least  # 1 and 10 are one value: see `Hashing.numbers`
        if times.max() <= 2 and (counts - times * least <= times).all():
            return 0.0
    together = int(np.gcd.reduce(counts))
    if len(counts) < 2 or (together > 1 and (len(counts) > 4 or (counts == together).all())):
        return 0.0
    spread = (len(counts) - 1) * math.log2(4 * math.pi)
    return max(0.0, (spread + float(np.log2(counts).sum()) - math.log2(counts.sum())) / 2)


def _mark(hashing: Hashing, counts: NDArray[np.int64], digest: int, bits: float) -> int:
    """64 bits of a column: 28 of its counts without its values, 28 of both, and its information."""
    profile = multiset(hashing, np.sort(counts).astype(np.uint64), np.ones_like(counts))
    return (profile >> 36) << 36 | (digest >> 36) << 8 | min(int(bits), 255)


def same_columns(ours: frozenset[int], theirs: frozenset[int]) -> bool:
    """Whether more columns are equal than chance makes so.

    For equal columns of b bits each, 2 to the sum of b / 2 has an expectation of at most the
    product of 1 + m 2^(-b / 2) over all our columns, where any of m of theirs may be met (Markov's
    inequality; columns taken as independent). So what goes beyond it by `_PROOF` bits is met once
    in 2^`_PROOF` times. Columns of one profile are codes of each other and count once.
    """
    best: dict[int, int] = {}
    for mark in ours & theirs:
        best[mark >> 36] = max(best.get(mark >> 36, 0), mark & 255)
    if not best:
        return False
    by_chance = min(
        sum(math.log2(1 + len(others) * 2.0 ** (-(mark & 255) / 2)) for mark in some)
        for some, others in ((ours, theirs), (theirs, ours))
    )
    return sum(best.values()) / 2 - by_chance > _PROOF


def multiset(hashing: Hashing, values: Hashes, counts: NDArray[np.int64]) -> int:
    """A digest of values and their shares, whatever their order: each value twice is the same."""
    if not len(values):
        return 0
    shares = counts // np.gcd.reduce(counts)
    with np.errstate(over="ignore"):
        each = hashing.mixed(values + hashing.mixed(shares.astype(np.uint64)))
        return int(hashing.mixed(each.sum(keepdims=True, dtype=np.uint64))[0])
