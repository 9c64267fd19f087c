"""Reads a ledger from its first entry on and says everything that is wrong with it."""

from __future__ import annotations

from nacre.core.errors import LedgerError, NacreError
from nacre.ledger.chain import START, Entry, LedgerHead, break_at
from nacre.ledger.heads import SignedHead
from nacre.ledger.replay import Book, underpriced
from nacre.ledger.storage.store import Store

KnownHead = SignedHead | LedgerHead | str
"""What shows a ledger that was cut: a signed head, a head, or the hash of one."""


def verify_store(
    store: Store, against: KnownHead | None = None, signer: str | None = None
) -> list[str]:
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
    return _broken(entries) or _missed(entries, against, signer) + _unlawful(entries)


def _broken(entries: list[Entry]) -> list[str]:
    """Where the chain breaks; it is taken up again behind each break."""
    found: list[str] = []
    head = START
    for entry in entries:
        broken = break_at(entry, head)
        if broken:
            found.append(broken)
        head = LedgerHead(entry.number, entry.hash)
    return found


def _missed(entries: list[Entry], against: KnownHead | None, signer: str | None) -> list[str]:
    """What speaks against a kept head, or else what it misses in the ledger."""
    if signer is not None and not isinstance(against, SignedHead):
        return ["a signer was named, and no signed head to look for its signature on"]
    if against is None:
        return []
    if isinstance(against, SignedHead):
        return _distrusted(against, signer) or _signed(entries, against)
    return _cut(entries, against if isinstance(against, str) else against.hash)


def _distrusted(kept: SignedHead, signer: str | None) -> list[str]:
    """Why a signed head proves nothing by itself."""
    if not kept.genuine:
        return ["the kept head was changed: its signature does not fit"]
    if signer is not None and kept.signer != signer.lower():
        return [f"the kept head is signed by {kept.signer}, and not by {signer}"]
    return []


def _signed(entries: list[Entry], kept: SignedHead) -> list[str]:
    if entries and kept.first != entries[0].hash:
        return [
            f"the kept head is another ledger's, or this one was written anew: it begins with "
            f"{kept.first}, and row 1 has the hash {entries[0].hash}"
        ]
    known = any(
        entry.kind == "signer" and kept.signer in entry.content for entry in entries[: kept.number]
    )
    return _cut(entries, kept.hash, kept.number) or (
        [] if known else [f"no row up to {kept.number} names the kept head's signer {kept.signer}"]
    )


def _cut(entries: list[Entry], kept: str, number: int | None = None) -> list[str]:
    """Whether the entry that a kept head names is gone."""
    if kept in {START.hash, *(entry.hash for entry in entries)}:
        return []
    row = "no row has" if number is None else f"row {number} is gone: no row has"
    return [
        f"{row} the hash {kept}: entries were cut off or rewritten after this head was kept "
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
