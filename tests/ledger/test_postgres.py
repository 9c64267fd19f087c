"""What PostgreSQL does of its own; the other tests of the ledger run on it as well."""

from __future__ import annotations

import sys

import psycopg
import pytest

from nacre.core.errors import LedgerError, Refusal
from nacre.ledger import Ledger
from nacre.ledger.chain import START, linked
from nacre.ledger.storage import postgres, store
from nacre.ledger.storage.postgres import PostgresStore

ENTRY = linked(START, "t", "clinic", "note", {"text": "first"})


def test_a_missing_ledger_is_named_without_its_password(schema: str) -> None:
    url = schema.replace("nacre@", "nacre:secret@")
    with pytest.raises(LedgerError, match="there is no ledger at postgresql://") as refusal:
        Ledger.open(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "postgres://[::1/x"])
def test_a_server_that_does_not_answer_is_a_sentence(url: str) -> None:
    with pytest.raises(LedgerError, match=r"the URL is right|cannot be read"):
        Ledger.open(url)


def test_a_ledger_is_there_once_it_was_made(schema: str) -> None:
    assert not Ledger.exists(schema)
    with Ledger.open(schema, create=True) as ledger:
        assert ledger.place == schema
        assert ledger.name.startswith("postgresql://") and "options" not in ledger.name
    assert Ledger.exists(schema)
    with pytest.raises(LedgerError, match="the URL is right"):
        Ledger.exists("postgresql://nobody@127.0.0.1:1/none")


def test_without_psycopg_the_refusal_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "nacre.ledger.storage.postgres")
    with pytest.raises(Refusal, match=r"pip install 'nacre\[postgres\]'"):
        Ledger.open("postgresql://nobody@127.0.0.1:1/none")


def test_making_a_ledger_twice_keeps_it(schema: str) -> None:
    for number in (1, 2):
        with Ledger.open(schema, create=True) as ledger:
            ledger.note("clinic", "again")
            assert ledger.head().number == number


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nacre_entries SET content='{}'",
        "DELETE FROM nacre_entries",
        "TRUNCATE nacre_entries",
        "INSERT INTO nacre_entries VALUES (3, 't', 'a', 'note', '{}', 'h')",
    ],
)
def test_triggers_refuse_all_but_appending(schema: str, statement: str) -> None:
    with Ledger.open(schema, create=True) as ledger:
        ledger.note("clinic", "first")
    with (
        psycopg.connect(schema) as raw,
        pytest.raises(psycopg.errors.RaiseException, match=r"never changed|only grows"),
    ):
        raw.execute(statement)  # type: ignore[arg-type]


def test_a_user_needs_no_right_to_change_rows(schema: str) -> None:
    with Ledger.open(schema, create=True) as ledger:
        ledger.note("clinic", "first")
    name = schema.rpartition("%3D")[2]
    with psycopg.connect(schema, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN")  # type: ignore[arg-type]
        try:
            for right in (
                f"USAGE ON SCHEMA {name}",
                "SELECT, INSERT ON nacre_entries",
                "SELECT ON nacre_format",
            ):
                owner.execute(f"GRANT {right} TO {name}")  # type: ignore[arg-type]
            url = f"{schema.replace('options=', f'user={name}&options=')}"
            with Ledger.open(url.replace("nacre@", ""), create=True) as ledger:
                ledger.note("clinic", "second")
                assert ledger.head().number == 2
        finally:
            owner.execute(f"DROP OWNED BY {name}")  # type: ignore[arg-type]
            owner.execute(f"DROP ROLE {name}")  # type: ignore[arg-type]


def test_writers_wait_for_each_other_and_then_say_so(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.1)
    first, second = PostgresStore(schema, create=True), PostgresStore(schema)
    with first.transaction(write=True) as writing:
        writing.append(ENTRY)
        with second.transaction(write=False) as reading:  # readers do not wait, nor see it
            assert list(reading.entries(1)) == []
        with pytest.raises(LedgerError, match="another process has been writing"):
            second.transaction(write=True).__enter__()
    with second.transaction(write=True) as after:  # sees what was committed before its lock
        assert list(after.entries(1)) == [ENTRY]
    first.close()
    second.close()


def test_a_connection_that_was_lost_is_made_anew(schema: str) -> None:
    with Ledger.open(schema, create=True) as ledger:
        ledger.note("clinic", "first")
        found = ledger._store  # pyright: ignore[reportPrivateUsage]
        assert isinstance(found, PostgresStore)
        lost = found._connected().info.backend_pid  # pyright: ignore[reportPrivateUsage]
        with psycopg.connect(schema, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (lost,))
        with pytest.raises(LedgerError, match="see that the server runs"):
            ledger.note("clinic", "lost")
        ledger.note("clinic", "second")
        assert ledger.head().number == 2


def test_a_commit_is_on_the_servers_disk_before_it_returns(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = PostgresStore(f"{schema}%20-csynchronous_commit%3Doff", create=True)
    ask = opened._connected().execute  # pyright: ignore[reportPrivateUsage]
    assert ask("SHOW synchronous_commit").fetchone() == ("on",)
    assert ask("SHOW fsync").fetchone() == ("on",)
    opened.close()
    monkeypatch.setattr(postgres, "_DURABLE", ("fsync", "nacre.no_such_setting"))
    with pytest.raises(LedgerError, match=r"runs with nacre\.no_such_setting=off, so a crash"):
        Ledger.open(f"{schema}%20-cnacre.no_such_setting%3Doff")
