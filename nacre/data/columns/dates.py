"""Dates as numbers, or as parts: years, months, days of the week."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass
from typing import Literal

from nacre.core.errors import BadArgument

DatePart = Literal["year", "month", "day", "weekday", "hour"]

_SECONDS = {"seconds": 1.0, "hours": 3600.0, "days": 86400.0, "years": 365.2425 * 86400.0}
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ISO = "%Y-%m-%d"

PART_VALUES: dict[DatePart, tuple[int, ...]] = {
    "month": tuple(range(1, 13)),
    "day": tuple(range(1, 32)),
    "weekday": tuple(range(1, 8)),
    "hour": tuple(range(24)),
}
"""Every value of a part but the year; Monday is weekday 1."""


@dataclass(frozen=True, kw_only=True)
class Dates:
    """A column of dates: the time since a declared origin as one number, or parts of the date.

    >>> Dates(origin="2000-01-01").number(Dates().moment("2000-02-01"))
    31.0
    """

    format: str = _ISO
    """How a date is written, in the signs of Python's `strptime`. Dates of Parquet need none."""
    origin: str = "1970-01-01"
    """The date that counts as 0, as YYYY-MM-DD."""
    unit: Literal["seconds", "hours", "days", "years"] = "days"
    """What is counted from the origin; a year has 365.2425 days. `low` and `high` are in it."""
    parts: tuple[DatePart, ...] = ()
    """Parts instead of one number: months, days, weekdays (Monday is 1) and hours one input each,
    the year as a number, whose range `low` and `high` give."""

    def __post_init__(self) -> None:
        if _day(self.origin) is None:
            raise BadArgument(f"origin={self.origin!r} must be a date as 2000-12-31, in quotes")
        try:
            sample = datetime.datetime(2001, 2, 1).strftime(self.format)
            read = datetime.datetime.strptime(sample, self.format)
        except (ValueError, re.error) as error:
            raise BadArgument(
                f"format={self.format!r} is none that dates can be read by ({error}); write "
                'it as "%d.%m.%Y"'
            ) from error
        if read.date() != datetime.date(2001, 2, 1):
            raise BadArgument(
                f"format={self.format!r} does not hold month and year, so dates could be "
                'mistaken; write it as "%d.%m.%Y"'
            )
        if len(set(self.parts)) < len(self.parts):
            raise BadArgument(f"parts={self.parts} must differ from each other")

    def moment(self, value: object) -> datetime.datetime | None:
        """A value as date and time, of a time zone as UTC; None where it is no date."""
        if isinstance(value, datetime.datetime):
            return _utc(value)
        if isinstance(value, datetime.date):
            return datetime.datetime(value.year, value.month, value.day)
        if not isinstance(value, str):
            return None
        word = value.strip()
        if self.format == _ISO:
            return _day(word)
        try:
            return _utc(datetime.datetime.strptime(word, self.format))
        except (ValueError, OverflowError):
            return None

    def number(self, moment: datetime.datetime | None) -> float:
        """Units since the origin; NaN for no date."""
        start = _day(self.origin)
        if moment is None or start is None:
            return math.nan
        return (moment - start).total_seconds() / _SECONDS[self.unit]


def part_of(moment: datetime.datetime | None, part: DatePart) -> int:
    """One part of a date; 0 for no date."""
    if moment is None:
        return 0
    return moment.isoweekday() if part == "weekday" else int(getattr(moment, part))


def _day(word: str) -> datetime.datetime | None:
    if not _DAY.fullmatch(word):
        return None
    try:
        return datetime.datetime.fromisoformat(word)
    except ValueError:
        return None


def _utc(moment: datetime.datetime) -> datetime.datetime | None:
    if moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(datetime.UTC).replace(tzinfo=None)
    except OverflowError:
        return None
