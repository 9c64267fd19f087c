"""Private statistics of a table: reserve everything, read, charge everything, answer."""

# Parts of pandas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.core.errors import DataError, Refusal
from nacre.core.types import Unit
from nacre.data.raw import RawTable, missing, number, read_table, text
from nacre.differential_privacy.queries import Contingency, Count, Histogram, QueryOption
from nacre.differential_privacy.statistics import Answer, answer, joint_event, query_event
from nacre.ledger import Charge, Ledger
from nacre.recipe.queries import Queries

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Statistics:
    """The answers, and the name under which the ledger has their charges."""

    run: str
    answers: tuple[Answer, ...]

    def __getitem__(self, name: str) -> Answer:
        """The answer to the query of this name. Raises `KeyError`."""
        return {answer.name: answer for answer in self.answers}[name]


def release(
    table: Path | str | pd.DataFrame,
    queries: Sequence[QueryOption] | Queries,
    *,
    ledger: Path | str | Ledger,
    account: str,
) -> Statistics:
    """Answers queries about a table under differential privacy.

    All answers are reserved together before a row is read, and charged together before the first is
    computed; what fails before that goes back to the account. Asking again is another release.

    Raises `Refusal` for a query without a price, `DataError` for rows that do not fit it,
    `BudgetExceeded` where the account does not hold enough, `LedgerError` for a ledger or an
    account that cannot be used.
    """
    asked = (queries if isinstance(queries, Queries) else Queries(queries=tuple(queries))).queries
    run = f"release {uuid.uuid4().hex}"
    with ExitStack() as stack:
        opened = isinstance(ledger, Ledger)
        book = ledger if opened else stack.enter_context(Ledger.open(ledger))
        charges: list[Charge] = []
        for charge in _reserved(book, account, run, asked):
            charges.append(charge)
            stack.callback(charge.settle)
        frames = _frames(table, asked)
        for charge in charges:
            charge.journal(1)
        answers = (answer(frame, query) for frame, query in zip(frames, asked, strict=True))
        return Statistics(run, tuple(answers))


def _reserved(
    book: Ledger, account: str, run: str, asked: Sequence[QueryOption]
) -> Iterator[Charge]:
    """One charge for all queries that protect rows, and one for all that protect people: a grant by
    `pld` takes a single run, and together they cost less than one by one."""
    units: tuple[Unit, ...] = ("example", "group")
    for unit in units:
        same = [query for query in asked if (query.unit is None) == (unit == "example")]
        if same:
            for query in same:
                _require_price(query)
            names = ", ".join(query.name for query in same)
            asked_for = joint_event(same)
            yield book.reserve(account, f"{run}: {names}", asked_for, 1, unit, "add_or_remove")


def _require_price(query: QueryOption) -> None:
    try:
        query_event(query)
    except ValueError as error:
        raise Refusal(f"query {query.name!r} has no price: {error}") from error


def _frames(table: Path | str | pd.DataFrame, asked: Sequence[QueryOption]) -> list[pd.DataFrame]:
    raw = read_table(Path(), str(table)) if isinstance(table, str | Path) else _raw(table)
    return [_frame(raw, query) for query in asked]


def _raw(table: pd.DataFrame) -> RawTable:
    """Its cells as a file would give them; whatever pandas takes for no value is none."""
    if not len(table):
        raise DataError("the table holds no rows, so there is nothing to tell of; add rows to it")
    columns: dict[str, list[object]] = {}
    for name in table.columns:
        cells = table[name].astype(object)
        columns[str(name)] = list(cells.where(cells.notna(), None))
    return RawTable(Path("the table"), columns)


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
        columns[name] = [None if missing(cell) else text(cell) for cell in cells]
    if numeric is not None:  # a column may be both: cross tables and groups have text
        if numeric in columns:
            raise Refusal(
                f"query {query.name!r} takes column {numeric!r} for a number and for a name; ask "
                "for another column"
            )
        columns[numeric] = _numbers(raw, numeric)
    return pd.DataFrame(columns, dtype=object)


def _asked(query: QueryOption) -> tuple[str | None, list[str]]:
    """The column of numbers of a query, and those of text."""
    named = [query.unit] if query.unit is not None else []
    if isinstance(query, Contingency):
        return None, [*named, *query.columns]
    if isinstance(query, Histogram):
        return (None, [*named, query.column]) if query.categories else (query.column, named)
    if query.by is not None:
        named.append(query.by)
    return None if isinstance(query, Count) else query.column, named


def _numbers(raw: RawTable, column: str) -> list[float | None]:
    values: list[float | None] = []
    for row, cell in enumerate(raw.column(column), start=1):
        value = None if missing(cell) else number(cell)
        if value is None and not missing(cell):
            raise DataError(f"{raw.file} column {column!r}: row {row} is not a number; correct it")
        values.append(value)
    return values
