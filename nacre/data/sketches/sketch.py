"""Sketches of private rows: enough to know the same data again under another name.

A sketch has a fixed size whatever it is of. It holds, as 64-bit hashes under a key:

- the whole table, without the order of its rows and columns and without uniform repetition;
- columns and pairs of columns, each as its values with their shares and how much that says;
- the `KEPT` smallest hashes of all rows, and of all *telling parts* (a pair of cells, or eight
  words in a row, that a single row of the table has).

*Why parts:* who drops, adds or rescales a column changes every row, and leaves the pairs among the
other columns.

*Chance.* Rows of few small categories agree between any two tables of one population. How likely
that is follows from the table itself: a new value was seen before with about the share of values
that are no singletons (Good 1953, "The population frequencies of species"), and a value seen once
is met 2 n2 / n1 times in another sample (the same source). What two tables share has to exceed it.

*Source of the sketch:* Broder 1997, "On the resemblance and containment of documents".
"""

# Parts of NumPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.data.sketches.cells import NARROW, Cells, Hashes, Hashing
from nacre.data.sketches.marks import judged, multiset, same_columns

KEPT = 512
"""Hashes of each kind that a sketch holds."""

SHARE = 0.1
"""Two tables are the same data if they share more of their rows, or of their telling parts, than
this, beyond what chance lets them share."""

_COLUMNS = 64  # digests of columns that a sketch holds
_PAIRED = 16  # cells of a row at most that are paired with each other, those of smallest hashes
_PAIRS = 1 << 24  # pairs of cells that are made
_AMONG = 64  # columns whose cells are paired: those of the most different values
_WINDOW = 8  # words or tokens of a telling part
_SAMPLED = 1 << 20  # parts that are looked at; of more, those of the smallest hashes
_ALL = 2**64 - 1
_FORMAT = struct.Struct(f"<{2 * KEPT + _COLUMNS + 3}Q2d")


@dataclass(frozen=True)
class Sketch:
    """What is kept of private rows; of one size, and comparable under one key alone."""

    table: int
    columns: frozenset[int]
    rows: frozenset[int]
    parts: frozenset[int]
    reach: int  # the hash up to which `parts` were looked at
    rows_by_chance: float  # share of another sample's rows that are expected here
    parts_by_chance: float
    split: int = 0  # which column dealt the rows to parties; 0 for none

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept: all rows are alike, or hold nothing but days and numbers that
        count the rows. Such rows are neither the same as others nor new."""
        return not (self.rows or self.parts or self.columns)

    def same_data(self, other: Sketch) -> bool:
        """Whether both are of the same rows, up to what is stated at the head of this module."""
        if self.table == other.table != 0 or same_columns(self.columns, other.columns):
            return True
        ours = (self.rows, _ALL, self.rows_by_chance)
        theirs = (other.rows, _ALL, other.rows_by_chance)
        if _overlap(ours, theirs):
            return True
        ours = (self.parts, self.reach, self.parts_by_chance)
        theirs = (other.parts, other.reach, other.parts_by_chance)
        return _overlap(ours, theirs)

    def to_bytes(self) -> bytes:
        """As many bytes for every sketch."""
        sides = [(self.columns, _COLUMNS), (self.rows, KEPT), (self.parts, KEPT)]
        numbers = [
            number for side, size in sides for number in [*sorted(side), *[0] * (size - len(side))]
        ]
        return _FORMAT.pack(
            self.table, self.reach, self.split, *numbers, self.rows_by_chance, self.parts_by_chance
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """What `to_bytes` gave. Raises `ValueError` for anything else."""
        if len(data) != _FORMAT.size:
            raise ValueError(f"a sketch has {_FORMAT.size} bytes, and not {len(data)}")
        table, reach, split, *numbers, by_row, by_part = _FORMAT.unpack(data)
        cuts = (_COLUMNS, _COLUMNS + KEPT)
        sides = (numbers[: cuts[0]], numbers[cuts[0] : cuts[1]], numbers[cuts[1] :])
        columns, rows, parts = (frozenset(side) - {0} for side in sides)
        return cls(table, columns, rows, parts, reach, by_row, by_part, split)


def sketched(sources: Sequence[Cells], key: bytes, split: str | None = None) -> Sketch:
    """The sketch of all rows of these sources under `key`. `split` is the column by whose values
    these rows, and no others of their data set, are one party's."""
    hashing = Hashing(key)
    rows: list[Hashes] = []
    parts = _Parts()
    columns: set[int] = set()
    for source in sources:
        if source.form == "sequence":
            for flat, lengths in source.sequences(hashing):
                rows.append(_of_sequences(hashing, flat, lengths, parts))
            continue
        for block in source.columns(hashing):
            paired = block
            if source.in_columns or len(block) <= NARROW:
                block, digests = judged(hashing, block)
                paired = block[:_AMONG]
                columns |= digests
            rows.append(_of_cells(hashing, block, paired, parts))
    whole = np.concatenate([*rows, np.zeros(0, np.uint64)])
    smallest, by_row = _smallest_rows(whole)
    telling, reach, by_part = parts.telling()
    return Sketch(
        table=multiset(hashing, *np.unique(whole, return_counts=True)),
        columns=frozenset(sorted(columns)[:_COLUMNS]),
        rows=smallest,
        parts=telling,
        reach=reach,
        rows_by_chance=by_row,
        parts_by_chance=by_part,
        split=0 if split is None else int(hashing.words([split])[0]),
    )


def _of_cells(
    hashing: Hashing, columns: list[Hashes], paired: list[Hashes], parts: _Parts
) -> Hashes:
    """The rows, whatever the order of the columns; the pairs of their cells in the columns that are
    `paired` go to `parts`."""
    count = len(columns[0]) if columns else 0
    whole = np.empty(count, np.uint64)
    same = len(paired) == len(columns)
    cells = min(len(paired), _paired_cells(count))
    places = np.triu_indices(cells, 1)
    for start in range(0, count, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        once = _cells_once(hashing, columns, some)
        whole[some] = hashing.mixed(once.sum(1, dtype=np.uint64))
        chosen = once if same else _cells_once(hashing, paired, some)
        chosen = _smallest(np.where(chosen == 0, _NONE, chosen), cells)
        with np.errstate(over="ignore"):
            pairs = hashing.mixed(chosen[:, places[0]] + hashing.mixed(chosen)[:, places[1]])
        held = chosen != _NONE
        if held.all():
            parts.add(pairs, whole[some, None])
        else:
            real = held[:, places[0]] & held[:, places[1]]
            parts.add(pairs[real], np.broadcast_to(whole[some, None], pairs.shape)[real])
    return whole


def _paired_cells(rows: int) -> int:
    """How many cells of a row are paired: fewer of more rows, of which enough is seen anyway. The
    pairs of fewer cells are among those of more, so tables of any sizes can be compared."""
    fits = (cells for cells in range(_PAIRED, 4, -1) if rows * cells * (cells - 1) // 2 <= _PAIRS)
    return next(fits, 4)


def _smallest(rows: Hashes, count: int) -> Hashes:
    """(N, count at most) the smallest entries of each row, in order."""
    if rows.shape[1] > count:
        rows = np.partition(rows, count - 1, axis=1)[:, :count]
    return np.sort(rows, axis=1)


_NONE = np.uint64(_ALL)
_AT_ONCE = 1 << 10  # rows whose pairs are in memory together


def _cells_once(hashing: Hashing, columns: list[Hashes], rows: slice | NDArray[Any]) -> Hashes:
    """(rows, columns): the cells, hashed; 0 for no value."""
    cells = np.stack([column[rows] for column in columns], axis=1)
    return np.where(cells == 0, np.uint64(0), hashing.mixed(cells))


def _of_sequences(
    hashing: Hashing,
    flat: Hashes,  # the values of all rows
    lengths: NDArray[np.int64],  # of the rows
    parts: _Parts,
) -> Hashes:
    """The rows of texts or tokens that are not empty; their windows go to `parts`."""
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return np.zeros(0, np.uint64)
    starts = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(flat)) - starts[row]
    order = hashing.mixed(np.arange(1, int(lengths.max()) + 1, dtype=np.uint64)) | np.uint64(1)
    weights = hashing.mixed(np.arange(1, _WINDOW + 1, dtype=np.uint64)) | np.uint64(1)
    with np.errstate(over="ignore"):
        whole = hashing.mixed(np.add.reduceat(flat * order[within], starts))
        first = np.flatnonzero(within + _WINDOW <= lengths[row])
        total = np.zeros(len(first), np.uint64)
        for place, weight in enumerate(weights):
            total += flat[first + place] * weight
    parts.add(hashing.mixed(total), whole[row[first]])
    return whole


def _smallest_rows(rows: Hashes) -> tuple[frozenset[int], float]:
    """The smallest hashes of distinct rows, and the share of another sample that chance finds."""
    if not len(rows):
        return frozenset(), 1.0
    values, counts = np.unique(rows, return_counts=True)
    counts = counts // np.gcd.reduce(counts)
    chance = 1.0 - float((counts == 1).sum()) / float(counts.sum())
    return frozenset(values[:KEPT].tolist()) - {0}, chance


class _Parts:
    """The parts of rows as they come, of which those with the smallest hashes are kept."""

    def __init__(self) -> None:
        self._total = 0
        self._parts: list[Hashes] = []
        self._owners: list[Hashes] = []

    @property
    def _reach(self) -> int:
        """How far parts are looked at; the more there are, the less far."""
        return _ALL if self._total <= _SAMPLED else _ALL * _SAMPLED // self._total

    def add(self, parts: Hashes, owners: Hashes) -> None:
        """More parts, and the row of each, of a shape that is broadcast to theirs."""
        self._total += parts.size
        near = parts <= np.uint64(self._reach)
        self._parts.append(parts[near])
        self._owners.append(np.broadcast_to(owners, parts.shape)[near])
        if sum(map(len, self._parts)) > 4 * _SAMPLED:
            self._cut()

    def _cut(self) -> None:
        """Keeps what is still within reach."""
        part = np.concatenate([*self._parts, np.zeros(0, np.uint64)])
        owner = np.concatenate([*self._owners, np.zeros(0, np.uint64)])
        near = part <= np.uint64(self._reach)
        self._parts, self._owners = [part[near]], [owner[near]]

    def telling(self) -> tuple[frozenset[int], int, float]:
        """The smallest hashes of parts that one distinct row has, how far they were looked for, and
        how often chance meets them."""
        if not self._total:
            return frozenset(), _ALL, 1.0
        self._cut()
        part, owner, reach = self._parts[0], self._owners[0], self._reach
        order = np.lexsort((owner, part))
        part, owner = part[order], owner[order]
        new = np.ones(len(part), np.bool_)
        new[1:] = (part[1:] != part[:-1]) | (owner[1:] != owner[:-1])
        values, counts = np.unique(part[new], return_counts=True)
        # Rows that are equal met a part by chance as well: of two columns, parts are the rows.
        _, seen = np.unique(part, return_counts=True)
        seen = seen // np.gcd.reduce(seen)
        once, twice = int((seen == 1).sum()), int((seen == 2).sum())
        # By two deviations more: of few parts nobody knows what is rare.
        chance = min(1.0, (2 * (twice + 2 * math.sqrt(twice)) + 1) / (once + 1))
        telling = values[counts == 1]
        if len(telling) > KEPT:
            reach = int(telling[KEPT - 1])
        return frozenset(telling[:KEPT].tolist()) - {0}, reach, chance


_Side = tuple[frozenset[int], int, float]  # hashes, how far they are complete, chance


def _overlap(our_side: _Side, their_side: _Side) -> bool:
    """Whether one side holds more of the other than chance would put there.

    Of sets of different sizes the smallest hashes reach differently far: both are cut where the
    shorter reach ends, below which each side's list is complete.
    """
    ours, our_reach, our_chance = our_side
    theirs, their_reach, their_chance = their_side
    reach = min(our_reach, their_reach)
    reach = min([reach, *(max(side) for side in (ours, theirs) if len(side) >= KEPT)])
    ours = frozenset(value for value in ours if value <= reach)
    theirs = frozenset(value for value in theirs if value <= reach)
    shared = len(ours & theirs)
    if shared < 2:
        return False
    # Another sample's values are expected in a table by that table's own chance.
    held = ((shared / len(theirs), our_chance, len(theirs)),
            (shared / len(ours), their_chance, len(ours)))  # fmt: skip
    return any(
        share > SHARE + chance + (chance > 0) / math.sqrt(count) for share, chance, count in held
    )
