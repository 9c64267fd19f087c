"""Rows that a model cannot read as they are: refused together, kept without a prediction, or
moved to the edge of a range."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nacre.data.columns.encode import Remedies
from nacre.data.columns.faults import Fault, Places, refusal

REMEDIES: Remedies = {
    "missing": "fill them, or train with `on_missing: drop`",
    "no number": "correct it, or where it stands for no value leave the cell empty",
    "no date": "correct it, or write dates as the run declares them",
    "outside": "correct them, or train with `on_out_of_range: clamp` or `drop`",
    "unlisted": "correct it, or train with it in `categories` or `on_out_of_range: drop`",
}
"""What to do about a column's faults where a model is used."""


@dataclass
class FaultTally:
    """The faults of a whole file, chunk after chunk."""

    where: str  # the file, or what else rows come from
    dropped: int = 0
    clamped: int = 0
    _rows: int = 0
    _refused: dict[tuple[str, str], Fault] = field(default_factory=dict[tuple[str, str], Fault])

    @property
    def refused(self) -> bool:
        """Whether some rows are."""
        return bool(self._refused)

    def add(self, faults: list[Fault], first: int, count: int) -> Places:
        """Counts the faults of a chunk of `count` rows whose first has the number `first`; gives
        the places of rows that stay without a prediction."""
        self._rows = first + count
        without = np.zeros(0, np.int64)
        for fault in faults:
            if fault.policy == "refuse":
                key, moved = (fault.column, fault.kind), fault.moved(first)
                before = self._refused.get(key)
                self._refused[key] = moved if before is None else before.joined(moved)
            elif fault.policy == "drop":
                without = np.union1d(without, fault.rows)
        moved = [fault.rows for fault in faults if fault.policy == "clamp"]
        if moved:
            self.clamped += len(np.setdiff1d(np.unique(np.concatenate(moved)), without))
        self.dropped += len(without)
        return without

    def check(self) -> None:
        """Raises `DataError` where rows were refused, with columns, values and row numbers."""
        if self._refused:
            raise refusal(self.where, list(self._refused.values()), self._rows)


def notes(faults: list[Fault], count: int) -> list[str | None]:
    """For each row why it has no prediction, or what was done to it; None for the others."""
    found: list[str | None] = [None] * count
    for fault in faults:
        said = fault.note() + (" and was moved to it" if fault.policy == "clamp" else "")
        for row in fault.rows.tolist():
            before = found[row]
            found[row] = said if before is None else f"{before}; {said}"
    return found
