"""The vector of whole numbers that answers are computed from, and its noise.

What an answer needs of the rows is counts, sums and bars (`Noising`). Each is a *slot* of one
vector of whole numbers, in the order in which the answers ask, which follows from the queries
alone. A party writes its own numbers into the slots, the server reads those of the sum out of them,
and both run the code that answers one holder's queries.

*Sensitivity:* a row moves a slot by `cells` at most: a count or a bar by 1 times the cells of a
row, a sum by the end of its range that lies further off. A unit has `rows_per_unit` rows at one
party, each in one bar and in one group, so it moves the slots of one part of a query by `moved`
together, in L1 and so in L2. A number beyond what a party may add is clamped to it, which brings no
two numbers further apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BadArgument, NotAsPlanned
from nacre.core.random import Source
from nacre.differential_privacy.noise.shares import NoiseShares
from nacre.differential_privacy.queries import QueryOption
from nacre.statistics.across.options import Across, DistributedNoise
from nacre.statistics.answers import Answer, answer
from nacre.statistics.frames import table_without_rows
from nacre.statistics.noisy_numbers import (
    CONFIDENCE,
    NoisyNumbers,
    in_cells,
    margin,
    noised_wholes,
    rho,
)

_FINEST = 30
"""Cells of a row, as a power of two, at most: those of one holder's sums."""
_ROWS = 26
"""Rows of a party, as a power of two, that are added up before a number is clamped."""
_NARROW, _WIDE = 8, 39
"""Least and greatest deviation of a share of noise in cells, as powers of two: far above the half
from which a sum of shares is a Gaussian, and below what is drawn exactly."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Numbers that are noised together: one, or the bars of a histogram."""

    query: QueryOption
    size: int  # numbers
    cells: int  # that one row moves a number at most
    reach: float  # what so many cells stand for
    parts: int  # into which the budget of the query is split

    @property
    def moved(self) -> int:
        """Cells that one unit moves the numbers, in L1."""
        return self.cells * self.query.rows_per_unit

    @property
    def cell(self) -> float:
        """What one cell stands for."""
        return self.reach / self.cells

    def read(self, cells: NoisyNumbers) -> NoisyNumbers:
        """The same numbers in units of the query."""
        values = tuple(value * self.cell for value in cells.values)
        return NoisyNumbers(values, cells.scale * self.cell, cells.margin * self.cell)


def slots_of(queries: Sequence[QueryOption], across: Across) -> tuple[Slot, ...]:
    """The slots of these queries, from the queries alone. Raises `BadArgument` for one whose noise
    no share can have."""
    found: list[Slot] = []
    for query in queries:
        answer(table_without_rows(query), query, Source(bytes(32)), _Laid(found, across))
    return tuple(found)


def summed_at(
    tables: Sequence[object],  # a data frame for each query
    queries: Sequence[QueryOption],
    slots: Sequence[Slot],
    most: int,  # in absolute value, of one number
    source: Source,  # keys which rows of a person are kept
) -> NDArray[np.int64]:  # (numbers of all slots,)
    """One party's own numbers, exact: nothing of them may leave but inside a secure sum."""
    held = _Held(slots, most)
    for number, (table, query) in enumerate(zip(tables, queries, strict=True)):
        answer(table, query, source.child("kept rows", str(number)), held)  # pyright: ignore[reportArgumentType]
    return np.array(held.values, dtype=np.int64)


def answered_from(
    values: Sequence[int],  # of the sum, in the order of the slots
    queries: Sequence[QueryOption],
    slots: Sequence[Slot],
    noise: SumNoise,
) -> tuple[Answer, ...]:
    """The answers that a sum over parties gives."""
    opened = _ReadOut(slots, values, noise)
    return tuple(
        answer(table_without_rows(query), query, Source(bytes(32)), opened) for query in queries
    )


# -- noise ---------------------------------------------------------------------------------------


class SumNoise(Protocol):
    """What becomes of the numbers of a slot at the server."""

    def released(self, values: list[int], slot: Slot, confidence: float) -> NoisyNumbers:
        """The numbers with their noise, in cells."""
        ...


class AddedHere:
    """The server adds the noise of one holder's answers to the exact sum, by OpenDP."""

    def released(self, values: list[int], slot: Slot, confidence: float) -> NoisyNumbers:
        """See `SumNoise`."""
        return noised_wholes(values, slot.moved, slot.query, slot.parts, confidence)


@dataclass(frozen=True)
class AddedInShares:
    """Every party that answered has added its share."""

    counted: int  # shares that the price rests on
    added: int  # shares that are there

    def released(self, values: list[int], slot: Slot, confidence: float) -> NoisyNumbers:
        """See `SumNoise`."""
        shares = noise_shares(slot, self.counted)
        scale = math.sqrt(self.added * shares.variance)
        return NoisyNumbers(tuple(map(float, values)), scale, margin(scale, confidence, True))


def noise_shares(slot: Slot, counted: int) -> NoiseShares:
    """The noise that each party adds to a slot, so that `counted` shares pay for it."""
    multiplier = _multiplier(slot.query, slot.parts) * (1 + 1e-9)
    return NoiseShares.of(multiplier, shares=counted, dimension=slot.size, sensitivity=slot.moved)


def share_of_noise(
    slots: Sequence[Slot], counted: int, source: Source
) -> NDArray[np.int64]:  # (numbers of all slots,)
    """One party's share of the noise. `source` is its own, and this release's alone.

    Raises `NotAsPlanned` where the shares together cost more than their query pays for.
    """
    drawn: list[NDArray[np.int64]] = []
    whole = sum(slot.size for slot in slots)
    for number, slot in enumerate(slots):
        shares = noise_shares(slot, counted)
        together = replace(shares, dimension=whole)  # of the slots of one query, at most
        if not together.rho <= rho(slot.query.epsilon, slot.query.delta) / slot.parts:
            raise NotAsPlanned(
                f"the noise of query {slot.query.name!r} costs more than it pays for: report it"
            )
        drawn.append(shares.drawn(source.child("noise", str(number))))
    return np.concatenate(drawn)


def _multiplier(query: QueryOption, parts: int) -> float:
    """Deviation of the noise, in what one unit moves."""
    return math.sqrt(parts / (2 * rho(query.epsilon, query.delta)))


# -- three ways through the slots ----------------------------------------------------------------


@dataclass
class _Laid:
    """Writes down the slots that are asked for."""

    slots: list[Slot]
    across: Across

    def count(
        self, rows: int, query: QueryOption, parts: int, confidence: float = CONFIDENCE
    ) -> NoisyNumbers:
        return self._slot(query, 1, 1.0, parts, counts=True)

    def total(
        self, numbers: NDArray[np.float64], low: float, high: float, query: QueryOption,
        parts: int, confidence: float = CONFIDENCE,
    ) -> NoisyNumbers:  # fmt: skip
        return self._slot(query, 1, max(abs(low), abs(high)), parts, counts=False)

    def histogram(self, places: list[int], bars: int, query: QueryOption) -> NoisyNumbers:
        return self._slot(query, bars, 1.0, 1, counts=True)

    def _slot(
        self, query: QueryOption, size: int, reach: float, parts: int, *, counts: bool
    ) -> NoisyNumbers:
        cells = 2 ** self._finer(query, parts, counts=counts)
        self.slots.append(Slot(query=query, size=size, cells=cells, reach=reach, parts=parts))
        return NoisyNumbers((0.0,) * size, 1.0, 1.0)

    def _finer(self, query: QueryOption, parts: int, *, counts: bool) -> int:
        """Cells of a row, as a power of two. Under distributed noise counts have a finer grid than
        rows, since narrow shares add up to no Gaussian."""
        room = min(_FINEST, 61 - _ROWS - len(self.across.parties).bit_length())
        if not isinstance(self.across.noise, DistributedNoise):
            return 0 if counts else room
        deviation = query.rows_per_unit * _multiplier(query, parts)
        share = math.log2(deviation) - math.log2(self.across.counted) / 2
        coarsest, finest = math.ceil(_NARROW - share), math.floor(_WIDE - share)
        if finest < 0 or coarsest > room:
            raise BadArgument(
                f"query {query.name!r}: noise of deviation {deviation:g} rows cannot be drawn in "
                "shares; use another epsilon, fewer `rows_per_unit`, or `noise: {kind: central}`"
            )
        return max(coarsest, 0) if counts else min(finest, room)


class _Held:
    """Writes one party's exact numbers into the slots."""

    def __init__(self, slots: Sequence[Slot], most: int) -> None:
        self._slots, self._most = iter(slots), most
        self.values: list[int] = []

    def count(
        self, rows: int, query: QueryOption, parts: int, confidence: float = CONFIDENCE
    ) -> NoisyNumbers:
        slot = next(self._slots)
        return self._put([rows * slot.cells])

    def total(
        self, numbers: NDArray[np.float64], low: float, high: float, query: QueryOption,
        parts: int, confidence: float = CONFIDENCE,
    ) -> NoisyNumbers:  # fmt: skip
        wholes, ends, _ = in_cells(numbers, low, high, next(self._slots).cells)
        return self._put([sum(np.clip(wholes, *ends).tolist())])

    def histogram(self, places: list[int], bars: int, query: QueryOption) -> NoisyNumbers:
        slot = next(self._slots)
        counts = np.bincount(np.array(places, dtype=np.int64), minlength=bars).tolist()
        return self._put([count * slot.cells for count in counts])

    def _put(self, values: list[int]) -> NoisyNumbers:
        self.values += [min(max(value, -self._most), self._most) for value in values]
        return NoisyNumbers((0.0,) * len(values), 1.0, 1.0)


class _ReadOut:
    """Reads the numbers of the sum from the slots."""

    def __init__(self, slots: Sequence[Slot], values: Sequence[int], noise: SumNoise) -> None:
        self._slots, self._values, self._noise = iter(slots), list(values), noise
        self._place = 0

    def count(
        self, rows: int, query: QueryOption, parts: int, confidence: float = CONFIDENCE
    ) -> NoisyNumbers:
        return self._next(confidence)

    def total(
        self, numbers: NDArray[np.float64], low: float, high: float, query: QueryOption,
        parts: int, confidence: float = CONFIDENCE,
    ) -> NoisyNumbers:  # fmt: skip
        return self._next(confidence)

    def histogram(self, places: list[int], bars: int, query: QueryOption) -> NoisyNumbers:
        return self._next(CONFIDENCE)

    def _next(self, confidence: float) -> NoisyNumbers:
        slot = next(self._slots)
        values = self._values[self._place : self._place + slot.size]
        self._place += slot.size
        return slot.read(self._noise.released(values, slot, confidence))
