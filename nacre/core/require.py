"""Ranges of numbers, checked by name: `require.positive(norm=norm)`.

Each function takes the numbers as keywords and raises `BadArgument` (a `ValueError`) for the first
that is no number or lies outside, with its name, its value and the range; `why` ends the sentence,
where a reader needs more than that. None stands for a number that was not given, and passes; a
number that is NaN lies outside every range, and True and False are no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from nacre.core.errors import BadArgument


def at_least(least: int, why: str = "", /, **numbers: int | None) -> None:
    """Whole numbers of at least `least`.

    >>> at_least(1, steps=3, batch=0)
    Traceback (most recent call last):
        ...
    nacre.core.errors.BadArgument: batch=0 must be at least 1
    >>> at_least(1, steps="3")
    Traceback (most recent call last):
        ...
    nacre.core.errors.BadArgument: steps='3' is no whole number: it must be at least 1
    """
    _each(numbers, lambda value: value >= least, f"must be at least {least}{why}", Integral)


def positive(why: str = "", /, **numbers: float | None) -> None:
    """Finite numbers above 0."""
    _each(numbers, lambda value: 0 < value < math.inf, f"must be > 0 and finite{why}")


def not_negative(why: str = "", /, **numbers: float | None) -> None:
    """Finite numbers of at least 0."""
    _each(numbers, lambda value: 0 <= value < math.inf, f"must be at least 0 and finite{why}")


def not_infinite(why: str = "", /, **numbers: float | None) -> None:
    """Finite numbers."""
    _each(numbers, math.isfinite, f"must be finite{why}")


def below_one(why: str = "", /, **numbers: float | None) -> None:
    """Numbers of at least 0 that are below 1."""
    _each(numbers, lambda value: 0 <= value < 1, f"must be at least 0 and below 1{why}")


def up_to(most: float, why: str = "", /, **numbers: float | None) -> None:
    """Numbers above 0 that are at most `most`."""
    _each(numbers, lambda value: 0 < value <= most, f"must be above 0 and at most {most}{why}")


def between(low: float, high: float, why: str = "", /, **numbers: float | None) -> None:
    """Numbers above `low` and below `high`."""
    _each(numbers, lambda value: low < value < high, f"must lie between {low} and {high}{why}")


def within(low: float, high: float, why: str = "", /, **numbers: float | None) -> None:
    """Numbers from `low` to `high`, which may be either."""
    _each(numbers, lambda value: low <= value <= high, f"must lie from {low} to {high}{why}")


def _each(
    numbers: Mapping[str, object],  # in Python anything may be handed in
    fits: Callable[[Any], bool],
    words: str,
    kind: type[Integral] | type[Real] = Real,
) -> None:
    for name, value in numbers.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind):
            form = "whole number" if kind is Integral else "number"
            raise BadArgument(f"{name}={value!r} is no {form}: it {words}")
        if not fits(value):
            raise BadArgument(f"{name}={value} {words}")
