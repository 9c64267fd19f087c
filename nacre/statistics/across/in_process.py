"""A release over parties that are all in this process: every message as bytes, every account its
own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.core.errors import Refusal
from nacre.core.random import Source
from nacre.data.readers import RawTable
from nacre.data.sketches.files import of_file, parts_of_file
from nacre.federated_learning.roster import SERVER, Identity, Roster
from nacre.federated_learning.transport import InProcess
from nacre.ledger import Ledger
from nacre.ledger.recorded_rows import record_rows
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.answering import Holder, charged_for, require_readable, rows_of
from nacre.statistics.across.opening import TogetherAnswered, opened_together
from nacre.statistics.frames import opened_table
from nacre.statistics.query_file import Queries

if TYPE_CHECKING:
    import pandas as pd

    from nacre.data.sketches.cells import Cells


def account_of(account: str, party: str) -> str:
    """The account of a party, as trained federations name it."""
    return f"{account}/{party}"


def release_together(
    tables: Path | str | pd.DataFrame | Mapping[str, Path | str | pd.DataFrame],
    queries: Queries,
    *,
    ledger: Path | str | Ledger,
    account: str,
) -> TogetherAnswered:
    """Answers queries about the rows of several parties together, by a secure sum.

    `tables` is one table, which `across.column` deals to the parties, or a table for each party by
    its name. Each party's rows are charged to an account of their own, `ACCOUNT/PARTY`. All
    accounts are reserved before a row is read, and each is charged before a number of that party
    leaves it. Asking again is another release.

    Raises as `release`; `Refusal` where tables and parties do not agree.
    """
    asked = AgreedQueries.of(queries)
    run = f"release {uuid.uuid4().hex}"
    source = Source.fresh()
    names = asked.across.parties
    accounts = {name: account_of(account, name) for name in names}
    asked.slots  # noqa: B018 - what has no noise is refused before anything is reserved
    with ExitStack() as stack:
        opened = isinstance(ledger, Ledger)
        book = ledger if opened else stack.enter_context(Ledger.open(ledger))
        charges = {
            name: stack.enter_context(charged_for(book, accounts[name], run, asked))
            for name in names
        }
        held, cells = _dealt(tables, asked)
        split = None if isinstance(tables, Mapping) else asked.across.column
        record_rows(book, {accounts[name]: cells[name] for name in names}, split)
        for name in names:
            require_readable(held[name], asked, name)
        keys = {name: _identity(source, name) for name in (SERVER, *names)}
        roster = Roster(keys[SERVER].public, {name: keys[name].public for name in names})
        terms = asked.terms(run, roster)
        handlers = {
            name: Holder(name, asked, held[name], source.child("party", name), charges[name])
            .party(keys[name], terms)
            .handle
            for name in names
        }
        return opened_together(InProcess(handlers), keys[SERVER], asked, terms)


def _dealt(
    tables: Path | str | pd.DataFrame | Mapping[str, Path | str | pd.DataFrame],
    asked: AgreedQueries,
) -> tuple[Mapping[str, RawTable], Mapping[str, tuple[Cells, ...]]]:
    """(rows, cells) by party. Raises `Refusal` where tables and parties do not agree."""
    names, column = asked.across.parties, asked.across.column
    if isinstance(tables, Mapping):
        if set(tables) != set(names):
            raise Refusal(
                f"there are tables of {', '.join(sorted(tables))}, and the queries are of the "
                f"parties {', '.join(sorted(names))}; give each of them its own"
            )
        held = {name: opened_table(tables[name]) for name in names}
        return held, {name: of_file(raw) for name, raw in held.items()}
    if column is None:
        raise Refusal(
            "one table is given for all parties and `across.column` does not say which rows are "
            "whose; add it, or give each party its own table"
        )
    raw = opened_table(tables)
    parts = parts_of_file(raw, column)
    return rows_of(raw, asked), {name: parts.get(name, ()) for name in names}


def _identity(source: Source, name: str) -> Identity:
    return Identity.from_secret(name, source.secret("secure sum", "identity", name))
