"""Whether rows may be charged to an account, by what the ledger knows of all others."""

from __future__ import annotations

from collections.abc import Collection

from nacre.core.errors import LedgerError
from nacre.data.sketches.sketch import Sketch
from nacre.ledger.storage.seal import is_earlier, unsealed


def require_one_budget(
    key: bytes,  # under which sketches are sealed
    account: str,  # that the rows of `sketch` are to be charged to
    sketch: Sketch,
    other: str,  # an account, which may be the same
    text: str,  # a sealed sketch of its rows
    together: Collection[str],  # the accounts that are recorded at once, `account` among them
) -> None:
    """Raises `LedgerError` where the other account stands for the same rows.

    Parties that one column tells apart at once have rows of their own, however alike they are; a
    row has one party by each column, so an account of a party keeps to its column. A party that is
    there no more may have another name now, and is compared. `DATASET` and `DATASET/PARTY` at once
    are two promises of one run, to whole parties and to rows: both are charged for the same rows,
    and a later run that is charged to one of them alone finds them at the other.
    """
    if other in together and _within(account, other):
        return
    if other == account:
        if sketch.split and not is_earlier(key, text):
            split = unsealed(key, text, other).split
            if split not in (0, sketch.split):
                raise LedgerError(
                    f"account {account!r} stands for a party by another column than this one, so "
                    "a row would be charged to one party now and was to another before; name the "
                    "parties by the same column, or give these the names of none before"
                )
        return
    if other in together and sketch.split and is_earlier(key, text):
        return
    known = unsealed(key, text, other)
    if other in together and sketch.split == known.split != 0:
        return
    if sketch.same_data(known):
        raise LedgerError(
            f"these rows, or a part of them, are charged to account {other!r} already, and under "
            f"the name {account!r} they would have a second budget; use that name, and have its "
            "grant raised if it is spent"
        )


def _within(one: str, other: str) -> bool:
    """Whether one of two accounts is that of a party of the other's data set."""
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")
