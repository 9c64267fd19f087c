"""Names of parties: a list of them, or as many as are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from nacre.core import require
from nacre.core.errors import BadArgument

LARGEST = 100_000_000
"""Parties that can be counted: a few arrays of as many whole numbers are kept of them."""
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Counted(Sequence[str]):
    """Parties that are numbered, `party-000000` and so on: no list of them is ever made.

    >>> names = Counted(count=3)
    >>> list(names), names[-1], names.index("party-000001")
    (['party-000000', 'party-000001', 'party-000002'], 'party-000002', 1)
    """

    # A number, where a sequence has a method that nobody needs of names that are all different.
    count: int = field()  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    """How many parties there are."""

    def __post_init__(self) -> None:
        require.at_least(1, count=self.count)
        if self.count > LARGEST:
            raise BadArgument(f"count={self.count} must be at most {LARGEST}")

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self._name(i) for i in range(*place.indices(self.count))]
        if not -self.count <= place < self.count:
            raise IndexError(place)
        return self._name(place % self.count)

    def __iter__(self) -> Iterator[str]:
        return map(self._name, range(self.count))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._number(name) is not None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The number of this name. Raises `ValueError` for one that is not among them."""
        number = self._number(value)
        if number is None or number not in range(*slice(start, stop).indices(self.count)):
            raise ValueError(f"{value!r} is no party")
        return number

    def _name(self, number: int) -> str:
        width = max(_DIGITS, len(str(self.count - 1)))
        return f"party-{number:0{width}d}"

    def _number(self, name: str) -> int | None:
        digits = name.removeprefix("party-")
        if not (digits.isascii() and digits.isdigit()):
            return None
        number = int(digits)
        return number if number < self.count and self._name(number) == name else None


def places(names: Sequence[str]) -> Callable[[str], int]:
    """What gives a name's place at once. Raises `ValueError` or `KeyError` for no name of these."""
    if isinstance(names, Counted):
        return names.index
    return {name: place for place, name in enumerate(names)}.__getitem__


def check_names(key: str, names: Sequence[str]) -> None:
    """Raises `BadArgument` for names that are none, or that stand twice."""
    if isinstance(names, Counted):
        return
    if not names:
        raise BadArgument(f"{key} must name at least one party")
    for name in names:
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise BadArgument(f"{key}: {name!r} must be a printable name without slashes")
    if len(set(names)) < len(names):
        raise BadArgument(f"{key}={tuple(names)} must differ from each other")
