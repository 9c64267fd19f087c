"""Columns of a table as features of a model, a whole column at a time.

*Guarantee:* training and predictions read rows by this one function, so the features of a row, and
whether it has any, are the same bits in both. What a row becomes depends on that row and on what
is declared, and on no other row.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nacre.data.columns.column import Column
from nacre.data.columns.dates import PART_VALUES, Dates, part_of
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.columns.faults import SHOWN, Fault, FaultKind, FaultPolicy
from nacre.data.columns.values import (
    FloatColumn,
    RowCodes,
    RowMask,
    as_column,
    different,
    lacks_value,
    numbers_in,
    shown_value,
)
from nacre.data.readers import text

OutOfRange = Literal["refuse", "clamp", "drop"]

_LARGEST = float(np.finfo(np.float32).max)  # beyond it a feature would become infinite

_COMPARED = 10_000  # rows of which the different values are counted

ColumnEntries = NDArray[np.floating[Any]]

Remedies = Mapping[FaultKind, str]
"""What to do about each kind of fault, as the end of a sentence."""


@dataclass
class ColumnReading:
    """How columns are read, and what was found wrong with them, in the order of the columns."""

    dialect: Dialect
    on_out_of_range: OutOfRange
    remedies: Remedies
    faults: list[Fault] = field(default_factory=list[Fault])

    def note(
        self, column: str, kind: FaultKind, words: str, rows: RowCodes, policy: FaultPolicy,
        values: Any,
    ) -> None:  # fmt: skip
        """Adds a fault; nothing where no row has it."""
        if not len(rows):
            return
        value, others = "", 0
        if kind != "missing":
            value = shown_value(values, int(rows[0]))[:SHOWN]
            if kind == "unlisted":
                others = len({shown_value(values, int(row)) for row in rows[:_COMPARED]}) - 1
        remedy = "" if policy != "refuse" else self.remedies[kind]
        self.faults.append(Fault(column, kind, words, rows, policy, remedy, value, others))

    def missing(self, column: Column, has: RowMask) -> None:
        """Notes rows without a value, unless a declared one stands in for it."""
        if column.missing != "fill":
            rows = np.flatnonzero(~has)
            self.note(column.name, "missing", "there is no value", rows, column.missing, None)

    def entries(self, values: Any, column: Column) -> ColumnEntries:
        """(N, entries), of float64 or of zeros and ones; those of a faulty row are finite."""
        plain = as_column(values)
        has, found = self._read(plain, column)
        self.missing(column, has)
        if column.missing == "fill" and not has.all():
            found[~has] = filled(column)
        if column.flag:
            found = np.concatenate([found, (~has)[:, None].astype(np.float64)], axis=1)
        return found

    def _read(self, values: Any, column: Column) -> tuple[RowMask, ColumnEntries]:
        """((N,) which rows have a value, (N, entries) without the flag)."""
        match column.kind:
            case "number":
                has, numbers = self.numbers(values, column)
                return has, coded(numbers, column)
            case "date":
                return self._dates(values, column)
            case "category":
                has, places = self.choices(values, column)
                return has, _one_of(places, len(column.categories) + column.other)
            case "hash":
                has, places = self._looked_up(values, lambda word: bucket(word, column.buckets))
                return has, _one_of(places, column.buckets)
            case "boolean":
                return self._truths(values, column)

    # -- numbers -------------------------------------------------------------------------------

    def numbers(self, values: Any, column: Column) -> tuple[RowMask, FloatColumn]:
        """(N,) which rows have a value; (N,) float64 inside the range, clamped where that is the
        policy; 0 where there is no legal number."""
        has, numbers, wrong = numbers_in(values, self.dialect)
        self.note(column.name, "no number", "it is not a number", wrong, "refuse", values)
        legal = has.copy()
        legal[wrong] = False
        return has, self._inside(numbers, legal, values, column)

    def _inside(
        self, numbers: FloatColumn, has: RowMask, values: Any, column: Column
    ) -> FloatColumn:
        low = -math.inf if column.low is None else column.low
        high = math.inf if column.high is None else column.high
        policy: FaultPolicy = self.on_out_of_range
        said = f"the value lies outside {_range(column)}"
        if policy == "clamp":
            inside = np.clip(numbers, low, high)
            moved = np.flatnonzero(has & (inside != numbers))
            self.note(column.name, "outside", said, moved, "clamp", values)
            numbers, policy = inside, "refuse"
        outside = (numbers < max(low, -_LARGEST)) | (numbers > min(high, _LARGEST))
        self.note(column.name, "outside", said, np.flatnonzero(has & outside), policy, values)
        return np.where(outside | ~has, 0.0, numbers)

    # -- words ---------------------------------------------------------------------------------

    def choices(self, values: Any, column: Column) -> tuple[RowMask, RowCodes]:
        """(N,) which rows have a value; (N,) places among the categories, 0 where there is none.
        A declared category comes before the words for no value."""
        known = {value: place for place, value in enumerate(column.categories)}
        has, places = self._looked_up(values, lambda word: known.get(word, -1), known)
        if column.other:
            return has, np.where(has & (places < 0), len(known), np.maximum(places, 0))
        self._unlisted(values, column, np.flatnonzero(has & (places < 0)))
        return has, np.maximum(places, 0)

    def _truths(self, values: Any, column: Column) -> tuple[RowMask, ColumnEntries]:
        known = dict.fromkeys(column.yes, 1) | dict.fromkeys(column.no, 0)
        has, places = self._looked_up(values, lambda word: known.get(word.lower(), -1), known)
        self._unlisted(values, column, np.flatnonzero(has & (places < 0)))
        return has, np.maximum(places, 0)[:, None].astype(np.float64)

    def _unlisted(self, values: Any, column: Column, rows: RowCodes) -> None:
        # No number stands for an unlisted category, so there is nothing to clamp it to.
        policy: FaultPolicy = "drop" if self.on_out_of_range == "drop" else "refuse"
        listed = column.categories or (*column.yes, *column.no)
        said = f"it is none of {_listed(listed)}"
        self.note(column.name, "unlisted", said, rows, policy, values)

    def _looked_up(
        self, values: Any, found: Callable[[str], int], known: Mapping[str, int] | None = None
    ) -> tuple[RowMask, RowCodes]:
        """(N,) which rows have a value; (N,) what is found of each value's text, -1 for none."""
        words, codes = different(values)
        places = np.array([found(text(word)) for word in words], np.int64)
        lacking = np.array([lacks_value(word, self.dialect) for word in words], np.bool_)
        if known is not None:
            lacking &= places < 0
        places[lacking] = -1 if known is not None else 0
        return ~lacking[codes], places[codes]

    # -- dates ---------------------------------------------------------------------------------

    def _dates(self, values: Any, column: Column) -> tuple[RowMask, ColumnEntries]:
        dates = column.dates
        assert dates is not None
        words, codes = different(values)
        lacking = np.array([lacks_value(word, self.dialect) for word in words], np.bool_)
        moments = [
            None if gone else dates.moment(word)
            for word, gone in zip(words, lacking.tolist(), strict=True)
        ]
        no_date = np.array([moment is None for moment in moments], np.bool_) & ~lacking
        wrong = np.flatnonzero(no_date[codes])
        said = f"it is no date of the form {dates.format}"
        self.note(column.name, "no date", said, wrong, "refuse", values)
        has = ~lacking[codes]
        legal = has & ~no_date[codes]
        if not dates.parts:
            numbers = np.array([dates.number(moment) for moment in moments], np.float64)
            plain = np.where(legal, numbers[codes], 0.0)
            return has, coded(self._inside(plain, legal, values, column), column)
        return has, self._parts(dates, moments, codes, legal, values, column)

    def _parts(
        self, dates: Dates, moments: Sequence[Any], codes: RowCodes, legal: RowMask, values: Any,
        column: Column,
    ) -> ColumnEntries:  # fmt: skip
        blocks: list[ColumnEntries] = []
        for part in dates.parts:
            found = np.array([part_of(moment, part) for moment in moments], np.int64)[codes]
            if part == "year":
                years = np.where(legal, found, 0).astype(np.float64)
                blocks.append(self._inside(years, legal, values, column)[:, None])
            else:
                first = PART_VALUES[part][0]
                places = np.where(legal, found - first, 0)
                blocks.append(_one_of(places, len(PART_VALUES[part])))
        return np.concatenate(blocks, axis=1)


def bucket(word: str, buckets: int) -> int:
    """Which input a code falls into: by the first 8 bytes of BLAKE2b of its text in Unicode NFC,
    modulo `buckets`. No key: the same code is the same input in every run.

    >>> bucket("E11.9", 64), bucket("I10", 64)
    (14, 50)
    """
    plain = unicodedata.normalize("NFC", word).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "big") % buckets


def coded(
    numbers: FloatColumn,  # (N,) inside the range
    column: Column,
) -> ColumnEntries:
    """(N, entries): the numbers as the column's coding says.

    >>> age = Column("age", "number", 0, 30, coding="piecewise", edges=(0, 10, 20, 30))
    >>> coded(np.array([15.0]), age).tolist()
    [[1.0, 0.5, 0.0]]
    """
    if column.coding == "plain":
        return numbers[:, None]
    edges = np.array(column.edges, np.float64)
    if column.coding == "bins":
        places = np.searchsorted(edges, numbers, side="right") - 1
        return _one_of(np.clip(places, 0, len(edges) - 2), len(edges) - 1)
    share = (numbers[:, None] - edges[:-1]) / (edges[1:] - edges[:-1])
    return np.clip(share, 0.0, 1.0)


def filled(column: Column) -> ColumnEntries:
    """(entries,) of the declared value that stands in for none, without the flag."""
    own = replace(column, missing="refuse", fill=None, flag=False)
    reading = ColumnReading(PLAIN, "refuse", _NO_REMEDIES)
    return reading.entries([column.fill], own)[0]


def fill_problem(column: Column) -> str | None:
    """Why the declared value for none is no legal value of its column; None where it is one."""
    if column.missing != "fill":
        return None
    own = replace(column, missing="refuse", fill=None, flag=False)
    reading = ColumnReading(PLAIN, "refuse", _NO_REMEDIES)
    reading.entries([column.fill], own)
    if not reading.faults:
        return None
    return f"value={column.fill!r} fills column {column.name!r}, where {reading.faults[0].words}"


_NO_REMEDIES: Remedies = dict.fromkeys(
    ("missing", "no number", "no date", "outside", "unlisted"), ""
)


def features_of(
    columns: Mapping[str, Any],  # name -> (N,) values of a file
    declared: Sequence[Column],
    reading: ColumnReading,
    count: int,  # N
) -> NDArray[np.float32]:
    """(N, F) float32 features in the columns' own units, categories one-hot. What is wrong with
    some rows is added to `reading.faults`."""
    width = sum(len(column.layout()) for column in declared)
    features = np.empty((count, width), np.float32)
    start, blocks = 0, list[NDArray[np.float32]]()
    for place, column in enumerate(declared, start=1):
        blocks.append(reading.entries(columns[column.name], column).astype(np.float32))
        together = sum(block.shape[1] for block in blocks)
        if together >= _LINE or place == len(declared):
            _write(features[:, start : start + together], blocks)
            start += together
            blocks.clear()
    return features


_LINE = 16  # float32 numbers that memory moves at once
_NEAR = 1 << 10  # rows that stay near the processor while they are written


def _write(into: NDArray[np.float32], blocks: Sequence[NDArray[np.float32]]) -> None:
    """Puts blocks side by side, a few rows of all of them at a time: a single column by itself
    would go through the memory of all the others."""
    for first in range(0, len(into), _NEAR):
        rows = slice(first, first + _NEAR)
        np.concatenate([block[rows] for block in blocks], axis=1, out=into[rows])


def _one_of(places: RowCodes, width: int) -> ColumnEntries:
    """(N, width): 1 at each row's place."""
    if width <= _NARROW:
        return np.eye(width, dtype=np.float32).take(places, axis=0)
    found = np.zeros((len(places), width), np.float32)
    found[np.arange(len(places)), places] = 1.0
    return found


_NARROW = 64  # entries of which every possible row is made beforehand


def _range(column: Column) -> str:
    if column.low is None and column.high is None:
        return "the finite numbers"
    low = "-inf" if column.low is None else text(column.low)
    return f"[{low}, {'inf' if column.high is None else text(column.high)}]"


def _listed(categories: Sequence[str]) -> str:
    shown = ", ".join(value[:SHOWN] for value in categories[:8])
    return shown if len(categories) <= 8 else f"{shown} and {len(categories) - 8} more"
