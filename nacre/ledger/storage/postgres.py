"""A ledger in PostgreSQL, by URL: for organisations whose runs share no disk.

    Ledger.open("postgresql://nacre@db.example/budget")

*Guarantee:* a commit returns once the server has its entry on the disk: a server that runs with
`fsync=off` or `full_page_writes=off` is refused, and `synchronous_commit` is set by every
connection. A writer takes an advisory lock before it reads, waits for the writers before it, and
then sees all that they have committed (READ COMMITTED takes its snapshot after the lock); so
reservations are serial. A program that writes without the lock is stopped by the primary key or a
trigger, or stops the transaction that it got in the way of. Readers see one snapshot and wait for
nobody. Users of the ledger need no rights but SELECT and INSERT on its entries.

The server's administrators can rewrite the ledger, as everyone can who may write a file of SQLite:
a signed head that is kept elsewhere shows it. A password is better kept in `~/.pgpass` or
`PGPASSWORD` than in the URL; no message shows it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from typing import LiteralString

from nacre.core.errors import LedgerError, Refusal
from nacre.ledger.chain import Entry
from nacre.ledger.storage import store
from nacre.ledger.storage.migrations import FORMAT, Migration, due, migrate
from nacre.ledger.storage.store import no_ledger, sentences

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise Refusal(
        "a ledger in PostgreSQL needs the package psycopg; install it with "
        "`pip install 'nacre[postgres]'`"
    ) from error

_TABLES: tuple[LiteralString, ...] = (
    "CREATE TABLE nacre_entries (number integer PRIMARY KEY, time text NOT NULL, "
    "account text NOT NULL, kind text NOT NULL, content text NOT NULL, hash text NOT NULL)",
    "CREATE TABLE nacre_format (number integer NOT NULL)",
    "CREATE FUNCTION nacre_never() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'a ledger is never changed'; END $$",
    "CREATE FUNCTION nacre_in_order() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF NEW.number IS DISTINCT FROM "
    "(SELECT coalesce(max(number), 0) + 1 FROM nacre_entries) "
    "THEN RAISE EXCEPTION 'a ledger only grows at its end'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER no_change BEFORE UPDATE OR DELETE ON nacre_entries "
    "FOR EACH ROW EXECUTE FUNCTION nacre_never()",
    "CREATE TRIGGER no_truncate BEFORE TRUNCATE ON nacre_entries "
    "FOR EACH STATEMENT EXECUTE FUNCTION nacre_never()",
    "CREATE TRIGGER in_order BEFORE INSERT ON nacre_entries "
    "FOR EACH ROW EXECUTE FUNCTION nacre_in_order()",
)
_SELECT: LiteralString = (
    "SELECT number, time, account, kind, content, hash FROM nacre_entries "
    "WHERE number >= %s ORDER BY number"
)
_INSERT: LiteralString = (
    "INSERT INTO nacre_entries (number, time, account, kind, content, hash) "
    "VALUES (%s, %s, %s, %s, %s, %s)"
)
# No lock of the table: that would need the right to change rows, which nobody should have.
_LOCK: LiteralString = (
    "SELECT pg_advisory_xact_lock(cast(cast('nacre_entries' AS regclass) AS oid)::bigint)"
)
_DURABLE = ("fsync", "full_page_writes")
"""Settings of the server without which a commit may be lost."""
_MAKING = 0x4E414352  # the advisory lock that makers of ledgers hold


class PostgresTransaction:
    """Reads and appends that happen together or not at all."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def entries(self, first: int) -> Iterator[Entry]:
        """The entries from number `first` on, in order."""
        for row in self._connection.execute(_SELECT, (first,)):
            yield Entry(*row)

    def append(self, entry: Entry) -> None:
        """Adds `entry` at the end."""
        row = (entry.number, entry.time, entry.account, entry.kind, entry.content, entry.hash)
        self._connection.execute(_INSERT, row)


class PostgresStore:
    """An open ledger in PostgreSQL. Threads may share one. Close it."""

    def __init__(self, url: str, *, create: bool = False) -> None:
        """With `create` the tables are made where there are none.

        Raises `LedgerError` where there is no ledger, one of a newer format, or a server that does
        not keep what it has committed.
        """
        self._url = url
        self._name = _shown(url)
        self._lock = threading.RLock()
        self._connection: psycopg.Connection | None = None
        try:
            with self._lock, self._sentences():
                self._prepare(self._connected(), create)
        except LedgerError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The URL, without a password."""
        return self._name

    @property
    def place(self) -> str:
        """The URL."""
        return self._url

    def close(self) -> None:
        """Lets go of the server."""
        with self._lock:
            self._dropped()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Generator[PostgresTransaction]:
        """One transaction; with `write` no other process writes until it ends.

        Raises `LedgerError` for whatever the server refuses. A connection that was lost is made
        anew by the next transaction.
        """
        with self._lock, self._sentences():
            connection = self._connected()
            with self._kept(connection), connection.transaction():
                if write:
                    connection.execute(_LOCK)
                else:
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield PostgresTransaction(connection)

    def damage(self) -> list[str]:
        """Nothing: PostgreSQL checks pages as it reads them, and every entry is read."""
        return []

    @contextlib.contextmanager
    def _kept(self, connection: psycopg.Connection) -> Generator[None]:
        """Gives up a connection that is lost."""
        try:
            yield
        finally:
            if connection.closed or connection.broken:
                self._dropped()

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            connection = psycopg.connect(self._url, autocommit=True, application_name="nacre")
            self._connection = connection
            _check_server(connection, self._name)
            connection.execute("SET synchronous_commit = on")
            milliseconds = str(round(1000 * store.BUSY_SECONDS))
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (milliseconds,))
        return self._connection

    def _dropped(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _prepare(self, connection: psycopg.Connection, create: bool) -> None:
        """Makes the tables where they are wanted, and brings an older format up to date."""
        if not _exists(connection) and create:
            with connection.transaction():
                # Two makers at once: the second waits here, and finds the tables made.
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
                if not _exists(connection):
                    for statement in _TABLES:
                        connection.execute(statement)
                    connection.execute("INSERT INTO nacre_format VALUES (%s)", (FORMAT,))
        if not _exists(connection):
            raise no_ledger(self._name)
        if due(self._name, _version(connection)):
            with connection.transaction():
                connection.execute(_LOCK)
                migrate(
                    self._name,
                    lambda: _version(connection),
                    lambda migration: _run(connection, migration),
                    lambda version: _record(connection, version),
                )

    def _sentences(self) -> contextlib.AbstractContextManager[None]:
        return sentences(self._name, (psycopg.Error,), _REMEDIES, _REMEDY)


def _shown(url: str) -> str:
    """The URL as people may see it: host, port and database alone."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise LedgerError(
            "the ledger's URL cannot be read; write postgresql://USER@HOST:PORT/DATABASE"
        ) from error
    host, port = parts.get("host") or "localhost", parts.get("port") or 5432
    return f"postgresql://{host}:{port}/{parts.get('dbname') or ''}"


def _exists(connection: psycopg.Connection) -> bool:
    # By a look at the catalogue and not by `to_regclass`, which may answer from a cache that was
    # filled before this process waited for another one to make the tables.
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class "
        "WHERE relname = 'nacre_format' AND pg_catalog.pg_table_is_visible(oid))"
    ).fetchone()
    return bool(found and found[0])


def _version(connection: psycopg.Connection) -> object:
    found = connection.execute("SELECT number FROM nacre_format").fetchall()
    return found[0][0] if len(found) == 1 else None


def _record(connection: psycopg.Connection, version: int) -> None:
    connection.execute("UPDATE nacre_format SET number = %s", (version,))


def _run(connection: psycopg.Connection, migration: Migration) -> None:
    for statement in migration.postgres:
        connection.execute(statement)


def _check_server(connection: psycopg.Connection, name: str) -> None:
    """Raises `LedgerError` where a crash of the server could forget what it has committed."""
    for setting in _DURABLE:
        found = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
        if not found or found[0] != "on":
            raise LedgerError(
                f"the server of {name} runs with {setting}=off, so a crash could lose what was "
                f"charged; set {setting}=on in its configuration"
            )


_REMEDIES = {
    "lock timeout": f"another process has been writing for {store.BUSY_SECONDS:.0f} seconds: "
    "try again",
    "No space left": "nothing was written: make room on the server's disk, then go on",
    "never changed": "entries can only be added",
    "only grows": "entries can only be added at the end",
    "duplicate key": "another program writes to it without its lock, and nothing was written: "
    "try again",
    "permission denied": "have the server's administrator grant this user SELECT on the ledger's "
    "tables and INSERT on nacre_entries",
}
_REMEDY = "nothing was written: see that the server runs and the URL is right, then go on"
