"""Scales for charts: round ticks, and numbers turned into places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def require_finite(numbers: Sequence[float]) -> None:
    """Raises `ValueError` where a number is NaN or infinite: a chart would lie about it."""
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"a chart takes finite numbers only, got {list(numbers)}")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most `count` round numbers, evenly apart; the first is <= `low`, the last >= `high`.

    Equal ends get some room around them.

    >>> ticks(0, 3.98)
    [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> ticks(0.81, 0.955, 4)
    [0.8, 0.85, 0.9, 0.95, 1.0]
    """
    require_finite((low, high))
    if low == high:
        room = abs(low) / 2 or 0.5
        low, high = low - room, high + room
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in _STEPS if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(place * step, digits) + 0.0 for place in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A straight line from numbers to places on the paper."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of `value`, held inside the axis."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def through(marks: Sequence[float], start: float, end: float) -> Scale:
    """The scale whose ends are the first and the last tick."""
    return Scale(marks[0], marks[-1], start, end)
