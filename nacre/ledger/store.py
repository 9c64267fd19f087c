"""Where entries are kept: one append-only table in SQLite, through SQLAlchemy Core.

*Guarantee:* `append` is durable once its transaction ends (write-ahead log, synchronous=FULL), and
nothing of a transaction that fails is kept. Writers exclude each other from their first statement
on (BEGIN IMMEDIATE), so what a writer has read is what its append follows. Rows are never changed
or removed: no statement here does so, and triggers refuse those of others.

The file must lie on a local disk: a write-ahead log needs memory that all its processes share.
While a process has it open, or after one was killed, the newest entries lie in `FILE-wal` beside
it: copy a ledger when nobody has it open, and after a kill open it once.

What is SQLite's alone is `_engine`, `_create` and `damage`: another database behind SQLAlchemy
needs these three and a lock in place of BEGIN IMMEDIATE.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nacre.core.errors import LedgerError
from nacre.core.files import sync_folder
from nacre.ledger.chain import Entry

FORMAT = 1
"""Of the table and the rows in it; recorded in the file as `user_version`."""

_MARK = 0x4E414352
"""`application_id` of a ledger: "NACR"."""

BUSY_SECONDS = 30.0
"""How long to wait for another process that is writing."""

_METADATA = MetaData()
_ENTRIES = Table(
    "entries",
    _METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    *(
        Column(name, Text, nullable=False)
        for name in ("time", "account", "kind", "content", "hash")
    ),
    sqlite_strict=True,
)

_TRIGGERS = (
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is never changed'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is never changed'); END",
    # Also what keeps INSERT OR REPLACE from removing a row behind the trigger above.
    "CREATE TRIGGER in_order BEFORE INSERT ON entries "
    "WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries) "
    "BEGIN SELECT RAISE(ABORT, 'a ledger only grows at its end'); END",
)
for _trigger in _TRIGGERS:
    event.listen(_ENTRIES, "after_create", DDL(_trigger).execute_if(dialect="sqlite"))


class Transaction:
    """Reads and appends that happen together or not at all."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def entries(self, first: int) -> Iterator[Entry]:
        """The entries from number `first` on, in order."""
        query = select(_ENTRIES).where(_ENTRIES.c.number >= first).order_by(_ENTRIES.c.number)
        for row in self._connection.execute(query):
            yield Entry(*row)

    def append(self, entry: Entry) -> None:
        """Adds `entry` at the end."""
        self._connection.execute(insert(_ENTRIES).values(**vars(entry)))


class Store:
    """An open ledger file. Close it."""

    def __init__(self, path: Path) -> None:
        """Raises `LedgerError` where there is no ledger at `path`, or one of another format."""
        self.path = path
        if not path.is_file():
            raise LedgerError(
                f"there is no ledger at {path}; make one with `nacre ledger grant`, or declare "
                "`grant` in the recipe's `ledger` section"
            )
        self._engine = _engine(path)
        try:
            self._check_format()
        except LedgerError:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path) -> Store:
        """The ledger at `path`, made new where there is none; whole or not at all."""
        if not path.exists():
            _create(path)
        return cls(path)

    def close(self) -> None:
        """Lets go of the file."""
        self._engine.dispose()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Generator[Transaction]:
        """One transaction; with `write` no other process writes until it ends.

        Raises `LedgerError` for whatever the database or the disk refuses.
        """
        engine = self._engine.execution_options(begin="BEGIN IMMEDIATE" if write else "BEGIN")
        with _sentences(self.path), engine.begin() as connection:
            yield Transaction(connection)

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with the file."""
        with _sentences(self.path), self._engine.begin() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
        lines = (" ".join(text.split()) for text in found if text != "ok")
        return [f"the database is damaged: {line}" for line in lines]

    def _check_format(self) -> None:
        with _sentences(self.path), self._engine.begin() as connection:
            mark = connection.exec_driver_sql("PRAGMA application_id").scalar()
            version = connection.exec_driver_sql("PRAGMA user_version").scalar()
        if mark != _MARK:
            raise LedgerError(
                f"{self.path} is a database, but not a ledger of Nacre; name another file"
            )
        if version != FORMAT:
            raise LedgerError(
                f"{self.path} is a ledger of format {version}, and this version of Nacre reads "
                f"format {FORMAT}; use the version that wrote it"
            )


def _engine(path: Path) -> Engine:
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any, record: object) -> None:
    """Settings of one connection; the driver's own idea of transactions is switched off."""
    connection.isolation_level = None
    # Without fullfsync a sync on macOS ends before the disk has written.
    for setting in ("synchronous=FULL", "fullfsync=ON", "cell_size_check=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _create(path: Path) -> None:
    """Makes an empty ledger under another name, then links it to `path` if that is still free.

    A rename would put an empty ledger in place of one that another process made meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with _sentences(path):
            _fill(temporary)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise LedgerError(
            f"no ledger could be made at {path} ({error.strerror or error}); nothing is left of "
            "it: choose a folder on a local disk that exists and can be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)


def _remove(path: Path) -> None:
    """Removes a database and what SQLite keeps beside it while it writes."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _fill(path: Path) -> None:
    engine = _engine(path)
    try:
        with engine.begin() as connection:
            _METADATA.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA application_id={_MARK}")
            connection.exec_driver_sql(f"PRAGMA user_version={FORMAT}")
        # Outside a transaction, as SQLite wants it.
        with contextlib.closing(engine.raw_connection()) as raw:
            raw.cursor().execute("PRAGMA journal_mode=WAL").close()
    finally:
        engine.dispose()


@contextlib.contextmanager
def _sentences(path: Path) -> Generator[None]:
    """Turns what a database says into one sentence with a remedy."""
    try:
        yield
    except (SQLAlchemyError, UnicodeDecodeError) as error:  # damaged text is not UTF-8 any more
        reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        remedy = next((text for key, text in _REMEDIES if key in reason), _REMEDY)
        raise LedgerError(f"the ledger {path} could not be used ({reason}); {remedy}") from error


_REMEDIES = (
    ("locked", f"another process has been writing for {BUSY_SECONDS:.0f} seconds: try again"),
    ("full", "nothing was written: make room on the disk, then go on"),
    ("disk I/O", "nothing was written: make room on the disk or mend it, then go on"),
    ("readonly", "nothing was written: the file and its folder must be writable"),
    ("unable to open", "nothing was written: the file and its folder must be writable"),
    ("not a database", "the file is something else or damaged: restore it from a copy"),
    ("never changed", "entries can only be added"),
)
_REMEDY = "the file is damaged: restore it from a copy, and compare its head with a printed one"
