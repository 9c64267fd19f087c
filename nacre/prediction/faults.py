"""Rows that a model cannot read as they are: refused together, kept without a prediction, or
moved to the edge of a range."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import DataError

Places = NDArray[np.int64]
"""(n,) rows, counted from 0."""

FaultPolicy = Literal["refuse", "drop", "clamp"]

_NAMED = 5  # rows that a refusal names
SHOWN = 40
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with some rows in one column, and what the run's policy makes of it."""

    column: str  # "" where it is about no column
    kind: Literal["missing", "no number", "outside", "unlisted", "half a character", "short"]
    words: str  # without the value, as `the value lies outside [0, 1]`
    rows: Places
    policy: FaultPolicy
    remedy: str  # what to do where it is refused
    value: str = ""  # in the first of the rows

    def note(self) -> str:
        """Why a row has no prediction."""
        return f"{self.column}: {self.words}" if self.column else self.words


@dataclass
class FaultTally:
    """The faults of a whole file, chunk after chunk."""

    where: str  # the file, or what else rows come from
    refused: Fault | None = None
    more: int = 0  # other faults that are refused
    dropped: int = 0
    clamped: int = 0
    _seen: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def add(self, faults: list[Fault], first: int) -> Places:
        """Counts the faults of a chunk whose first row has the number `first`; gives the places of
        rows that stay without a prediction."""
        without = np.zeros(0, np.int64)
        for fault in faults:
            if fault.policy == "refuse":
                self._refuse(fault, first)
            elif fault.policy == "drop":
                without = np.union1d(without, fault.rows)
        moved = [fault.rows for fault in faults if fault.policy == "clamp"]
        if moved:
            self.clamped += len(np.setdiff1d(np.unique(np.concatenate(moved)), without))
        self.dropped += len(without)
        return without

    def _refuse(self, fault: Fault, first: int) -> None:
        rows = fault.rows + first
        if self.refused is None:
            self.refused = Fault(
                fault.column, fault.kind, fault.words, rows, "refuse", fault.remedy, fault.value
            )
        elif (self.refused.column, self.refused.kind) == (fault.column, fault.kind):
            rows = np.concatenate([self.refused.rows, rows])
            self.refused = Fault(
                fault.column, fault.kind, self.refused.words, rows, "refuse", fault.remedy,
                self.refused.value,
            )  # fmt: skip
        else:
            self._seen.add((fault.column, fault.kind))
            self.more = len(self._seen)

    def check(self) -> None:
        """Raises `DataError` where rows were refused, with column, value and row numbers."""
        fault = self.refused
        if fault is None:
            return
        shown = f"{fault.value!r}: " if fault.value else ""
        also = f" ({self.more} more like this in other columns)" if self.more else ""
        raise DataError(
            f"{self.where} column {fault.column!r}: {shown}{fault.words} in "
            f"{rows_listed(fault.rows)}{also}; {fault.remedy}",
            column=fault.column,
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


def notes(faults: list[Fault], count: int) -> list[str | None]:
    """For each row why it has no prediction, or what was done to it; None for the others."""
    found: list[str | None] = [None] * count
    for fault in faults:
        said = fault.note() + (" and was moved to it" if fault.policy == "clamp" else "")
        for row in fault.rows.tolist():
            before = found[row]
            found[row] = said if before is None else f"{before}; {said}"
    return found
