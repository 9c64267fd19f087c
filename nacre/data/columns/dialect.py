"""How a file writes its values: separator, encoding, decimal mark, words for no value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nacre.core.errors import BadArgument

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What stands for no value where nothing is declared, in any case; declared categories come
first."""

_ALIKE = {" ": " \u00a0\u202f", "'": "'\u2019"}
"""Marks of thousands that are written in several ways."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file writes its values. Declared, and never guessed from rows: a guess that rests on
    private rows would tell of them, and could read the same row in two ways.

    >>> german = Dialect(decimal=",", thousands=".")
    >>> [german.plain_number(word) for word in ("1.234,5", "1,5", "1.5", "12")]
    ['1234.5', '1.5', None, '12']
    """

    separator: Literal[",", ";", "|", "tab"] | None = None
    """What stands between two values of a line; absent: a comma, or a tab in a .tsv."""
    quote: Literal['"', "'", "none"] | None = None
    """What encloses a value that holds the separator; absent: `"`, and nothing in a .tsv that
    declares no separator."""
    encoding: Literal["utf-8", "utf-8-sig", "latin-1", "cp1252"] = "utf-8"
    """How the file stores letters; UTF-8 is read with a mark at its start, or without."""
    decimal: Literal[".", ","] = "."
    """What stands between whole and fraction."""
    thousands: Literal[",", ".", " ", "'"] | None = None
    """What may stand between groups of three digits; anywhere else it makes a value no number."""
    missing: tuple[str, ...] | None = None
    """Words for no value, in any case, in place of the usual ones (NA, N/A, NaN, null, None); a
    number stands for each way to write it. An empty cell is always one."""

    def __post_init__(self) -> None:
        if self.thousands == self.decimal:
            raise BadArgument(
                f"thousands={self.thousands!r} is the decimal mark as well, so no number could be "
                "read; declare another one, or leave it out"
            )

    @cached_property
    def words(self) -> frozenset[str]:
        """What stands for no value, in small letters."""
        if self.missing is None:
            return MISSING
        return frozenset({"", *(word.strip().lower() for word in self.missing)})

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """The numbers that stand for no value, as -9."""
        found: list[float] = []
        for word in self.missing or ():
            plain = self.plain_number(word.strip())
            if plain is not None and _DIGITS.fullmatch(plain):
                found.append(float(plain))
        return tuple(found)

    @property
    def plain(self) -> bool:
        """Whether numbers are written as Python writes them."""
        return self.decimal == "." and self.thousands is None

    def plain_number(self, word: str) -> str | None:
        """A number's text as Python would write it; None for one that this dialect cannot mean.

        A mark that stands elsewhere than declared is an error and is not passed over: `1.5` where
        the comma is decimal may be 1.5 or 15.
        """
        if self.plain:
            return word
        found = word.strip()
        if self._grouped is not None and self._grouped.fullmatch(found):
            found = self._mark.sub("", found)
        if self.decimal == ",":
            return None if "." in found else found.replace(",", ".")
        return found

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        mark = self.thousands or ""
        return re.compile(f"[{re.escape(_ALIKE.get(mark, mark))}]")

    @cached_property
    def _grouped(self) -> re.Pattern[str] | None:
        if self.thousands is None:
            return None
        mark, decimal = self._mark.pattern, re.escape(self.decimal)
        return re.compile(rf"[+-]?[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+(?:{decimal}[0-9]*)?")


def unquoted(value: object) -> object:
    """A value without the quotes around it, if a dialect left them there.

    >>> unquoted('"ill"'), unquoted("'"), unquoted(3)
    ('ill', "'", 3)
    """
    if not isinstance(value, str):
        return value
    found = value.strip()
    enclosed = len(found) > 1 and found[0] == found[-1] and found[0] in "\"'"
    return found[1:-1] if enclosed else value


PLAIN = Dialect()
"""What is read where nothing is declared."""

_DIGITS = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
