"""What was changed is found, by row; what cannot be found alone is found against a head."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import LedgerError
from nacre.ledger import Ledger, Request
from nacre.ledger.chain import START, Entry, LedgerHead, linked
from nacre.ledger.replay import Book
from nacre.ledger.storage.open import open_store

from .conftest import GAUSSIAN

pytestmark = pytest.mark.slow


@pytest.fixture
def written(ledger: Ledger) -> Path | str:
    ledger.grant("clinic", "example", 8.0, 1e-5)
    charge = ledger.reserve(
        "clinic", Request.of("one", GAUSSIAN, steps=8, unit="example", adjacency="add_or_remove")
    )
    charge.journal(3)
    charge.settle()
    ledger.note("clinic", "breast cancer, 313 rows")
    ledger.close()
    return ledger.place


def tampered(place: Path | str, *statements: str) -> None:
    """What somebody with a database tool can do."""
    if isinstance(place, str):
        import psycopg

        with psycopg.connect(place) as connection:
            connection.execute("ALTER TABLE nacre_entries DISABLE TRIGGER ALL")
            for statement in statements:
                connection.execute(statement.replace("entries", "nacre_entries"))  # type: ignore[arg-type]
        return
    with closing(sqlite3.connect(place, isolation_level=None)) as raw:
        for trigger in ("no_update", "no_delete", "in_order"):
            raw.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            raw.execute(statement)


def verified(path: Path | str, against: LedgerHead | str | None = None) -> list[str]:
    with Ledger.open(path) as ledger:
        return ledger.verify(against)


def test_a_sound_ledger_has_no_findings(written: Path | str) -> None:
    assert verified(written) == []


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE entries SET content=replace(content,'3','2') WHERE number=3", "row 3 is not what"),
        ("UPDATE entries SET time='2020' WHERE number=2", "row 2 is not what"),
        ("UPDATE entries SET account='other' WHERE number=1", "row 1 is not what"),
        ("DELETE FROM entries WHERE number=3", "row 3 is missing"),
        ("DELETE FROM entries WHERE number=1", "row 1 is missing"),
    ],
)
def test_a_change_is_found_and_the_ledger_not_used(
    written: Path | str, statement: str, finding: str
) -> None:
    tampered(written, statement)
    with Ledger.open(written) as ledger:
        assert finding in ledger.verify()[0]
        with pytest.raises(LedgerError, match=finding):
            ledger.reserve(
                "clinic", Request.of("two", GAUSSIAN, unit="example", adjacency="add_or_remove")
            )


def test_text_that_is_none_is_found(path: Path) -> None:
    """In a file; PostgreSQL keeps nothing but text."""
    with Ledger.open(path, create=True) as opened:
        opened.note("clinic", "first")
    tampered(path, "UPDATE entries SET content=CAST(x'ff' AS TEXT) WHERE number=1")
    with Ledger.open(path) as opened:
        assert "decode" in opened.verify()[0]


def test_every_broken_row_is_named_once(written: Path | str) -> None:
    tampered(written, "UPDATE entries SET time='2020' WHERE number IN (2, 4)")
    assert [line[:5] for line in verified(written)] == ["row 2", "row 4"]


def test_entries_cut_off_are_found_against_a_kept_head_only(written: Path | str) -> None:
    with Ledger.open(written) as ledger:
        head = ledger.head()
    assert verified(written, head) == verified(written, head.hash) == []
    tampered(written, "DELETE FROM entries WHERE number=5")
    assert verified(written) == []
    for against in (head, head.hash):
        assert "entries were cut off or rewritten" in verified(written, against)[0]
    assert verified(written, START) == []


def test_a_head_stays_good_while_the_ledger_grows(written: Path | str) -> None:
    with Ledger.open(written) as ledger:
        head = ledger.head()
        ledger.note("clinic", "more")
        assert ledger.verify(head) == []


@pytest.mark.parametrize(
    "statement",
    ["UPDATE entries SET hash='0' WHERE number=5", "DELETE FROM entries WHERE number=5"],
)
def test_a_ledger_changed_under_an_open_one_is_refused(written: Path | str, statement: str) -> None:
    with Ledger.open(written) as ledger:
        assert ledger.accounts() == ("clinic",)
        tampered(written, statement)
        with pytest.raises(LedgerError, match="row 5 is not what it was"):
            ledger.accounts()


@pytest.mark.parametrize("size", [100, 3000, 5000])
def test_a_torn_file_is_one_sentence(path: Path, size: int) -> None:
    with Ledger.open(path, create=True) as ledger:
        for number in range(20):
            ledger.note("clinic", f"{number}")
    path.write_bytes(path.read_bytes()[:size])
    try:
        findings = verified(path)
    except LedgerError as error:
        findings = [str(error)]
    assert findings and all("\n" not in line for line in findings)


def entry(kind: str, content: dict[str, Any]) -> Callable[[LedgerHead], Entry]:
    return lambda head: linked(head, "t", "clinic", kind, content)


GRANT: dict[str, Any] = {
    "unit": "example", "epsilon": 8.0, "delta": 1e-5, "rule": "rdp", "adjacency": "add_or_remove"
}  # fmt: skip
RESERVE: dict[str, Any] = {
    "run": "two", "step": {"kind": "gaussian", "multiplier": 2.0}, "steps": 2, "unit": "example",
    "adjacency": "add_or_remove", "rows_per_unit": None,
    "postings": {"example": {"price": 0.5, "order": None}},
}  # fmt: skip


def forged(path: Path | str, kind: str, content: Any) -> None:
    """An entry that is linked as it should be, by someone who writes past the rules."""
    store = open_store(path, False)
    with store.transaction(write=True) as transaction:
        last = list(transaction.entries(1))[-1]
        transaction.append(linked(LedgerHead(last.number, last.hash), "t", "clinic", kind, content))
    store.close()


@pytest.mark.parametrize(
    ("kind", "content", "finding"),
    [
        ("refund", {}, "it has no 'refund'"),
        ("note", [], "its content is no object"),
        ("note", {"text": 1}, "its text is none"),
        ("grant", {}, "missing"),
        ("grant", GRANT, "it repeats a grant"),
        ("grant", GRANT | {"delta": 0.1}, "was granted"),
        ("grant", GRANT | {"epsilon": "9"}, "not supported"),
        ("reserve", RESERVE | {"run": "one"}, "it reserves a run twice"),
        ("reserve", RESERVE | {"postings": {}}, "not posted to every grant"),
        ("reserve", RESERVE | {"postings": {"example": 1}}, "argument after"),
        ("reserve", RESERVE | {"postings": 1}, "has no attribute"),
        ("reserve", RESERVE | {"adjacency": "zero_out"}, "its adjacency is not the grant's"),
        ("reserve", RESERVE, "its order is not the one that was fixed"),
        ("journal", {"run": "two", "step": 1}, "has no run 'two'"),
        ("journal", {"run": "one", "step": 4}, "was settled before"),
        ("settle", {"run": "one", "end": "settled"}, "was settled before"),
    ],
)
def test_an_entry_against_the_rules_is_found_though_its_hash_fits(
    written: Path | str, kind: str, content: Any, finding: str
) -> None:
    forged(written, kind, content)
    findings = verified(written)
    assert len(findings) == 1
    assert findings[0].startswith("row 6 breaks the rules of the ledger") and finding in findings[0]


def posted(order: float, price: float) -> dict[str, Any]:
    return RESERVE | {"postings": {"example": {"price": price, "order": order}}}


def test_a_reservation_that_takes_too_much_or_pays_too_little_is_found(written: Path | str) -> None:
    with Ledger.open(written) as ledger:
        order = ledger.summary("clinic").grants[0].order
    assert order is not None
    for price in (100.0, -1.0):
        book = Book()
        store = open_store(written, False)
        with store.transaction(write=False) as transaction:
            for each in transaction.entries(1):
                book.follow(each)
        store.close()
        with pytest.raises(LedgerError, match="takes more than was left"):
            book.follow(entry("reserve", posted(order, price))(book.head))
    forged(written, "reserve", posted(order, 0.001))
    assert "row 6 records price=0.001 for run 'two'" in verified(written)[0]


@pytest.mark.parametrize(
    ("kind", "content", "finding"),
    [
        ("journal", {"run": "two", "step": 3}, "its step 3 does not follow 0"),
        ("journal", {"run": "two", "step": 0}, "its step 0"),
        ("journal", {"run": "two", "step": 1.0}, "its step 1.0"),
        ("settle", {"run": "two", "end": "forgotten"}, "its end 'forgotten'"),
    ],
)
def test_a_journal_against_the_rules_is_found(
    written: Path | str, kind: str, content: dict[str, Any], finding: str
) -> None:
    with Ledger.open(written) as ledger:
        ledger.reserve(
            "clinic",
            Request.of("two", GAUSSIAN, steps=2, unit="example", adjacency="add_or_remove"),
        )
    forged(written, kind, content)
    assert finding in verified(written)[0]


def test_a_posting_that_nothing_bounds_is_found(ledger: Ledger) -> None:
    ledger.grant("clinic", "group", 8.0, 1e-5, "zcdp")
    forged(
        ledger.place, "reserve", RESERVE | {"postings": {"group": {"price": 0.1, "order": None}}}
    )
    assert "but its event costs inf" in ledger.verify()[0]
