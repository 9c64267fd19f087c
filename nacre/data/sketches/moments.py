"""Days and times as tables write them: which columns are a calendar, that others have too."""

# Parts of NumPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nacre.data.columns.dialect import unquoted
from nacre.data.readers import is_missing


def calendar(column: Sequence[object], in_steps: Callable[[NDArray[np.float64]], bool]) -> bool:
    """Whether a column holds nothing but days, weeks or months, or times in equal steps
    (`in_steps`, of the second of each row): other tables have the same ones."""
    given = [value for value in column if not is_missing(value)]
    if not given:
        return False
    if all(_is_day(value) for value in given):
        return True
    for month_first in (False, True):
        seconds = [_second(value, month_first) for value in given]
        known = [second for second in seconds if second is not None]
        if len(known) == len(seconds) and in_steps(np.array(known)):
            return True
    return False


def _is_day(value: object) -> bool:
    """Whether this is a date, a time at midnight, or a part of the year.

    >>> [_is_day(word) for word in ("2024-02-01 00:00:00", "1.2.2024", "1 Feb 2024", "May 1, 2024")]
    [True, True, True, True]
    >>> [_is_day(word) for word in ("2024-02", "02/2024", "Feb 2024", "2024-W05", "Q1 2024")]
    [True, True, True, True, True]
    >>> _is_day("2024-02-01 07:30:00")
    False
    """
    if isinstance(value, datetime.datetime):
        return value.time() == datetime.time()
    if isinstance(value, datetime.date):
        return True
    return isinstance(value, str) and _DAY.fullmatch(str(unquoted(value)).strip()) is not None


def _second(value: object, month_first: bool) -> float | None:
    """A time as seconds from a day long ago, of centuries one; None where it is none.

    >>> [_second(word, False) for word in ("00:05", "1.1.24 00:05", "2024-01-01T00:05:30Z", "5")]
    [300.0, 63839750700.0, 63839750730.0, None]
    """
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=None).isoformat(" ", "seconds")
    found = _TIME.fullmatch(str(unquoted(value)).strip()) if isinstance(value, str) else None
    if found is None:
        return None
    clock = 3600 * int(found["hour"]) + 60 * int(found["minute"]) + int(found["second"] or 0)
    if found["day"] is None:
        return float(clock)
    words = _GROUP.findall(found["day"])
    year, month, day = map(int, words if len(words[0]) == 4 else words[::-1])
    if month_first and len(words[0]) < 4:
        month, day = day, month
    try:
        return 86400.0 * datetime.date(year % 100 + 2000, month, day).toordinal() + clock
    except ValueError:
        return None


def any_order(word: str) -> str:
    """A date and time without its order, so that every format gives the same.

    >>> any_order("27.4.24 07:30"), any_order("2024-04-27T07:30:00"), any_order("ward 3")
    ('4 7 24 27 30', '4 7 24 27 30', 'ward 3')
    """
    if not _MOMENT.fullmatch(word.strip()):
        return word
    groups = sorted(
        int(group) % 100 if len(group) == 4 else int(group) for group in _GROUP.findall(word)
    )
    return " ".join(str(group) for group in groups if group)


_GROUP = re.compile(r"[0-9]+")
_MOMENT = re.compile(r"[0-9]+(?:[-/.: T]+[0-9]+){2,}(?: ?Z)?")
_MONTH = (  # in the languages that share our letters
    r"(jan|feb|f[eé]v|mar|mär|apr|a[vb]r|ma[iy]|jun|jui|jul|aug|ao[uû]|ago|sep|o[ckug]t|nov|de[cz]"
    r"|déc|dic)[^\W\d]*"
)
_PART_OF_YEAR = (
    rf"\d{{4}}[-/.](0\d|1[0-2])|(0?\d|1[0-2])[-/.]\d{{4}}|{_MONTH}[-/. ]+\d{{4}}"
    r"|\d{4}[- ]?[wq]\d\d?|[wq]\d\d?[-/ ]\d{4}"
)
_DAY = re.compile(
    r"((\d{4}([-/.])\d\d?\3\d\d?|\d\d?([-/.])\d\d?\4\d{4}"
    rf"|\d\d?[-/. ]+{_MONTH}[-/., ]+(\d\d)?\d\d|{_MONTH}[. ]+\d\d?,? \d{{4}})"
    rf"([ T]00:00(:00(\.0+)?)?(Z|[+-]\d\d:?\d\d)?)?|{_PART_OF_YEAR})",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"((?P<day>\d{4}([-/.])\d\d?\3\d\d?|\d\d?([-/.])\d\d?\4(\d\d)?\d\d)[ T])?"
    r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(:(?P<second>[0-5]\d)(\.\d+)?)?"
    r"(Z|[+-]\d\d:?\d\d)?"
)
