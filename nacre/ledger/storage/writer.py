"""The end of a ledger, while one writer holds it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nacre.core.errors import LedgerError, one_line
from nacre.ledger.accounts import Grant
from nacre.ledger.chain import Entry, linked
from nacre.ledger.replay import Book, grant_content
from nacre.ledger.storage.group_commit import PendingStep
from nacre.ledger.storage.store import Transaction

_OF_WORK = ("journal", "settle")
"""What private work writes while it goes on has the day alone: seconds would tell how long it took,
and so about how many trials a search made, or how many units were drawn."""


@dataclass
class Page:
    """The end of the ledger, while nobody else writes.

    The book follows each entry at once, so that the next one is judged with it: if the transaction
    fails, a book that is `ahead` of the ledger has to be thrown away.
    """

    book: Book
    transaction: Transaction
    ahead: bool = False

    def append(self, account: str, kind: str, content: Mapping[str, Any]) -> None:
        """Adds an entry, which the book follows."""
        if not account and kind != "signer":
            raise LedgerError("an account needs a name")
        if one_line(account) != account:
            raise LedgerError(
                f"account {account!r} has white space or characters in its name that are not "
                "printed as they stand, and could do anything to a terminal; give it a plain name"
            )
        self.book.follow(self._added(account, kind, content))

    def _added(self, account: str, kind: str, content: Mapping[str, Any]) -> Entry:
        time = now()[:10] if kind in _OF_WORK else now()
        entry = linked(self.book.head, time, account, kind, content)
        self.ahead = True
        self.transaction.append(entry)
        return entry

    def wants(self, line: PendingStep) -> bool:
        """Whether a step is new to its run's journal. Raises as `Ledger.journal` does."""
        account, run, step = line.account, line.run, line.step
        standing = self.book.account(account).run(run)
        known = step <= standing.journalled
        if known and standing.entered.get(step, "") != line.entered:
            raise LedgerError(
                f"step {step} of run {run!r} in account {account!r} was taken before, from "
                "another state (other weights, rows or code, or a machine that rounds "
                "otherwise), so taking it again would be a second release that nothing pays "
                "for; put back what was changed, or end the run with `nacre finish`"
            )
        if known and (standing.end is None or line.entered):
            return False  # answered with the same numbers; a digest proves it after the end too
        if standing.end is not None:
            raise LedgerError(
                f"run {run!r} of account {account!r} was {standing.end}, so step {step} may "
                "not be taken; start a new run"
            )
        if step > standing.request.steps:
            raise LedgerError(
                f"run {run!r} of account {account!r} reserved {standing.request.steps} steps, "
                f"so step {step} may not be taken; start a new run for more"
            )
        return True

    def journal(self, line: PendingStep) -> None:
        """Adds a step to its run's journal."""
        content = {"run": line.run, "step": line.step, "entered": line.entered}
        self.book.follow_step(self._added(line.account, "journal", content), content)

    def grant(self, account: str, granted: Grant, new: bool) -> bool:
        """Adds a grant where it is new; whether it was."""
        if new:
            self.append(account, "grant", grant_content(granted))
        return new


def now() -> str:
    """The time, to the second, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
