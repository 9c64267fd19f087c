"""Tables from CSV or Parquet, read against declared columns: ranges, categories, classes."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from nacre.core import require
from nacre.core.assumptions import NoAssumptions
from nacre.core.errors import BadArgument, DataError
from nacre.data.columns.column import Column
from nacre.data.columns.dialect import PLAIN, Dialect
from nacre.data.columns.encode import ColumnReading, Remedies, features_of, fill_problem
from nacre.data.columns.faults import refusal
from nacre.data.columns.spec import ColumnSpec
from nacre.data.columns.values import as_column, different, lacks_value
from nacre.data.dataset import Cohorts, Rows, Schema, checked
from nacre.data.files import rows_named
from nacre.data.readers import RawTable, form_problem, read_table, suffix, unit_name
from nacre.data.scaling import DeclaredScaling, ScalingOption, scaling_problem
from nacre.data.sketches.files import of_file, parts_of_file
from nacre.data.split import Holdout, PublicFile, held_out
from nacre.data.text.token_cache import Aids


@dataclass(frozen=True, kw_only=True)
class Table(NoAssumptions):
    """Rows of a CSV or Parquet file. Every column is declared, since learning a range or a list
    of categories from private rows would leak them."""

    kind: Literal["table"] = "table"
    path: str
    """The file, relative to the recipe: .csv, .csv.gz, .parquet or .pq."""
    dialect: Dialect = PLAIN
    """How the file writes its values; the same for `public`, and for files that are predicted."""
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
        self._check_missing()
        self._check_file()
        self._check_columns()
        problem = scaling_problem(self.scaling, self.schema(), self.has_public)
        if problem:
            raise BadArgument(problem)

    def _check_file(self) -> None:
        if suffix(self.path) not in (".parquet", ".pq", ".jsonl", ".ndjson"):
            return
        for name in ("separator", "quote", "encoding"):
            if (value := getattr(self.dialect, name)) != getattr(PLAIN, name):
                raise BadArgument(
                    f"dialect.{name}: {value!r} is of text in columns, and {self.path} is none; "
                    "leave it out"
                )

    def _check_missing(self) -> None:
        """A word in both lists would be a value to some readers and no value to others."""
        if self.dialect.missing is None:
            return
        declared = [(f"columns.{c.name}", (*c.categories, *c.yes, *c.no)) for c in self._columns()]
        for key, words in (*declared, ("classes", self.classes)):
            if found := [word for word in words if lacks_value(word, self.dialect)]:
                raise BadArgument(
                    f"dialect.missing declares {found[0]!r} as a word for no value, and {key} as "
                    "a value; take it out of one of them"
                )

    def _check_columns(self) -> None:
        columns = self.schema().columns
        for column in columns:
            if problem := fill_problem(column):
                raise BadArgument(f"columns.{column.name}: {problem}; declare a legal value")
        names = [name for column in columns for name in column.entries()]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise BadArgument(
                f"columns would give the model two inputs called {name!r}; rename a column"
            )

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
        columns = self._columns()
        width = sum(len(column.layout()) for column in columns)
        return Schema((width,), columns, self.task, self.classes)

    def _columns(self) -> tuple[Column, ...]:
        return tuple(spec.column(name, self.on_missing) for name, spec in self.columns.items())

    def _numbers(self) -> set[str]:
        """The columns of which nothing is read but numbers, written as Python writes them."""
        if not self.dialect.plain:
            return set()
        found = {column.name for column in self.schema().columns if column.kind == "number"}
        return found if self.task == "classification" else found | {self.target}

    def look(self, folder: Path) -> None:
        """Reads and checks both files. Raises `DataError` with everything that is refused."""
        for path, keyed in ((self.path, True), (self.public and self.public.path, False)):
            if path:
                _encoded(self, self._raw(folder, path), keyed=keyed)

    def _raw(self, folder: Path, path: str) -> RawTable:
        return read_table(folder, path, self.dialect, self._numbers())

    def read_public(self, folder: Path) -> Rows | None:
        """The public rows alone, where a file of them is named; no private row is touched."""
        if self.public is None:
            return None
        rows, _ = _encoded(self, self._raw(folder, self.public.path), keyed=False)
        return rows

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """Reads both files against the declaration; the holdout is chosen under `split_key`."""
        raw = self._raw(folder, self.path)
        private, notes = _encoded(self, raw, keyed=True)
        test = public = None
        if self.holdout:
            private, test = held_out(private, self.holdout, split_key)
        if self.public:
            public, more = _encoded(self, self._raw(folder, self.public.path), keyed=False)
            notes += more
        shown = self.public_demonstration
        # Of public rows no ledger keeps a sketch.
        encoding = self.dialect.encoding
        cells = () if shown else of_file(raw, encoding)
        parts = {} if shown else parts_of_file(raw, self.party, encoding)
        cohorts = Cohorts(private, public, test, shown, shown, notes, cells=cells, parts=parts)
        return checked(cohorts, self.schema(), str(raw.file))


def _check_classes(task: str, classes: tuple[str, ...]) -> None:
    if task == "regression" and classes:
        raise BadArgument(f"classes={classes} have no meaning for task=regression; leave them out")
    if task == "classification" and len(set(classes)) < max(2, len(classes)):
        raise BadArgument(f"classes={classes} must name at least two different classes")


class _TableReading:
    """One file while it is read: what is wrong with its rows, which of them stay."""

    def __init__(self, table: Table, raw: RawTable) -> None:
        self.table, self.raw = table, raw
        self.reading = ColumnReading(table.dialect, table.on_out_of_range, _REMEDIES)

    def features(self) -> np.ndarray:
        """(N, F) float32: what the model sees."""
        declared = self.table.schema().columns
        columns = {column.name: self.raw.column(column.name) for column in declared}
        return features_of(columns, declared, self.reading, len(self.raw))

    def label(self) -> np.ndarray:
        """(N,) int64 places among the classes, or float32 numbers."""
        table = self.table
        values = as_column(self.raw.column(table.target))
        if table.task == "regression":
            target = Column(table.target, "number", missing=table.on_missing)
            has, numbers = self.reading.numbers(values, target)
            self.reading.missing(target, has)
            return numbers.astype(np.float32)
        target = Column(
            table.target, "category", categories=table.classes, missing=table.on_missing
        )
        classes = ColumnReading(table.dialect, "refuse", _OF_CLASSES, self.reading.faults)
        has, places = classes.choices(values, target)
        classes.missing(target, has)
        return places

    def names(self, name: str | None) -> list[str] | None:
        """(N,) text of a unit or party column."""
        if name is None:
            return None
        words, codes = different(as_column(self.raw.column(name)))
        has = ~np.array([lacks_value(word, self.table.dialect) for word in words], np.bool_)
        self.reading.missing(Column(name, "category", missing=self.table.on_missing), has[codes])
        known = [unit_name(word) for word in words]
        return [known[code] for code in codes.tolist()]

    def kept(self) -> tuple[list[int], tuple[str, ...]]:
        """(the rows that stay, what was done to the others). Raises `DataError` with everything
        that is refused."""
        faults, keep, notes = self.reading.faults, np.ones(len(self.raw), np.bool_), list[str]()
        if refused := [fault for fault in faults if fault.policy == "refuse"]:
            raise refusal(str(self.raw.file), refused, len(self.raw))
        for fault in faults:
            rows = rows_named(fault.rows.tolist())
            if fault.policy == "clamp":
                done = f"clamped {rows} of {fault.column!r} to the declared range"
            else:
                keep[fault.rows] = False
                done = f"dropped {rows}, {fault.words} in {fault.column!r}"
            notes.append(f"{self.raw.file}: {done}")
        found: list[int] = np.flatnonzero(keep).tolist()
        return found, tuple(notes)


_REMEDIES: Remedies = {
    "missing": "fill them or set `on_missing: drop`, or declare `missing` for the column",
    "no number": "correct it, say how numbers are written (`dialect: {decimal: …}`), declare it "
    "under `dialect: {missing: […]}` where it stands for no value, or drop the column",
    "no date": "correct it, or declare how dates are written (`date: {format: …}`)",
    "outside": "correct them, widen the range, or set `on_out_of_range`",
    "unlisted": "add it to `categories`, set `other: true` for all that are not listed, or set "
    "`on_out_of_range: drop`",
}
_OF_CLASSES: Remedies = {**_REMEDIES, "unlisted": "add it to `classes` or correct the rows"}


def _encoded(table: Table, raw: RawTable, *, keyed: bool) -> tuple[Rows, tuple[str, ...]]:
    """(rows, notes); unit and party are read where `keyed`. Raises `DataError`."""
    _all_declared(table, raw, keyed=keyed)
    reading = _TableReading(table, raw)
    features, label = reading.features(), reading.label()
    group = reading.names(table.unit) if keyed else None
    party = reading.names(table.party) if keyed else None
    rows = Rows(
        torch.from_numpy(features),
        torch.from_numpy(label),
        None if group is None else tuple(group),
        None if party is None else tuple(party),
        place=torch.arange(len(features)),
    )
    kept, notes = reading.kept()
    return rows if len(kept) == len(rows) else rows.take(kept), notes


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
