"""Reads a ledger from its first entry on and says everything that is wrong with it."""

from __future__ import annotations

from nacre.core.errors import LedgerError, NacreError
from nacre.ledger.chain import START, Entry, Head, break_at
from nacre.ledger.replay import Book, underpriced
from nacre.ledger.store import Store


def verify(store: Store, against: Head | str | None = None) -> list[str]:
    """Findings as sentences, each naming its row; empty where the ledger holds.

    Pages first, then the chain, then the rules and prices: each is looked at only where the one
    before it holds, because after that its findings would mean nothing.
    """
    try:
        damaged = store.damage()
        if damaged:
            return damaged
        with store.transaction(write=False) as transaction:
            entries = list(transaction.entries(1))
    except LedgerError as error:
        return [str(error)]
    return _broken(entries) or _cut(entries, against) + _unlawful(entries)


def _broken(entries: list[Entry]) -> list[str]:
    """Where the chain breaks; it is taken up again behind each break."""
    found: list[str] = []
    head = START
    for entry in entries:
        broken = break_at(entry, head)
        if broken:
            found.append(broken)
        head = Head(entry.number, entry.hash)
    return found


def _cut(entries: list[Entry], against: Head | str | None) -> list[str]:
    """Whether the entry that a kept head names is gone."""
    if against is None:
        return []
    kept = against if isinstance(against, str) else against.hash
    if kept in {START.hash, *(entry.hash for entry in entries)}:
        return []
    return [
        f"no row has the hash {kept}: entries were cut off or rewritten after this head was kept "
        f"(the last row is {len(entries)})"
    ]


def _unlawful(entries: list[Entry]) -> list[str]:
    """The first entry that the rules do not allow, and prices that are too low."""
    book = Book()
    try:
        for entry in entries:
            book.follow(entry)
        return [line for account in book.accounts.values() for line in underpriced(account)]
    except NacreError as error:
        return [str(error)]
