"""Where entries are kept: one append-only table, in a file of SQLite or in PostgreSQL.

*Guarantee, of every store:* `append` is durable once its transaction ends, and nothing of a
transaction that fails is kept. Writers exclude each other from before their first read on, so what
a writer has read is what its append follows. Rows are never changed or removed: no statement here
does so, and triggers refuse those of others.

The two stores share SQL of a dozen lines, and each speaks to its driver: behind a layer over both,
one entry took 200 microseconds of a processor instead of 22.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from nacre.core.errors import LedgerError
from nacre.ledger.chain import Entry

BUSY_SECONDS = 30.0
"""How long to wait for another process that is writing."""


class Transaction(Protocol):
    """Reads and appends that happen together or not at all."""

    def entries(self, first: int) -> Iterator[Entry]:
        """The entries from number `first` on, in order."""
        ...

    def append(self, entry: Entry) -> None:
        """Adds `entry` at the end."""
        ...


class Store(Protocol):
    """An open ledger's table. Threads may share one. Close it."""

    @property
    def name(self) -> str:
        """What people call it: a path, or a URL without its password."""
        ...

    @property
    def place(self) -> Path | str:
        """What `open_store` takes to open it again."""
        ...

    def transaction(self, *, write: bool) -> AbstractContextManager[Transaction]:
        """One transaction; with `write` no other process writes until it ends.

        Raises `LedgerError` for whatever the database or the disk refuses.
        """
        ...

    def damage(self) -> list[str]:
        """What the database itself finds wrong with its pages, in sentences."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


class NoLedger(LedgerError):
    """There is no ledger where one was looked for."""


def no_ledger(name: str) -> NoLedger:
    """That there is no ledger, and what to do."""
    return NoLedger(
        f"there is no ledger at {name}; make one with `nacre ledger grant`, or declare "
        "`grant` in the recipe's `ledger` section"
    )


@contextlib.contextmanager
def sentences(
    name: str,
    errors: tuple[type[Exception], ...],  # the driver's
    remedies: Mapping[str, str],  # part of a message -> what to do
    otherwise: str,
) -> Generator[None]:
    """Turns what a database says into one sentence with a remedy."""
    try:
        yield
    except errors as error:
        reason = str(error)
        remedy = next((text for key, text in remedies.items() if key in reason), otherwise)
        raise LedgerError(f"the ledger {name} could not be used ({reason}); {remedy}") from error
