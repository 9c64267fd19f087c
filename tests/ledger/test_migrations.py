"""Older ledgers are brought up to date or refused; newer ones are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nacre.core.errors import LedgerError
from nacre.ledger import Ledger, Request
from nacre.ledger.storage import migrations
from nacre.ledger.storage.migrations import FORMAT, MIGRATIONS, Migration

from .conftest import GAUSSIAN


def version(place: Path | str, new: int | None = None) -> int:
    """The number of the format as it stands; set to `new` first."""
    if isinstance(place, str):
        import psycopg

        with psycopg.connect(place) as connection:
            if new is not None:
                connection.execute("UPDATE nacre_format SET number = %s", (new,))
            row = connection.execute("SELECT number FROM nacre_format").fetchone()
            assert row is not None
            return int(row[0])
    with closing(sqlite3.connect(place)) as raw:
        if new is not None:
            raw.execute(f"PRAGMA user_version={new}")
        return int(raw.execute("PRAGMA user_version").fetchone()[0])


@pytest.fixture
def written(ledger: Ledger) -> Path | str:
    ledger.grant("clinic", "example", 8.0, 1e-5)
    ledger.reserve(
        "clinic", Request.of("one", GAUSSIAN, steps=8, unit="example", adjacency="add_or_remove")
    ).journal(3)
    ledger.close()
    return ledger.place


def test_the_list_is_the_format() -> None:
    assert FORMAT == 1 + len(MIGRATIONS) == 4
    assert MIGRATIONS[0].why.startswith("entries of the kind `signer`")


def test_a_new_ledger_has_the_newest_format(written: Path | str) -> None:
    assert version(written) == FORMAT


def test_a_ledger_of_format_1_goes_on_as_one_of_the_newest(written: Path | str) -> None:
    version(written, 1)
    with Ledger.open(written) as ledger:
        head = ledger.head()
        assert version(written) == FORMAT
        assert ledger.run("clinic", "one").journalled == 3
        assert ledger.sign_head().number == head.number + 1
        assert ledger.verify(head) == []


@pytest.mark.parametrize(
    ("number", "says"), [(FORMAT + 1, f"of format {FORMAT + 1}"), (0, "never was")]
)
def test_other_formats_are_refused_and_left_alone(
    written: Path | str, number: int, says: str
) -> None:
    version(written, number)
    for create in (False, True):
        with pytest.raises(LedgerError, match=says):
            Ledger.open(written, create)
    assert version(written) == number


def test_rows_as_format_2_recorded_them_are_still_read(written: Path | str) -> None:
    with Ledger.open(written) as ledger, ledger._writing() as page:
        page.append("clinic", "rows", {"fingerprint": "aa"})
    with Ledger.open(written) as ledger:
        assert ledger.verify() == []
        assert not ledger._book.account("clinic").rows


BROKEN = Migration("fails half way", ("CREATE TABLE half (a)", "NOT SQL"),
                   ("CREATE TABLE half (a int)", "NOT SQL"))  # fmt: skip
WHOLE = Migration("adds a table", ("CREATE TABLE more (a)",), ("CREATE TABLE more (a int)",))


@pytest.mark.slow
def test_a_migration_that_fails_changes_nothing_and_one_that_holds_runs_once(
    written: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "FORMAT", FORMAT + 1)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, BROKEN))
    with pytest.raises(LedgerError, match="could not be used"):
        Ledger.open(written)
    assert version(written) == FORMAT
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, WHOLE))
    for _ in range(2):
        with Ledger.open(written) as ledger:
            assert ledger.verify() == []
    assert version(written) == FORMAT + 1


def test_a_second_process_finds_the_work_done() -> None:
    ran: list[Migration] = []
    migrations.migrate("x", lambda: FORMAT, ran.append, lambda number: pytest.fail("recorded"))
    assert ran == []
