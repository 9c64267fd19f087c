"""What a recipe says of a column. All of it is declared: nothing is learnt from private rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from nacre.core.errors import BadArgument
from nacre.data.columns.column import Column
from nacre.data.columns.dates import Dates


@dataclass(frozen=True, kw_only=True)
class Bins:
    """A number as one of several ranges, of which one input each says whether it is this one."""

    kind: Literal["bins"] = "bins"
    count: int | None = None
    """That many ranges of one width between `low` and `high`."""
    edges: tuple[float, ...] = ()
    """Where one range ends and the next begins, between `low` and `high`, instead of `count`."""

    def __post_init__(self) -> None:
        _check_edges(self.count, self.edges)


@dataclass(frozen=True, kw_only=True)
class PiecewiseLinear:
    """A number as how full each of several ranges is: 1 for those below it, 0 for those above, a
    share for its own. Small networks learn steps and bends of a number better from it.

    *Source:* Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep
    Learning", https://arxiv.org/abs/2203.05556, equation 1, with declared edges.
    """

    kind: Literal["piecewise"] = "piecewise"
    count: int | None = None
    """That many ranges of one width between `low` and `high`."""
    edges: tuple[float, ...] = ()
    """Where one range ends and the next begins, between `low` and `high`, instead of `count`."""

    def __post_init__(self) -> None:
        _check_edges(self.count, self.edges)


@dataclass(frozen=True, kw_only=True)
class Truths:
    """A column of two answers, as one input that is 1 or 0; upper and lower case are the same."""

    yes: tuple[str, ...] = ("yes", "true", "1")
    """Words for 1."""
    no: tuple[str, ...] = ("no", "false", "0")
    """Words for 0."""

    def __post_init__(self) -> None:
        words = [word.strip().lower() for word in (*self.yes, *self.no)]
        if not self.yes or not self.no or len(set(words)) < len(words):
            raise BadArgument(
                f"yes={self.yes} and no={self.no} must be different words, one at least of each"
            )


@dataclass(frozen=True, kw_only=True)
class RefuseMissing:
    """A row without a value ends the run before anything is paid."""

    kind: Literal["refuse"] = "refuse"


@dataclass(frozen=True, kw_only=True)
class DropMissing:
    """A row without a value is left out."""

    kind: Literal["drop"] = "drop"


@dataclass(frozen=True, kw_only=True)
class FillMissing:
    """A declared value stands in for none."""

    kind: Literal["fill"] = "fill"
    value: Any
    """A legal value of the column, as its rows would have it: a number, a category, a date in
    quotes. It is declared; a mean of private rows would tell of them."""
    flag: bool = False
    """Whether one more input says that the value was missing."""

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            raise BadArgument(f"value={self.value!r} must be a number or a text")


MissingOption = RefuseMissing | DropMissing | FillMissing
CodingOption = Bins | PiecewiseLinear


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """A column that the model sees: a number, one of the listed categories, a code, a date, or a
    yes or no."""

    low: float | None = None
    """Smallest legal value, in the column's own unit."""
    high: float | None = None
    """Largest legal value, in the column's own unit."""
    coding: CodingOption | None = None
    """How a number becomes several inputs; absent: one input, as `data.scaling` says. Its edges
    are declared, so it costs no privacy."""
    categories: tuple[str, ...] = ()
    """Every legal value, as text; empty for a number."""
    other: bool = False
    """Whether all values that are not listed share one more category; else they are refused."""
    hash: int | None = None
    """For codes of which there are too many to list: the number of inputs, each value in one of
    them by a hash of its text. Different codes may share an input (collide)."""
    date: Dates | None = None
    """The column holds dates; the time since an origin is a number, parts are categories."""
    boolean: Truths | None = None
    """The column holds yes or no; `{}` takes the usual words."""
    text: bool = False
    """Reserved; must be false. Free text beside other columns is not read."""
    missing: MissingOption | None = None
    """What to do with a row that lacks a value here; absent: what `on_missing` says."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise BadArgument(f"{name}={value} must be finite; leave it out for no bound")
        if self.text:
            raise BadArgument(
                "text=True is not built: no model here reads free text beside other columns, and a "
                "sentence tells who wrote it; put the column under `drop`, train on it alone with "
                "`data: {kind: text}`, or declare short codes by `hash`"
            )
        self._check_kind()
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise BadArgument(f"low={self.low} must be below high={self.high}")
        if len(set(self.categories)) < len(self.categories):
            raise BadArgument(f"categories={self.categories} must differ from each other")
        if self.other and not self.categories:
            raise BadArgument("other=True needs `categories`, beside which all others are one more")
        if self.hash is not None and not 2 <= self.hash <= _WIDEST:
            raise BadArgument(f"hash={self.hash} must be from 2 to {_WIDEST} inputs")
        if self.coding is not None:
            self._check_coding(self.coding)

    def _check_kind(self) -> None:
        chosen = [
            name for name in ("categories", "hash", "boolean", "date")
            if getattr(self, name) not in (None, ())
        ]  # fmt: skip
        if len(chosen) > 1:
            raise BadArgument(f"{chosen[0]} and {chosen[1]} exclude each other; keep one")
        dates = self.date
        coded = not chosen or (dates is not None and not dates.parts)
        ranged = coded or (dates is not None and "year" in dates.parts)
        for name, fits in (("low", ranged), ("high", ranged), ("coding", coded)):
            value = getattr(self, name)
            if value is not None and not fits:
                said = name if name == "coding" else f"{name}={value}"
                raise BadArgument(f"{said} and {chosen[0]} exclude each other; keep one")

    def _check_coding(self, coding: CodingOption) -> None:
        if self.low is None or self.high is None:
            raise BadArgument("coding needs `low` and `high`, between which its edges lie")
        inner = coding.edges
        if inner and not (self.low < inner[0] and inner[-1] < self.high):
            raise BadArgument(
                f"coding has edges from {inner[0]:g} to {inner[-1]:g}, which must lie between "
                f"low={self.low:g} and high={self.high:g}"
            )
        if coding.count is not None and not _rise(self._edges(coding)):
            raise BadArgument(f"coding has count={coding.count}, too many for so small a range")

    def column(self, name: str, on_missing: Literal["refuse", "drop"] = "refuse") -> Column:
        """The column as the rows are read by it; `on_missing` is what the table says."""
        kind = "number"
        if self.categories:
            kind = "category"
        elif self.hash is not None:
            kind = "hash"
        elif self.boolean is not None:
            kind = "boolean"
        elif self.date is not None:
            kind = "date"
        fill = self.missing if isinstance(self.missing, FillMissing) else None
        truths = self.boolean or Truths()
        coding = self.coding
        return Column(
            name,
            kind,
            self.low,
            self.high,
            self.categories,
            other=self.other,
            buckets=self.hash or 0,
            yes=tuple(w.strip().lower() for w in truths.yes) if kind == "boolean" else (),
            no=tuple(w.strip().lower() for w in truths.no) if kind == "boolean" else (),
            dates=self.date,
            coding="plain" if coding is None else coding.kind,
            edges=() if coding is None else self._edges(coding),
            missing=on_missing if self.missing is None else self.missing.kind,
            fill=None if fill is None else fill.value,
            flag=fill is not None and fill.flag,
        )

    def _edges(self, coding: CodingOption) -> tuple[float, ...]:
        low, high = float(self.low or 0), float(self.high or 0)
        if coding.count is None:
            return (low, *coding.edges, high)
        inner = (low + (high - low) * place / coding.count for place in range(1, coding.count))
        return (low, *inner, high)


_WIDEST = 4096
"""Inputs that one column may fill."""


def _check_edges(count: int | None, edges: tuple[float, ...]) -> None:
    if (count is None) == (not edges):
        raise BadArgument("count or edges must be declared, and not both")
    if count is not None and not 2 <= count <= _WIDEST:
        raise BadArgument(f"count={count} must be from 2 to {_WIDEST}")
    if not all(map(math.isfinite, edges)) or not _rise(edges):
        raise BadArgument(f"edges={edges} must be finite and rise")


def _rise(edges: tuple[float, ...]) -> bool:
    return all(first < second for first, second in pairwise(edges))
