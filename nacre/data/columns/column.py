"""A declared column, and the input entries that it fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nacre.data.columns.dates import PART_VALUES, Dates

ColumnKind = Literal["number", "category", "hash", "boolean", "date"]
ColumnCoding = Literal["plain", "bins", "piecewise"]
MissingPolicy = Literal["refuse", "drop", "fill"]


class InputEntry(NamedTuple):
    """One entry of the model's input."""

    name: str
    low: float | None  # in the column's own unit; None where no bound is declared
    high: float | None
    coded: bool  # whether it is between 0 and 1 already, and no small change of the value shows


@dataclass(frozen=True)
class Column:
    """A declared column of a table: what its values are, and how they become inputs.

    >>> Column("age", "number", 0, 90, coding="bins", edges=(0, 18, 65, 90)).entries()
    ('age=0..18', 'age=18..65', 'age=65..90')
    """

    name: str
    kind: ColumnKind
    low: float | None = None  # in the column's own unit; None where no bound is declared
    high: float | None = None
    categories: tuple[str, ...] = ()
    other: bool = False  # whether unlisted categories have an input of their own
    buckets: int = 0  # of a hash
    yes: tuple[str, ...] = ()  # words of a boolean, in small letters
    no: tuple[str, ...] = ()
    dates: Dates | None = None
    coding: ColumnCoding = "plain"
    edges: tuple[float, ...] = ()  # of bins and piecewise codes, ends included
    missing: MissingPolicy = "refuse"
    fill: Any = None  # the value that stands in for none
    flag: bool = False  # whether an entry says that a value was missing

    def layout(self) -> tuple[InputEntry, ...]:
        """The input entries that this column fills, in their order."""
        flag = (_coded(f"{self.name} (missing)"),) if self.flag else ()
        return (*self._own(), *flag)

    def entries(self) -> tuple[str, ...]:
        """The names of the input entries that this column fills."""
        return tuple(entry.name for entry in self.layout())

    def numeric(self) -> bool:
        """Whether a value is a number in a range."""
        return self.kind == "number" or (self.kind == "date" and not self._parts())

    def _parts(self) -> tuple[Any, ...]:
        return () if self.dates is None else self.dates.parts

    def _own(self) -> tuple[InputEntry, ...]:
        if self.coding != "plain":
            pairs = zip(self.edges, self.edges[1:], strict=False)
            return tuple(_coded(f"{self.name}={low:g}..{high:g}") for low, high in pairs)
        match self.kind:
            case "category":
                others = ("(other)",) if self.other else ()
                return tuple(
                    _coded(f"{self.name}={value}") for value in (*self.categories, *others)
                )
            case "hash":
                return tuple(_coded(f"{self.name}=#{place}") for place in range(self.buckets))
            case "boolean":
                return (_coded(f"{self.name}={self.yes[0]}"),)
            case "date" if self._parts():
                return tuple(entry for part in self._parts() for entry in self._of_part(part))
            case _:
                return (InputEntry(self.name, self.low, self.high, False),)

    def _of_part(self, part: Any) -> tuple[InputEntry, ...]:
        if part == "year":
            return (InputEntry(f"{self.name}=year", self.low, self.high, False),)
        return tuple(_coded(f"{self.name}={part} {value}") for value in PART_VALUES[part])


def _coded(name: str) -> InputEntry:
    return InputEntry(name, 0.0, 1.0, True)
