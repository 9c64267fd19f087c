"""Sketches of private rows: enough to know the same data again under another name.

A sketch has a fixed size whatever it is of. It holds, as 64-bit hashes under a key:

- the whole table, without the order of its rows and columns and without uniform repetition;
- each column that has many values, as the set of its values with their shares;
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nacre.data.cells import Cells, Hashes, Hashing

KEPT = 512
"""Hashes of each kind that a sketch holds."""

SHARE = 0.1
"""Two tables are the same data if they share more of their rows, or of their telling parts, than
this, beyond what chance lets them share."""

_COLUMNS = 64  # digests of columns that a sketch holds
_PAIRED = 16  # cells of a row that are paired with each other: those of the smallest hashes
_WINDOW = 8  # words or tokens of a telling part
_JUDGED = 256  # columns; wider rows are pixels and the like, which have no roles
_BITS = 40.0  # of information before two equal columns are no chance
_SAMPLED = 1 << 20  # parts that are looked at; of more, those of the smallest hashes
_ALL = 2**64 - 1
_FORMAT = struct.Struct(f"<{2 * KEPT + _COLUMNS + 2}Q2d")


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

    def same_data(self, other: Sketch) -> bool:
        """Whether both are of the same rows, up to what is stated at the head of this module."""
        if self.table == other.table or self.columns & other.columns:
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
            self.table, self.reach, *numbers, self.rows_by_chance, self.parts_by_chance
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """What `to_bytes` gave. Raises `ValueError` for anything else."""
        if len(data) != _FORMAT.size:
            raise ValueError(f"a sketch has {_FORMAT.size} bytes, and not {len(data)}")
        table, reach, *numbers, by_row, by_part = _FORMAT.unpack(data)
        cuts = (_COLUMNS, _COLUMNS + KEPT)
        sides = (numbers[: cuts[0]], numbers[cuts[0] : cuts[1]], numbers[cuts[1] :])
        columns, rows, parts = (frozenset(side) - {0} for side in sides)
        return cls(table, columns, rows, parts, reach, by_row, by_part)


def sketched(sources: Sequence[Cells], key: bytes) -> Sketch:
    """The sketch of all rows of these sources under `key`."""
    hashing = Hashing(key)
    rows: list[Hashes] = []
    parts: list[Hashes] = []
    owners: list[Hashes] = []
    columns: set[int] = set()
    for source in sources:
        for block in source.hashed(hashing):
            if not block:
                continue
            if source.form == "sequence":
                whole, found, owner = _of_sequences(hashing, block)
            else:
                cells, digests = _judged(hashing, np.stack(block))
                columns |= digests
                whole, found, owner = _of_cells(hashing, cells)
            rows.append(whole)
            parts.append(found)
            owners.append(owner)
    whole = np.concatenate(rows) if rows else np.zeros(0, np.uint64)
    smallest, by_row = _smallest_rows(whole)
    telling, reach, by_part = _telling(parts, owners)
    return Sketch(
        table=_multiset(hashing, whole),
        columns=frozenset(sorted(columns)[:_COLUMNS]),
        rows=smallest,
        parts=telling,
        reach=reach,
        rows_by_chance=by_row,
        parts_by_chance=by_part,
    )


def _judged(hashing: Hashing, cells: Hashes) -> tuple[Hashes, set[int]]:
    """The columns that tell rows apart, and digests of those that would not be equal by chance.

    A constant column and the copy of another say nothing; running numbers came as nothing.
    """
    if cells.shape[1] > _JUDGED:
        return cells, set()
    kept: dict[int, Hashes] = {}
    digests: set[int] = set()
    for column in cells.T:
        values = np.unique(column)
        if len(values) < 2:
            continue
        digest = _multiset(hashing, column)
        kept.setdefault(digest, column)
        information = (len(values) - 1) / 2 * math.log2(len(column))
        if information >= _BITS:
            digests.add(digest)
    if not kept:
        return cells[:, :0], digests
    return np.stack(list(kept.values()), axis=1), digests


def _of_cells(hashing: Hashing, cells: Hashes) -> tuple[Hashes, Hashes, Hashes]:
    """(rows, parts, the row of each part), whatever the order of the columns."""
    if not cells.shape[1]:
        none = np.zeros(0, np.uint64)
        return none, none, none
    with np.errstate(over="ignore"):
        once = np.where(cells == 0, np.uint64(0), hashing.mixed(cells))
        whole = hashing.mixed(once.sum(1, dtype=np.uint64))
        distinct = np.unique(whole, return_index=True)[1]
        chosen = np.sort(np.where(once == 0, ~np.uint64(0), once)[distinct], axis=1)[:, :_PAIRED]
        places = np.triu_indices(chosen.shape[1], 1)
        pairs = hashing.mixed(chosen[:, places[0]] + hashing.mixed(chosen[:, places[1]]))
    none = ~np.uint64(0)
    real = (chosen[:, places[0]] != none) & (chosen[:, places[1]] != none)
    owner = np.broadcast_to(whole[distinct][:, None], pairs.shape)
    return whole, pairs[real], owner[real]


def _of_sequences(hashing: Hashing, block: Iterable[Hashes]) -> tuple[Hashes, Hashes, Hashes]:
    """(rows, parts, the row of each part) of texts or tokens."""
    rows: list[np.uint64] = []
    parts: list[Hashes] = []
    owners: list[Hashes] = []
    weights = hashing.mixed(np.arange(1, _WINDOW + 1, dtype=np.uint64)) | np.uint64(1)
    with np.errstate(over="ignore"):
        for row in block:
            size = min(_WINDOW, len(row))
            if not size:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(row, size)
            found = hashing.mixed((windows * weights[:size]).sum(1, dtype=np.uint64))
            order = hashing.mixed(np.arange(1, len(row) + 1, dtype=np.uint64)) | np.uint64(1)
            whole = hashing.mixed((row * order).sum(keepdims=True, dtype=np.uint64))
            rows.append(whole[0])
            if len(row) >= _WINDOW:
                parts.append(found)
                owners.append(np.broadcast_to(whole, found.shape))
    none = np.zeros(0, np.uint64)
    return (
        np.array(rows, np.uint64),
        np.concatenate([*parts, none]),
        np.concatenate([*owners, none]),
    )


def _multiset(hashing: Hashing, hashes: Hashes) -> int:
    """A digest of values and their shares, whatever their order: each value twice is the same."""
    if not len(hashes):
        return 0
    values, counts = np.unique(hashes, return_counts=True)
    shares = counts // np.gcd.reduce(counts)
    with np.errstate(over="ignore"):
        each = hashing.mixed(values + hashing.mixed(shares.astype(np.uint64)))
        return int(hashing.mixed(each.sum(keepdims=True, dtype=np.uint64))[0])


def _smallest_rows(rows: Hashes) -> tuple[frozenset[int], float]:
    """The smallest hashes of distinct rows, and the share of another sample that chance finds."""
    if not len(rows):
        return frozenset(), 1.0
    values, counts = np.unique(rows, return_counts=True)
    counts = counts // np.gcd.reduce(counts)
    chance = 1.0 - float((counts == 1).sum()) / float(counts.sum())
    return frozenset(values[:KEPT].tolist()) - {0}, chance


def _telling(
    parts: Sequence[Hashes], owners: Sequence[Hashes]
) -> tuple[frozenset[int], int, float]:
    """The smallest hashes of parts that one distinct row has, how far they were looked for, and
    how often chance meets them."""
    total = sum(len(part) for part in parts)
    if not total:
        return frozenset(), _ALL, 1.0
    reach = _ALL if total <= _SAMPLED else _ALL * _SAMPLED // total
    near = [part <= np.uint64(reach) for part in parts]
    part = np.concatenate([p[n] for p, n in zip(parts, near, strict=True)])
    owner = np.concatenate([o[n] for o, n in zip(owners, near, strict=True)])
    both = np.unique(np.stack([part, owner], axis=1), axis=0)[:, 0]
    values, counts = np.unique(both, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    chance = min(1.0, 2 * twice / once) if once else 1.0
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
