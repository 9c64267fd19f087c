"""Tables from CSV or Parquet, read against declared columns: ranges, categories, classes."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument, DataError
from nacre.data.cells import of_table
from nacre.data.dataset import Cohorts, Column, Rows, Schema, checked
from nacre.data.files import rows_named
from nacre.data.readers import (
    RawTable,
    as_number,
    form_problem,
    is_missing,
    read_table,
    text,
    unit_name,
)
from nacre.data.reading.values import Values
from nacre.data.scaling import DeclaredScaling, ScalingOption, scaling_problem
from nacre.data.split import Holdout, PublicFile, held_out
from nacre.data.text.token_cache import Aids


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """A column that the model sees: a number, or one of the listed categories."""

    low: float | None = None
    """Smallest legal value, in the column's own unit."""
    high: float | None = None
    """Largest legal value, in the column's own unit."""
    categories: tuple[str, ...] = ()
    """Every legal value, as text; empty for a number."""

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise BadArgument(f"{name}={value} must be finite; leave it out for no bound")
            if value is not None and self.categories:
                raise BadArgument(f"{name}={value} and categories exclude each other; keep one")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise BadArgument(f"low={self.low} must be below high={self.high}")
        if len(set(self.categories)) < len(self.categories):
            raise BadArgument(f"categories={self.categories} must differ from each other")


@dataclass(frozen=True, kw_only=True)
class Table(NoAssumptions):
    """Rows of a CSV or Parquet file. Every column is declared, since learning a range or a list
    of categories from private rows would leak them."""

    kind: Literal["table"] = "table"
    path: str
    """The file, relative to the recipe: .csv, .csv.gz, .parquet or .pq."""
    target: str
    """The column to predict."""
    columns: dict[str, ColumnSpec]
    """Name: range or categories, for every column that the model sees."""
    drop: tuple[str, ...] = ()
    """Columns that are not used. A column that is neither declared nor dropped is refused."""
    unit: str | None = None
    """The column whose value is shared by all rows of one person."""
    party: str | None = None
    """The column that names who holds a row."""
    size: int
    """Declared number of private units, after the holdout: public, used for rates."""
    public_demonstration: bool = False
    """Whether all rows are public, so that figures on any of them may be shown."""
    task: Literal["classification", "regression"] = "classification"
    """What the target is."""
    classes: tuple[str, ...] = ()
    """Every value of the target, as text, in the order of the model's outputs."""
    holdout: Holdout | None = None
    """Rows kept out of training, to score the model with."""
    public: PublicFile | None = None
    """Another file with the same columns whose rows are public; unit and party are not needed."""
    scaling: ScalingOption = field(default_factory=DeclaredScaling)
    """How features become inputs of the model."""
    on_missing: Literal["refuse", "drop"] = "refuse"
    """What to do with a row that lacks a value."""
    on_out_of_range: Literal["refuse", "clamp", "drop"] = "refuse"
    """What to do with a number outside its range; an unlisted category is refused or dropped."""

    def sentence(self) -> str:
        """Which file."""
        return f"table {self.path}"

    def __post_init__(self) -> None:
        require.at_least(1, size=self.size)
        if not self.columns:
            raise BadArgument("columns must declare at least one column")
        roles = [*self.columns, self.target, *self.drop]
        roles += [name for name in (self.unit, self.party) if name is not None]
        twice = sorted({name for name in roles if roles.count(name) > 1})
        if problem := form_problem(self.path):
            raise BadArgument(problem)
        if twice:
            raise BadArgument(
                f"column {twice[0]!r} has two roles among columns, target, drop, unit and party; "
                "keep one"
            )
        _check_classes(self.task, self.classes)
        problem = scaling_problem(self.scaling, self.schema(), self.has_public)
        if problem:
            raise BadArgument(problem)

    @property
    def has_public(self) -> bool:
        """Whether `read` will return public rows."""
        return self.public is not None

    @property
    def has_test(self) -> bool:
        """Whether `read` will return test rows."""
        return self.holdout is not None

    def schema(self, folder: Path = Path()) -> Schema:
        """What a row looks like, from the declared columns in their order."""
        columns = tuple(
            Column(
                name, "category" if spec.categories else "number", spec.low, spec.high,
                spec.categories,
            )
            for name, spec in self.columns.items()
        )  # fmt: skip
        width = sum(len(column.entries()) for column in columns)
        return Schema((width,), columns, self.task, self.classes)

    def _numbers(self) -> set[str]:
        """The columns of which nothing is read but numbers."""
        found = {column.name for column in self.schema().columns if column.kind == "number"}
        return found if self.task == "classification" else found | {self.target}

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """Reads both files against the declaration; the holdout is chosen under `split_key`."""
        numbers = self._numbers()
        raw = read_table(folder, self.path, numbers)
        private, notes = _encoded(self, raw, keyed=True)
        test = public = None
        if self.holdout:
            private, test = held_out(private, self.holdout, split_key)
        if self.public:
            public, more = _encoded(
                self, read_table(folder, self.public.path, numbers), keyed=False
            )
            notes += more
        shown = self.public_demonstration
        cells = () if shown else of_table(raw.columns)  # of public rows no ledger keeps a sketch
        cohorts = Cohorts(private, public, test, shown, shown, notes, cells=cells)
        return checked(cohorts, self.schema(), str(raw.file))


def _check_classes(task: str, classes: tuple[str, ...]) -> None:
    if task == "regression" and classes:
        raise BadArgument(f"classes={classes} have no meaning for task=regression; leave them out")
    if task == "classification" and len(set(classes)) < max(2, len(classes)):
        raise BadArgument(f"classes={classes} must name at least two different classes")


class _TableReading:
    """One file while it is read: which rows stay, and what was done to the others."""

    def __init__(self, table: Table, raw: RawTable) -> None:
        self.table, self.raw = table, raw
        self.keep = np.ones(len(raw), dtype=bool)
        self.notes: list[str] = []

    def judge(self, rows: list[int], name: str, fault: str, policy: str, remedy: str) -> None:
        """Refuses or drops these rows; `fault` says what is wrong, `remedy` what to do."""
        if not rows:
            return
        if policy == "refuse":
            raise DataError(
                f"{self.raw.file} column {name!r}: {fault} in {rows_named(rows)}; {remedy}",
                column=name,
            )
        self.keep[list(rows)] = False
        self.notes.append(f"{self.raw.file}: dropped {rows_named(rows)}, {fault} in {name!r}")

    def present(self, name: str, values: Values, known: Sequence[str] = ()) -> np.ndarray:
        """(N,) bool: which rows have a value; those without one are judged."""
        has = values.each(lambda value: text(value) in known or not is_missing(value), bool)
        self._lacking(has, name)
        return has

    def _lacking(self, has: np.ndarray, name: str) -> None:
        """Judges the rows without a value."""
        remedy = "fill them or set `on_missing: drop`"
        self.judge(_where(~has), name, "there is no value", self.table.on_missing, remedy)

    def numbers(self, name: str, low: float | None, high: float | None) -> np.ndarray:
        """(N,) float64 values of a number column, clamped where the recipe says so."""
        has, numbers = self._parsed(name)
        least = -math.inf if low is None else low
        most = math.inf if high is None else high
        policy = self.table.on_out_of_range
        if policy == "clamp":
            inside = np.clip(numbers, least, most)
            moved = _where(has & (inside != numbers))
            if moved:
                what = f"clamped {rows_named(moved)} of {name!r} to the declared range"
                self.notes.append(f"{self.raw.file}: {what}")
            numbers, policy = inside, "refuse"
        largest = float(np.finfo(np.float32).max)  # beyond it a feature would become infinite
        outside = (numbers < max(least, -largest)) | (numbers > min(most, largest))
        self.judge(
            _where(has & outside), name, f"the value lies outside {_range(low, high)}", policy,
            "correct them, widen the range, or set `on_out_of_range`",
        )  # fmt: skip
        return np.where(outside, 0.0, numbers)

    def _parsed(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(N,) bool, which rows have a value, and (N,) float64, 0 where they have none."""
        values = self.raw.column(name)
        numbers = values.parsed(as_number)
        has = np.ones(len(values), dtype=bool)
        wrong = _where(np.isnan(numbers))
        lacking = [row for row in wrong if is_missing(values[row])]
        has[lacking] = False
        self._lacking(has, name)
        wrong = [row for row in wrong if has[row]]
        shown = text(values[wrong[0]])[:_SHOWN] if wrong else ""
        self.judge(
            wrong, name, f"{shown!r} is not a number", "refuse",
            "correct it, or where it stands for no value leave the cell empty and set "
            "`on_missing: drop`, or drop the column",
        )  # fmt: skip
        return has, np.where(has, numbers, 0.0)

    def choices(self, name: str, known: Sequence[str], policy: str, remedy: str) -> np.ndarray:
        """(N,) int64 places in `known`; 0 where the row is dropped."""
        values = self.raw.column(name)
        has = self.present(name, values, known)
        place = {value: i for i, value in enumerate(known)}
        found = values.each(lambda value: place.get(text(value), -1), np.int64)
        unknown = _where(has & (found < 0))
        others = len({text(values[row]) for row in unknown}) - 1
        more = f" (and {others} other value{'s' if others > 1 else ''})" if others > 0 else ""
        fault = f"{text(values[unknown[0]])!r}{more} is not declared" if unknown else ""
        self.judge(unknown, name, fault, policy, remedy)
        return np.maximum(found, 0)

    def names(self, name: str | None) -> list[str] | None:
        """(N,) text of a unit or party column."""
        if name is None:
            return None
        values = self.raw.column(name)
        self.present(name, values)
        return values.each(unit_name).tolist()


def _encoded(table: Table, raw: RawTable, *, keyed: bool) -> tuple[Rows, tuple[str, ...]]:
    """(rows, notes); unit and party are read where `keyed`. Raises `DataError`."""
    _all_declared(table, raw, keyed=keyed)
    reading = _TableReading(table, raw)
    columns = table.schema().columns
    # Filled in place: beside the table there is one column in float64 at a time.
    features = np.zeros((len(raw), sum(len(c.entries()) for c in columns)), dtype=np.float32)
    place = 0
    for column in columns:
        _fill(reading, column, features[:, place : place + len(column.entries())])
        place += len(column.entries())
    if table.task == "classification":
        remedy = "add it to `classes` or correct the rows"
        label = reading.choices(table.target, table.classes, "refuse", remedy)
    else:
        label = reading.numbers(table.target, None, None).astype(np.float32)
    group = reading.names(table.unit) if keyed else None
    party = reading.names(table.party) if keyed else None
    rows = Rows(
        torch.from_numpy(features),
        torch.from_numpy(label),
        None if group is None else tuple(group),
        None if party is None else tuple(party),
    )
    if not reading.keep.all():
        rows = rows.take(_where(reading.keep))
    return rows, tuple(reading.notes)


def _all_declared(table: Table, raw: RawTable, *, keyed: bool) -> None:
    people = (table.unit, table.party) if keyed else ()
    for name in (*table.columns, table.target, *people):
        if name is not None:
            raw.column(name)  # a misspelt name is refused before the column that is left over
    known = {*table.columns, table.target, *table.drop, table.unit, table.party}
    for name in raw.columns:
        if name not in known:
            raise DataError(
                f"{raw.file} has a column {name!r} that is neither declared nor dropped; add it "
                "to `columns` or to `drop`"
            )


def _fill(reading: _TableReading, column: Column, entries: np.ndarray) -> None:
    """Writes the input entries of one column, (N, entries) float32, which hold zeros."""
    if column.kind == "number":
        entries[:, 0] = reading.numbers(column.name, column.low, column.high)
        return
    # No number stands for an unlisted category, so there is nothing to clamp it to.
    policy = "drop" if reading.table.on_out_of_range == "drop" else "refuse"
    remedy = "add it to `categories` or set `on_out_of_range: drop`"
    places = reading.choices(column.name, column.categories, policy, remedy)
    entries[np.arange(len(places)), places] = 1


_SHOWN = 40
"""Characters of a value that a message shows."""


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "the finite numbers"
    return f"[{'-inf' if low is None else low}, {'inf' if high is None else high}]"


def _where(mask: np.ndarray) -> list[int]:
    found: list[int] = np.flatnonzero(mask).tolist()
    return found
