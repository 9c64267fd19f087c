"""Ranges of numbers, checked by name: `require.positive(norm=norm)`.

Each function takes the numbers as keywords and raises `BadArgument` (a `ValueError`) for the first
that lies outside, with its name, its value and the range. None stands for a number that was not
given, and passes; a number that is NaN lies outside every range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nacre.core.errors import BadArgument


def at_least(least: float, /, **numbers: float | None) -> None:
    """Numbers of at least `least`.

    >>> at_least(1, steps=3, batch=0)
    Traceback (most recent call last):
        ...
    nacre.core.errors.BadArgument: batch=0 must be at least 1
    """
    _each(numbers, lambda value: value >= least, f"must be at least {least}")


def positive(**numbers: float | None) -> None:
    """Finite numbers above 0."""
    _each(numbers, lambda value: 0 < value < math.inf, "must be > 0 and finite")


def not_negative(**numbers: float | None) -> None:
    """Finite numbers of at least 0."""
    _each(numbers, lambda value: 0 <= value < math.inf, "must be at least 0 and finite")


def below_one(**numbers: float | None) -> None:
    """Numbers of at least 0 that are below 1."""
    _each(numbers, lambda value: 0 <= value < 1, "must be at least 0 and below 1")


def between(low: float, high: float, /, **numbers: float | None) -> None:
    """Numbers above `low` and below `high`."""
    _each(numbers, lambda value: low < value < high, f"must lie between {low} and {high}")


def _each(numbers: Mapping[str, float | None], fits: Callable[[float], bool], words: str) -> None:
    for name, value in numbers.items():
        if value is not None and not fits(value):
            raise BadArgument(f"{name}={value} {words}")
