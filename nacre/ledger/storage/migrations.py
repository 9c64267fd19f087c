"""The format of a ledger, and how an older one becomes a newer one.

The number stands in the ledger itself, and is read before anything else. It says which kinds of
entries may follow: a version of Nacre that does not know one would take a sound ledger for a
damaged one, so it refuses the number instead, in a sentence.

`MIGRATIONS` only ever grows, and none of them is edited once it was released: each stands for files
that somebody has. Entries are never rewritten, since their hashes were kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from nacre.core.errors import LedgerError


@dataclass(frozen=True)
class Migration:
    """From one format to the next, by statements that are run in one transaction."""

    why: str
    sqlite: tuple[LiteralString, ...] = ()
    postgres: tuple[LiteralString, ...] = ()


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "entries of the kind `signer`, whose signatures on heads count; grants under zcdp hold "
        "more, which an older version would take for overspending; no table changes"
    ),
    Migration("entries of the kind `rows` hold a sketch; no table changes"),
    Migration(
        "a sketch is of cells as their file holds them, a party's of its rows; no table changes"
    ),
)
"""Entry i leads from format i + 1 to format i + 2."""

FORMAT = 1 + len(MIGRATIONS)
"""What this version of Nacre writes."""


def due(name: str, version: object) -> Sequence[Migration]:
    """The migrations that a ledger of format `version` still needs, in order.

    Raises `LedgerError` for a newer format and for what is no format at all.
    """
    if not isinstance(version, int) or version < 1:
        raise LedgerError(
            f"{name} says that it is a ledger of format {version!r}, which never was; restore it "
            "from a copy"
        )
    if version > FORMAT:
        raise LedgerError(
            f"{name} is a ledger of format {version}, and this version of Nacre reads formats up "
            f"to {FORMAT}; use the version that wrote it"
        )
    return MIGRATIONS[version - 1 :]


def migrate(
    name: str,
    read: Callable[[], object],
    run: Callable[[Migration], None],
    record: Callable[[int], None],
) -> None:
    """Brings a ledger up to date; called inside a transaction that excludes other writers.

    The number is read again there: another process may have been first.
    """
    waiting = due(name, read())
    for migration in waiting:
        run(migration)
    if waiting:
        record(FORMAT)
