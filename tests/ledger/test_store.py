"""The file: made whole or not at all, append-only, and every failure a sentence."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nacre.core.errors import LedgerError
from nacre.ledger import Ledger, Request
from nacre.ledger.chain import START, linked
from nacre.ledger.keys import derived
from nacre.ledger.storage import store
from nacre.ledger.storage.sqlite import SqliteStore

from .conftest import GAUSSIAN

ENTRY = linked(START, "t", "clinic", "note", {"text": "first"})


@pytest.fixture
def place(path: Path) -> Path:
    """Files of SQLite only; what PostgreSQL does of its own is in `test_postgres.py`."""
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(path, create=True)
    with found.transaction(write=True) as transaction:
        transaction.append(ENTRY)
    yield found
    found.close()


def test_creating_leaves_one_whole_file_and_creating_again_opens_it(opened: SqliteStore) -> None:
    again = SqliteStore(opened.place, create=True)
    with again.transaction(write=False) as transaction:
        assert list(transaction.entries(1)) == [ENTRY]
    again.close()
    opened.close()
    assert os.listdir(opened.place.parent) == [opened.place.name]


def test_the_other_process_that_made_the_file_first_keeps_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(path, create=True) as first:
        first.grant("clinic", "example", 1.0, 1e-5)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # the look before it was made
    with Ledger.open(path, create=True) as second:
        assert second.accounts() == ("clinic",)


def test_a_missing_file_is_named_with_a_remedy(path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger at .*privacy.db; make one with"):
        Ledger.open(path)
    assert not path.exists()


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: (p.parent / "x").symlink_to(p)])
def test_a_folder_or_nothing_is_no_ledger(path: Path, make: object) -> None:
    make(path)  # type: ignore[operator]
    with pytest.raises(
        LedgerError, match=r"there is no ledger|is a folder, and a ledger is a file"
    ):
        Ledger.open(path)


def test_a_ledger_in_a_missing_folder_leaves_nothing(path: Path) -> None:
    place = path.parent / "no" / "folder" / "l.db"
    with pytest.raises(LedgerError, match="could not be used"):
        Ledger.open(place, create=True)
    assert not place.parent.exists()


def test_a_file_system_that_refuses_the_link_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(LedgerError, match="Operation not permitted"):
        Ledger.open(path, create=True)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("content", [b"", b"hello" * 1000])
def test_another_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for create in (False, True):
        with pytest.raises(LedgerError, match=r"not a ledger|not a database"):
            Ledger.open(path, create)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET content='{}'",
        "DELETE FROM entries",
        "INSERT INTO entries VALUES (3, 't', 'a', 'note', '{}', 'h')",
        "INSERT OR REPLACE INTO entries VALUES (1, 't', 'a', 'note', '{}', 'h')",
    ],
)
def test_triggers_refuse_all_but_appending(opened: SqliteStore, statement: str) -> None:
    raw = sqlite3.connect(opened.place)
    with closing(raw), pytest.raises(sqlite3.IntegrityError, match=r"never changed|only grows"):
        raw.execute(statement)


def test_each_commit_is_on_disk_before_it_returns(opened: SqliteStore) -> None:
    ask = opened._connected().execute  # pyright: ignore[reportPrivateUsage]
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (2,)


def test_nothing_of_a_failed_transaction_is_kept(opened: SqliteStore) -> None:
    head = START._replace(number=1, hash=ENTRY.hash)
    with pytest.raises(RuntimeError), opened.transaction(write=True) as transaction:
        transaction.append(linked(head, "t", "clinic", "note", {"text": "second"}))
        raise RuntimeError
    with opened.transaction(write=False) as transaction:
        assert list(transaction.entries(1)) == [ENTRY]


def test_writers_wait_for_each_other_and_then_say_so(
    opened: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.1)
    other = SqliteStore(opened.place)
    with opened.transaction(write=True):
        with other.transaction(write=False) as reading:  # readers do not wait
            assert len(list(reading.entries(1))) == 1
        with pytest.raises(LedgerError, match="another process has been writing"):
            other.transaction(write=True).__enter__()
    other.close()


def _pragma(ledger: Ledger, text: str) -> None:
    found = ledger._store  # pyright: ignore[reportPrivateUsage]
    assert isinstance(found, SqliteStore)
    found._connected().execute(text)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("PRAGMA query_only=ON", "must be writable"),
        ("PRAGMA max_page_count=1", "make room on the disk"),
    ],
)
def test_a_full_or_read_only_disk_is_a_sentence_and_writes_nothing(
    ledger: Ledger, setting: str, message: str
) -> None:
    ledger.grant("clinic", "example", 8.0, 1e-5)
    charge = ledger.reserve(
        "clinic", Request.of("run", GAUSSIAN, unit="example", adjacency="add_or_remove")
    )
    head = ledger.head()
    _pragma(ledger, setting)
    with pytest.raises(LedgerError, match=message):
        for _ in range(50):
            ledger.note("clinic", "long " * 400)
    if "query_only" in setting:
        assert ledger.head() == head
        with pytest.raises(LedgerError):
            charge.journal(1)
        assert charge.journalled == 0
    assert ledger.verify() == []


def test_a_file_that_went_away_is_a_sentence(ledger: Ledger, path: Path) -> None:
    ledger.grant("clinic", "example", 1.0, 1e-5)
    ledger.close()
    for file in path.parent.glob("privacy.db*"):
        file.unlink()
    with pytest.raises(LedgerError, match="could not be used"):
        ledger.note("clinic", "gone")
    assert not path.exists()


@pytest.mark.parametrize("moved", ["away", "replaced"])
def test_a_file_that_lost_its_name_while_open_is_refused(
    ledger: Ledger, path: Path, moved: str
) -> None:
    ledger.grant("clinic", "example", 8.0, 1e-5)
    charge = ledger.reserve(
        "clinic", Request.of("run", GAUSSIAN, steps=4, unit="example", adjacency="add_or_remove")
    )
    path.rename(path.with_name("away.db"))
    if moved == "replaced":
        Ledger.open(path, create=True).close()
    with pytest.raises(LedgerError, match="moved, replaced or deleted while it was open"):
        charge.journal(1)


def test_a_ledger_says_where_it_is_and_whether_it_is_there(ledger: Ledger, path: Path) -> None:
    assert (ledger.place, ledger.name) == (path, str(path))
    assert Ledger.exists(path) and Ledger.exists(str(path))
    assert not Ledger.exists(path.with_name("other.db"))
    assert ledger.sketch_key() == derived(path.with_name("privacy.db.key").read_bytes(), "sketch")


def test_threads_may_share_a_ledger(ledger: Ledger) -> None:
    workers = [threading.Thread(target=ledger.note, args=("a", str(n))) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert ledger.head().number == 6
    assert ledger.verify() == []
