"""Rows of a benchmark: `{what, value, low, high, target, holds}`, as a table or as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure; `low` and `high` are one deviation to each side, where there are repetitions."""

    what: str
    value: float
    low: float | None = None
    high: float | None = None
    target: str | None = None
    holds: bool | None = None

    @classmethod
    def over(
        cls,
        what: str,
        values: Sequence[float],
        target: str | None = None,
        holds: Callable[[float], bool] | None = None,
    ) -> Row:
        """The mean over repetitions, with its spread."""
        mean = statistics.mean(values)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(what, mean, mean - spread, mean + spread, target, holds(mean) if holds else None)


def show(rows: Sequence[Row], as_json: bool) -> None:
    """Prints the rows."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    width = max(len(row.what) for row in rows)
    for row in rows:
        spread = "" if row.low is None or row.high is None else f" ± {(row.high - row.low) / 2:.3g}"
        verdict = "" if row.holds is None else ("  holds" if row.holds else "  MISSED")
        target = f"  target {row.target}" if row.target else ""
        print(f"{row.what:<{width}}  {row.value:8.3f}{spread:<10}{target}{verdict}")
