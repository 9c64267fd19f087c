"""Privacy numbers as text, rounded up: what is shown is never less than what was proven.

An epsilon that this package computes is an upper bound (`Price.epsilon`); so is what a reader sees
of it, since every place that prints one asks here. What rounding leaves of a sum of doubles (a
share of 1e-12: 0.1 + 0.2 is 0.30000000000000004) is not a further digit.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal

_ROUNDING = Decimal("1e-12")
"""What sums of doubles leave, as a share."""
_WIDE = Context(prec=400)
"""Digits for any double."""


def rounded_up(value: float, digits: int = 4) -> str:
    """A number with `digits` significant digits, no less than `value`.

    Zeros after the point are dropped; what is infinite is `inf`. Raises `ValueError`
    for nan.

    >>> rounded_up(3.9711, 3), rounded_up(4.0), rounded_up(0.1 + 0.2)
    ('3.98', '4', '0.3')
    """
    exact = _decimal(value)
    if not exact.is_finite():
        return "inf"
    found = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(exact)
    return f"{float(found):.{digits}g}"


def rounded_up_to(value: float, places: int) -> str:
    """The same with `places` digits after the point, as the columns of a table have them.

    >>> rounded_up_to(3.9711, 2), rounded_up_to(0.0004, 2)
    ('3.98', '0.01')
    """
    exact = _decimal(value)
    if not exact.is_finite():
        return "inf"
    return str(exact.quantize(Decimal(1).scaleb(-places), ROUND_CEILING, _WIDE))


def _decimal(value: float) -> Decimal:
    if math.isnan(value):
        raise ValueError("epsilon is not a number, so it cannot be shown")
    if math.isinf(value):
        return Decimal("Infinity")
    return Decimal(value) if value < 0 else Decimal(value) * (1 - _ROUNDING)
