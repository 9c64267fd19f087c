"""Where a ledger is kept, and its store opened: a file of SQLite, or PostgreSQL by its URL."""

from __future__ import annotations

from pathlib import Path

from nacre.ledger.storage.sqlite import SqliteStore
from nacre.ledger.storage.store import NoLedger, Store


def is_url(place: Path | str) -> bool:
    """Whether `place` names a database of PostgreSQL, and no file."""
    return isinstance(place, str) and place.startswith(("postgresql://", "postgres://"))


def open_store(place: Path | str, create: bool) -> Store:
    """The ledger at `place`; with `create` an empty one is made where there is none.

    Raises `LedgerError` where there is none, where it cannot be made or read, or where it is of a
    newer format; one of an older format is brought up to date (`migrations.py`).
    """
    if isinstance(place, str) and is_url(place):
        # psycopg is wanted by those only who keep ledgers in PostgreSQL.
        from nacre.ledger.storage.postgres import PostgresStore

        return PostgresStore(place, create=create)
    return SqliteStore(Path(place), create=create)


def is_there(place: Path | str) -> bool:
    """Whether there is something at `place` that a ledger would have to be.

    Raises `LedgerError` where a database cannot be asked.
    """
    if not is_url(place):
        return Path(place).exists()
    try:
        open_store(place, create=False).close()
    except NoLedger:
        return False
    return True
