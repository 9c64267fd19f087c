"""Entries of a ledger, each hashed onto the one before: what was written stays as it was written.

The hash of an entry covers every column of it and the hash of the entry before, so an entry that
is changed, dropped, inserted or moved breaks the chain at a number that can be named. No key is
involved: who may write the file can write another whole chain, or cut off its end. Both are found
against a `Head` that was kept elsewhere, and only so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nacre.core.strict import canonical

GENESIS = hashlib.sha256(b"nacre ledger, format 1").hexdigest()
"""What the first entry is hashed onto."""


class LedgerHead(NamedTuple):
    """The last entry: its number (0 in an empty ledger) and its hash in hex.

    Kept elsewhere (a printed report, another machine), it is what shows truncation and rollback.
    """

    number: int
    hash: str


START = LedgerHead(0, GENESIS)
"""The head of an empty ledger."""


@dataclass(frozen=True)
class Entry:
    """One row of the ledger. `time` is UTC and informs people; nothing is computed from it."""

    number: int  # 1, 2, 3, … without gaps
    time: str  # ISO 8601; of what private work writes the day alone
    account: str
    kind: str  # grant, reserve, journal, settle, note, rows or signer
    content: str  # canonical JSON
    hash: str  # SHA-256 in hex, over all of the above and the hash before


def linked(
    head: LedgerHead, time: str, account: str, kind: str, content: Mapping[str, Any]
) -> Entry:
    """The entry that follows `head`."""
    number, text = head.number + 1, canonical(content)
    return Entry(number, time, account, kind, text, _hash(head, number, time, account, kind, text))


def break_at(entry: Entry, head: LedgerHead) -> str | None:
    """Why `entry` cannot be what was written after `head`, in words; None where it can be.

    The columns come from a file that may be damaged, so their types are not taken for granted.
    """
    if entry.number != head.number + 1:
        return f"row {head.number + 1} is missing"
    columns = (entry.time, entry.account, entry.kind, entry.content, entry.hash)
    if not all(type(column) is str for column in columns):
        return f"row {entry.number} holds something that is not text"
    if entry.hash != _hash(head, entry.number, *columns[:-1]):
        return f"row {entry.number} is not what was written: its hash does not fit"
    return None


def _hash(head: LedgerHead, *columns: int | str) -> str:
    return hashlib.sha256(canonical([head.hash, *columns]).encode()).hexdigest()
