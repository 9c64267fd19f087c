"""How figures are written: enough digits to compare, never more than were measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from nacre.differential_privacy.upward import rounded_up_to

MISSING = "not measured"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def epsilon_text(value: float | None) -> str:
    """Two decimals, rounded up: it is a bound.

    >>> epsilon_text(3.971), epsilon_text(4.0), epsilon_text(0.0004), epsilon_text(None)
    ('3.98', '4.00', '0.01', 'none')
    """
    if value is None:
        return "none"
    return rounded_up_to(value, 2)


def left(value: float) -> str:
    """What remains of an epsilon: two decimals, rounded down.

    >>> left(1.019), left(0.0)
    ('1.01', '0.00')
    """
    return f"{math.floor(value * 100 + 1e-6) / 100:.2f}"


def delta(value: float | None) -> str:
    """As a power of ten.

    >>> delta(1e-4), delta(2.5e-6), delta(0.0), delta(None)
    ('10⁻⁴', '2.5 × 10⁻⁶', '0', 'none')
    """
    if value is None:
        return "none"
    return _power(value) if value > 0 else "0"


def percent(value: float | None) -> str:
    """To a tenth of a percent.

    >>> percent(0.9474), percent(None)
    ('94.7%', 'not measured')
    """
    return MISSING if value is None else f"{100 * value:.1f}%".replace("-", "−")


def whole(value: float) -> str:
    """Without decimals, for axes and confidence.

    >>> whole(0.95)
    '95%'
    """
    return f"{round(100 * value, 2):g}%".replace("-", "−")


def signed_text(value: float) -> str:
    """Three decimals, with a true minus sign.

    >>> signed_text(-0.0214), signed_text(-0.00001)
    ('−0.021', '0.000')
    """
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def number_text(value: float) -> str:
    """Four significant digits, thousands apart.

    >>> [number_text(value) for value in (0.31, 104, 12345.0, 0.00001, -2)]
    ['0.31', '104', '12,345', '10⁻⁵', '−2']
    """
    size = abs(value)
    if size and not 1e-4 <= size < 1e15:
        text = _power(size)
    else:
        text = f"{size:,.0f}" if size >= 1000 else f"{size:.4g}"
    return f"−{text}" if value < 0 else text


def _power(value: float) -> str:
    """A positive number with its power of ten, two digits at most."""
    digits, power = f"{value:.1e}".split("e")
    tens = "10" + str(int(power)).translate(_SUPERSCRIPT)
    return tens if digits == "1.0" else f"{digits.removesuffix('.0')} × {tens}"


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(4.21), seconds(75), seconds(300), seconds(9000)
    ('4.2 s', '75 s', '5 min', '2.5 h')
    """
    if value < 10:
        return f"{value:.1f} s"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def moment(stamp: str) -> str:
    """An ISO 8601 time for people; other text is left as it is.

    Midnight is how a ledger writes a day, so it is told as one.

    >>> moment("2026-03-02T09:14:00+00:00"), moment("2026-03-02T00:00:00+00:00")
    ('2 March 2026, 09:14 UTC', '2 March 2026')
    """
    try:
        time = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    clock = f", {time:%H:%M %Z}".rstrip() if (time.hour, time.minute) != (0, 0) else ""
    return f"{time.day} {time:%B %Y}{clock}"


def short(digest: str) -> str:
    """The first digits of a long hash; the whole one stands beside it as a title.

    >>> short("0123456789abcdef0123")
    '0123456789ab…'
    """
    return f"{digest[:12]}…"


def listed(names: Iterable[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["east"]), listed(["east", "north", "south"])
    ('east', 'east, north and south')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def count_in_words(count: int, noun: str) -> str:
    """A count with its noun, small counts as words.

    >>> count_in_words(3, "parties"), count_in_words(40, "steps")
    ('three parties', '40 steps')
    """
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{words[count] if count < len(words) else f'{count:,}'} {noun}"
