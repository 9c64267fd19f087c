"""The columns of a table that a query looks at, each cell read by itself."""

# Parts of pandas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.core.errors import DataError, Refusal
from nacre.data.readers import RawTable, as_number, is_missing, read_table, text, unit_name
from nacre.data.reading.values import Listed, Values
from nacre.differential_privacy.queries import (
    Choice,
    Contingency,
    Count,
    Histogram,
    Keys,
    QueryOption,
)

if TYPE_CHECKING:
    import pandas as pd


def opened_table(table: Path | str | pd.DataFrame) -> RawTable:
    """The cells of a file or of a data frame. Raises `DataError`."""
    return read_table(Path(), str(table)) if isinstance(table, str | Path) else _raw(table)


def _raw(table: pd.DataFrame) -> RawTable:
    """Its cells as a file would give them; whatever pandas takes for no value is none."""
    if not len(table):
        raise DataError("the table holds no rows, so there is nothing to tell of; add rows to it")
    columns: dict[str, Values] = {}
    for place, name in enumerate(map(str, table.columns)):
        if name in columns:
            raise DataError(
                f"the table has column {name!r} twice, so it is unclear which one is meant; "
                "rename one"
            )
        cells = table.iloc[:, place].astype(object)
        columns[name] = Listed(list(cells.where(cells.notna(), None)))
    return RawTable(Path("the table"), columns)


def frame_for(raw: RawTable, query: QueryOption) -> pd.DataFrame:
    """The columns that a query looks at. Raises `DataError` with the name of the query for what
    does not fit it, and `Refusal` for a column that it takes for two things."""
    try:
        return _frame(raw, query)
    except DataError as error:
        raise DataError(f"query {query.name!r}: {error}", column=error.column) from error


def _frame(raw: RawTable, query: QueryOption) -> pd.DataFrame:
    """The columns that a query looks at.

    Cells are read one by one, each by itself: a type guessed from a whole column would let one row
    change how all others count, and with it the sensitivity that the noise is made for.
    """
    import pandas as pd

    columns: dict[str, list[Any]] = {"": [0] * len(raw)}  # a count needs rows, and no column
    numeric, named = _asked(query)
    for name in named:
        cells = raw.column(name)
        said = unit_name if name == query.unit else text
        columns[name] = [None if is_missing(cell) else said(cell) for cell in cells]
    if numeric is not None:  # a column may be both: cross tables and groups have text
        if numeric in columns:
            raise Refusal(
                f"query {query.name!r} takes column {numeric!r} for a number and for a name; ask "
                "for another column"
            )
        columns[numeric] = numbers_of(raw, numeric)
    return pd.DataFrame(columns, dtype=object)


def _asked(query: QueryOption) -> tuple[str | None, list[str]]:
    """The column of numbers of a query, and those of text."""
    named = [query.unit] if query.unit is not None else []
    if isinstance(query, Contingency):
        return None, [*named, *query.columns]
    if isinstance(query, Keys | Choice):
        return None, [*named, query.column]
    if isinstance(query, Histogram):
        return (None, [*named, query.column]) if query.categories else (query.column, named)
    if query.by is not None:
        named.append(query.by)
    return None if isinstance(query, Count) else query.column, named


def numbers_of(raw: RawTable, column: str) -> list[float | None]:
    """A column of numbers, None for no value. Raises `DataError` for a cell that is neither."""
    values: list[float | None] = []
    for row, cell in enumerate(raw.column(column), start=1):
        value = None if is_missing(cell) else as_number(cell)
        if value is None and not is_missing(cell):
            raise DataError(
                f"{raw.file} column {column!r}: row {row} is not a number ({text(cell)[:40]!r}); "
                "correct it, or leave the cell empty where it stands for no value"
            )
        values.append(value)
    return values


def table_without_rows(query: QueryOption) -> pd.DataFrame:
    """A table of the columns that a query looks at, without a row."""
    import pandas as pd

    numeric, named = _asked(query)
    names = ["", *named, *([] if numeric is None else [numeric])]
    return pd.DataFrame({name: [] for name in names}, dtype=object)


def places_among(values: Any, categories: Sequence[str]) -> list[int]:
    """The place of each value among the categories, or behind the last of them."""
    place = {category: i for i, category in enumerate(categories)}
    return [place.get(text(value), len(categories)) for value in values]
