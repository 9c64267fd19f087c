"""What a run holds in its hands: the right to take its steps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from nacre.differential_privacy.request import Request
from nacre.ledger.accounts import End
from nacre.ledger.summary import RunSummary


class RunLedger(Protocol):
    """What a charge needs of the ledger that it stands in; `Ledger` says what each method does."""

    def run(self, account: str, run: str) -> RunSummary:
        """How the run stands."""
        ...

    def journal(self, account: str, run: str, step: int, entered: str = "") -> None:
        """Records that `step` steps in all may have been released."""
        ...

    def journalling(
        self, account: str, run: str, step: int, entered: str = ""
    ) -> AbstractContextManager[None]:
        """`journal`, while the block computes the step's release."""
        ...

    def settle(self, account: str, run: str) -> None:
        """Ends the run."""
        ...

    def abandon(self, account: str, run: str) -> None:
        """Ends a run that nobody will go on with."""
        ...


@dataclass(frozen=True)
class Charge:
    """A reservation that stands: the right to take its steps, once each is journalled."""

    account: str
    request: Request
    ledger: RunLedger = field(repr=False)

    @property
    def run(self) -> str:
        """The run's name."""
        return self.request.run

    @property
    def steps(self) -> int:
        """How many steps are reserved."""
        return self.request.steps

    @property
    def journalled(self) -> int:
        """How many steps may have been released."""
        return self.ledger.run(self.account, self.run).journalled

    @property
    def end(self) -> End | None:
        """How the run ended; None while it is open."""
        return self.ledger.run(self.account, self.run).end

    def journal(self, step: int, entered: str = "") -> None:
        """Records, durably before it returns, that `step` steps in all may have been released.

        See `Ledger.journal`.
        """
        self.ledger.journal(self.account, self.run, step, entered)

    def journalling(self, step: int, entered: str = "") -> AbstractContextManager[None]:
        """`journal`, while the block computes the step's release; leaving it waits for the disk.

        See `Ledger.journalling`.
        """
        return self.ledger.journalling(self.account, self.run, step, entered)

    def settle(self) -> None:
        """Ends the run; what comes back is decided by the rule alone. See `Ledger.settle`."""
        self.ledger.settle(self.account, self.run)

    def abandon(self) -> None:
        """Ends a run that nobody will go on with. See `Ledger.abandon`."""
        self.ledger.abandon(self.account, self.run)
