"""What a plan would take from the ledger. Writes nothing."""

from __future__ import annotations

from pathlib import Path

from nacre.core.errors import BudgetExceeded
from nacre.ledger import Ledger, Quote, Request, preview_new
from nacre.planning.protection import Protection


def quoted(
    protection: Protection,
    account: str,
    asked: Request,
    folder: Path | None = None,  # of the run that is resumed
) -> Quote:
    """What the request would take from the account's grant. Writes nothing.

    Raises `BudgetExceeded` where there is no grant at all, `LedgerError` for a damaged ledger or
    a grant that differs from the recipe's.
    """
    path = protection.place if folder is None else protection.place_of(folder)
    grant = protection.grant(asked)
    if path is not None and Ledger.exists(path):
        with Ledger.open(path) as ledger:
            return ledger.preview(account, asked, grant=grant)
    if grant is not None:
        return preview_new(account, grant, asked)
    raise BudgetExceeded(
        f"account {account!r} has no grant: the ledger {path} does not exist; make one with "
        "`nacre ledger grant`, or declare `ledger: {grant: {epsilon: …, delta: …}}`"
    )
