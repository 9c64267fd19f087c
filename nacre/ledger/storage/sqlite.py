"""A ledger in a file of SQLite: write-ahead log, every commit synced.

*Guarantee:* a commit returns once its entry is on the disk (synchronous=FULL), and a writer holds
the file's write lock from its first statement on (BEGIN IMMEDIATE).

The file must lie on a local disk: a write-ahead log needs memory that all its processes share.
While a process has it open, or after one was killed, the newest entries lie in `FILE-wal` beside
it: copy a ledger when nobody has it open, and after a kill open it once. A file that was moved,
replaced or deleted under an open ledger is refused: what was written to it would be lost.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import quote

from nacre.core.errors import LedgerError
from nacre.core.files import sync_folder
from nacre.ledger.chain import Entry
from nacre.ledger.storage import store
from nacre.ledger.storage.migrations import FORMAT, Migration, due, migrate
from nacre.ledger.storage.store import no_ledger, sentences
from nacre.ledger.storage.writer_queue import Turns

_MARK = 0x4E414352
"""`application_id` of a ledger: "NACR"."""

_SETTINGS = (
    "synchronous=FULL",
    "fullfsync=ON",  # without it a sync on macOS ends before the disk has written
    "cell_size_check=ON",
    "trusted_schema=OFF",
)
_COLUMNS = ("time", "account", "kind", "content", "hash")

_TABLE = (
    "CREATE TABLE entries (number INTEGER NOT NULL PRIMARY KEY, "
    + ", ".join(f"{name} TEXT NOT NULL" for name in _COLUMNS)
    + ") STRICT",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is never changed'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is never changed'); END",
    # Also what keeps INSERT OR REPLACE from removing a row behind the trigger above.
    "CREATE TRIGGER in_order BEFORE INSERT ON entries "
    "WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries) "
    "BEGIN SELECT RAISE(ABORT, 'a ledger only grows at its end'); END",
)
_SELECT = (
    "SELECT number, time, account, kind, content, hash FROM entries "
    "WHERE number >= ? ORDER BY number"
)
_INSERT = (
    "INSERT INTO entries (number, time, account, kind, content, hash) VALUES (?, ?, ?, ?, ?, ?)"
)


class SqliteTransaction:
    """Reads and appends that happen together or not at all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def entries(self, first: int) -> Iterator[Entry]:
        """The entries from number `first` on, in order."""
        for row in self._connection.execute(_SELECT, (first,)):
            yield Entry(*row)

    def append(self, entry: Entry) -> None:
        """Adds `entry` at the end."""
        row = (entry.number, entry.time, entry.account, entry.kind, entry.content, entry.hash)
        self._connection.execute(_INSERT, row)


class SqliteStore:
    """An open ledger file. Threads may share one. Close it."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """With `create` the file is made where there is none; whole or not at all.

        Raises `LedgerError` where there is no ledger at `path`, or one of a newer format.
        """
        if path.is_dir():
            raise LedgerError(
                f"{path} is a folder, and a ledger is a file; name one, as {path / 'privacy.db'}"
            )
        if create and not path.exists():
            _create(path)
        if not path.is_file():
            raise no_ledger(str(path))
        self._path = path
        self._lock = threading.RLock()
        self._turns = Turns(path.resolve().parent, store.BUSY_SECONDS)
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        try:
            self._check_format()
        except LedgerError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def place(self) -> Path:
        """The path."""
        return self._path

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._dropped()
            self._turns.close()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Generator[SqliteTransaction]:
        """One transaction; with `write` no other process writes until it ends.

        Raises `LedgerError` for whatever SQLite or the disk refuses.
        """
        turn = self._turns.one() if write else contextlib.nullcontext()
        with self._lock, turn, _sentences(self._path):
            connection = self._connected()
            try:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                self._check_place()
                yield SqliteTransaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                self._rolled_back(connection)
                raise

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with the file."""
        with self._lock, _sentences(self._path):
            found = self._connected().execute("PRAGMA integrity_check(10)").fetchall()
        lines = (" ".join(str(text).split()) for (text,) in found if text != "ok")
        return [f"the database is damaged: {line}" for line in lines]

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connection(self._path)
            stat = os.stat(self._path)
            self._opened = (stat.st_dev, stat.st_ino)
        return self._connection

    def _rolled_back(self, connection: sqlite3.Connection) -> None:
        """Nothing of the transaction is kept; a connection that cannot say so is given up."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._dropped()

    def _dropped(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_place(self) -> None:
        """SQLite goes on writing to a file that lost its name: its entries would be lost."""
        try:
            stat = os.stat(self._path)
        except OSError:
            stat = None
        if stat is None or (stat.st_dev, stat.st_ino) != self._opened:
            raise LedgerError(
                f"the ledger {self._path} could not be used: it was moved, replaced or deleted "
                "while it was open, and nothing was written; put it back, and resume"
            )

    def _check_format(self) -> None:
        with self._lock, _sentences(self._path):
            connection = self._connected()
            if _pragma(connection, "application_id") != _MARK:
                raise LedgerError(
                    f"{self._path} is a database, but not a ledger of Nacre; name another file"
                )
            old = bool(due(self.name, _pragma(connection, "user_version")))
        if old:
            with self.transaction(write=True):
                migrate(
                    self.name,
                    lambda: _pragma(connection, "user_version"),
                    lambda migration: _run(connection, migration),
                    lambda version: _set(connection, "user_version", version),
                )


def _run(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in migration.sqlite:
        connection.execute(statement)


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _set(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute(f"PRAGMA {name}={value}")


def _connection(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection whose transactions begin where we say, from whatever thread."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=store.BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # the store's lock sees to it
    )
    try:
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}")
    except BaseException:  # a damaged file: its locks and memory would stay with this process
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Makes an empty ledger under another name, then links it to `path` if that is still free.

    A rename would put an empty ledger in place of one that another process made meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with _sentences(path), contextlib.closing(_connection(temporary, "rwc")) as made:
            made.execute("BEGIN")
            for statement in _TABLE:
                made.execute(statement)
            _set(made, "application_id", _MARK)
            _set(made, "user_version", FORMAT)
            made.execute("COMMIT")
            made.execute("PRAGMA journal_mode=WAL")  # outside a transaction, as SQLite wants it
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


def _sentences(path: Path) -> contextlib.AbstractContextManager[None]:
    return sentences(str(path), (sqlite3.Error, UnicodeDecodeError), _REMEDIES, _REMEDY)


_REMEDIES = {
    "locked": f"another process has been writing for {store.BUSY_SECONDS:.0f} seconds: try again",
    "full": "nothing was written: make room on the disk, then go on",
    "disk I/O": "nothing was written: make room on the disk or mend it, then go on",
    "readonly": "nothing was written: the file and its folder must be writable",
    "unable to open": "nothing was written: the file and its folder must be there and writable",
    "not a database": "the file is something else or damaged: restore it from a copy",
    "never changed": "entries can only be added",
}
_REMEDY = "the file is damaged: restore it from a copy, and compare its head with a printed one"
