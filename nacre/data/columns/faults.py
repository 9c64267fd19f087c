"""What is wrong with rows, gathered over a whole file and printed in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import DataError

Places = NDArray[np.int64]
"""(n,) rows, counted from 0."""

FaultPolicy = Literal["refuse", "drop", "clamp"]
FaultKind = Literal[
    "missing", "no number", "no date", "outside", "unlisted", "half a character", "short"
]

SHOWN = 40
"""Characters of a value that a message shows."""
_FAULTS = 20  # that a refusal tells apart
_LONGEST = 560  # characters of all of them
_NAMED = 5  # rows that a refusal names


@dataclass(frozen=True)
class Fault:
    """What is wrong with some rows in one column, and what the policy makes of it."""

    column: str  # "" where it is about no column
    kind: FaultKind
    words: str  # without the value, as `the value lies outside [0, 1]`
    rows: Places
    policy: FaultPolicy
    remedy: str  # what to do where it is refused
    value: str = ""  # in the first of the rows
    others: int = 0  # different values in the other rows

    def note(self) -> str:
        """Why a row has no prediction."""
        return f"{self.column}: {self.words}" if self.column else self.words

    def said(self) -> str:
        """Value, words and rows."""
        more = f" (and {self.others} other value{'s' if self.others > 1 else ''})"
        shown = f"{self.value!r}{more if self.others else ''}: " if self.value else ""
        return f"{shown}{self.words} in {rows_listed(self.rows)}"

    def moved(self, first: int) -> Fault:
        """The fault of a chunk whose first row has the number `first`, in rows of the file."""
        return replace(self, rows=self.rows + first)

    def joined(self, other: Fault) -> Fault:
        """This fault with the rows of another of its kind, which come later in the file."""
        return replace(self, rows=np.concatenate([self.rows, other.rows]))


def refusal(where: str, faults: Sequence[Fault], rows: int) -> DataError:
    """The refusal of all these faults, in the order given; `rows` is how many rows there are.

    For the terminal alone, as it shows values. Each fault stands with its column, the first value,
    its rows and their number; at most `_FAULTS` of them, and how many more there are.
    """
    first = faults[0]
    if len(faults) == 1:
        words = f"{where} column {first.column!r}: {first.said()}; {first.remedy}"
        return DataError(words, column=first.column)
    told: list[str] = []
    for fault in faults[:_FAULTS]:
        words = f"column {fault.column!r}: {fault.said()}"
        if told and sum(map(len, told)) + len(words) > _LONGEST:
            break
        told.append(words)
    bad = len(np.unique(np.concatenate([fault.rows for fault in faults])))
    left = len(faults) - len(told)
    more = f"; and {left} more" if left else ""
    remedies = dict.fromkeys(fault.remedy for fault in faults)
    advice = first.remedy if len(remedies) == 1 else f"for the first: {first.remedy}"
    return DataError(
        f"{where} has {len(faults)} faults, in {bad} of {rows} rows: {'; '.join(told)}{more}; "
        f"{advice}",
        column=first.column,
    )


def rows_listed(rows: Places) -> str:
    """The first few rows by number; the first row of a file is row 1.

    >>> rows_listed(np.array([0])), rows_listed(np.array([1, 7])), rows_listed(np.arange(9))
    ('row 1', 'rows 2 and 8', 'rows 1, 2, 3, 4, 5 and 4 more')
    """
    numbers = [str(int(row) + 1) for row in rows[:_NAMED]]
    if len(rows) == 1:
        return f"row {numbers[0]}"
    if len(rows) > _NAMED:
        return f"rows {', '.join(numbers)} and {len(rows) - _NAMED} more"
    return f"rows {', '.join(numbers[:-1])} and {numbers[-1]}"
