"""Private statistics of a table: reserve everything, read, charge everything, answer."""

# Parts of pandas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.core.errors import BudgetExceeded, DataError, Refusal
from nacre.core.types import Unit
from nacre.data.readers import RawTable, text
from nacre.data.sketches.files import of_file
from nacre.differential_privacy.queries import QueryOption
from nacre.ledger import Charge, Ledger, Request
from nacre.ledger.recorded_rows import record_rows
from nacre.statistics.answers import Answer, answer, grouped_by, joint_event, no_answer, query_event
from nacre.statistics.frames import frame_for, numbers_of, opened_table
from nacre.statistics.local import (
    LocalOption,
    RandomisedResponse,
    noised_numbers,
    record_event,
    responses,
)
from nacre.statistics.paid import DueNoise, require_charged, require_due
from nacre.statistics.query_file import Queries, Records

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
    account that cannot be used, `NotAsPlanned` where an answer is not what its query pays for: it
    stays charged and is not given.
    """
    file = queries if isinstance(queries, Queries) else Queries(queries=tuple(queries))
    if file.across is not None:
        raise Refusal(
            "the queries are of several parties (`across`), which `nacre.release_together` asks; "
            "leave `across` out to ask one table"
        )
    asked = file.queries
    run = f"release {uuid.uuid4().hex}"
    with ExitStack() as stack:
        opened = isinstance(ledger, Ledger)
        book = ledger if opened else stack.enter_context(Ledger.open(ledger))
        charges: list[Charge] = []
        for charge in charges_for(book, account, run, asked):
            charges.append(charge)
            stack.callback(charge.settle)
        raw = opened_table(table)
        record_rows(book, {account: of_file(raw)})
        frames = [frame_for(raw, query) for query in asked]
        for charge in charges:
            charge.journal(1)
        answers: list[Answer] = []
        for frame, query in zip(frames, asked, strict=True):
            asked_of = grouped_by(query, answers)
            empty = getattr(asked_of, "groups_from", None) is not None
            answers.append(no_answer(query) if empty else answer(frame, asked_of))
        require_paid(book, charges, asked, answers)
        return Statistics(run, tuple(answers))


def require_paid(
    book: Ledger, charges: Sequence[Charge], asked: Sequence[QueryOption],
    answers: Sequence[Answer],
) -> None:  # fmt: skip
    """Raises `NotAsPlanned` unless each answer is what its query pays for, and the ledger holds the
    price of all of them."""
    for query, found in zip(asked, answers, strict=True):
        values = len(found.values)
        said = DueNoise(
            name=found.name, scale=found.scale, values=values, epsilon=query.epsilon,
            delta=query.delta,
        )  # fmt: skip
        require_due(query, said)
    columns = dict.fromkeys(query.unit for query in asked)  # as `charges_for` has them
    for column, charge in zip(columns, charges, strict=True):
        standing = book.asked(charge.account, charge.run)
        both = zip(asked, answers, strict=True)
        events = [found.event for query, found in both if query.unit == column]
        require_charged(standing.event, events, "rows" if column is None else f"{column!r}")


@dataclass(frozen=True)
class LocalRecords:
    """What was written of each record, and the name under which the ledger has its charge."""

    run: str
    columns: dict[str, list[str] | list[float]]


def release_records(
    table: Path | str | pd.DataFrame,
    columns: Mapping[str, LocalOption] | Records,
    *,
    ledger: Path | str | Ledger,
    account: str,
) -> LocalRecords:
    """Noises each record by itself (`nacre.statistics.local`).

    Charged as one release under adjacency replace_one, which the account has to be granted for:
    how many records there are is not hidden. Reserved before a row is read, charged before the
    first is noised. Raises as `release`; `DataError` for a record without a value, or with a
    category that was not declared: leaving it out would tell of it.
    """
    asked = (columns if isinstance(columns, Records) else Records(columns=dict(columns))).columns
    run = f"records {uuid.uuid4().hex}"
    with ExitStack() as stack:
        opened = isinstance(ledger, Ledger)
        book = ledger if opened else stack.enter_context(Ledger.open(ledger))
        name = f"{run}: {', '.join(asked)}"
        request = Request.of(name, record_event(asked), unit="example", adjacency="replace_one")
        charge = book.reserve(account, request)
        stack.callback(charge.settle)
        raw = opened_table(table)
        record_rows(book, {account: of_file(raw)})
        read = {name: _records(raw, name, option) for name, option in asked.items()}
        charge.journal(1)
        written: dict[str, list[str] | list[float]] = {}
        for name, option in asked.items():
            if isinstance(option, RandomisedResponse):
                written[name] = responses([str(value) for value in read[name]], option)
            else:
                written[name] = noised_numbers([float(value) for value in read[name]], option)
        return LocalRecords(run, written)


def _records(raw: RawTable, name: str, option: LocalOption) -> list[str] | list[float]:
    """A column without gaps. Raises `DataError`."""
    if isinstance(option, RandomisedResponse):
        words = [text(cell) for cell in raw.column(name)]
        wrong = [row for row, word in enumerate(words, start=1) if word not in option.categories]
        found: list[str] | list[float] = words
        what = f"none of the declared categories {', '.join(option.categories)}"
    else:
        numbers = numbers_of(raw, name)
        wrong = [row for row, value in enumerate(numbers, start=1) if value is None]
        found = [value for value in numbers if value is not None]
        what = "no value"
    if wrong:
        raise DataError(
            f"{raw.file} column {name!r}: row {wrong[0]} has {what}; leaving it out would tell of "
            "it, so fill it, or declare a category for it",
            column=name,
        )
    return found


def charges_for(
    book: Ledger, account: str, run: str, asked: Sequence[QueryOption]
) -> Iterator[Charge]:
    """One charge for all queries that protect rows, and one for all that protect the units of one
    column: a grant by `pld` takes a single run, and together they cost less than one by one."""
    for column in dict.fromkeys(query.unit for query in asked):
        same = [query for query in asked if query.unit == column]
        for query in same:
            _require_price(query)
        names = ", ".join(query.name for query in same)
        unit: Unit = "example" if column is None else "group"
        request = Request.of(
            f"{run}: {names}", joint_event(same), unit=unit, adjacency="add_or_remove",
            column=column or "",
        )  # fmt: skip
        try:
            yield book.reserve(account, request)
        except BudgetExceeded:
            if column is None:
                _require_rows(book, account, same[0])
            raise


def _require_rows(book: Ledger, account: str, query: QueryOption) -> None:
    """Raises `Refusal` for a query about rows where the account is granted for groups of them."""
    units = {grant.unit for grant in book.summary(account).grants}
    if "group" in units:
        raise Refusal(
            f"query {query.name!r} protects single rows, and account {account!r} was granted for "
            "groups, of which one may hold any number of rows: add `unit: COLUMN` to the query, "
            "with the column that the grant names, and `rows_per_unit`"
        )


def _require_price(query: QueryOption) -> None:
    try:
        query_event(query)
    except ValueError as error:
        raise Refusal(f"query {query.name!r} has no price: {error}") from error
