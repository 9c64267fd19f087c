"""The reservations of a run: all of its accounts, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.core.errors import LedgerError, NacreError
from nacre.data.sketches.cells import Cells
from nacre.ledger import Charge, Grant, Ledger
from nacre.ledger.recorded_rows import record_rows
from nacre.planning.plan import Plan
from nacre.planning.protection import protection_for, protections_of


class Charges(Mapping[str, Charge]):
    """The reservations of a run, by holder; empty where nothing is private. That of parties as a
    whole is under "", and beside it may be one for the rows of each party."""

    def __init__(
        self,
        charges: Mapping[str, Charge],
        ledger: Ledger | None = None,
        *,
        drawn: bool = False,  # whether this is one party's side of rounds that draw parties by coin
    ) -> None:
        self._charges = dict(charges)
        self._ledger, self._drawn = ledger, drawn

    def __getitem__(self, name: str) -> Charge:
        return self._charges[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._charges)

    def __len__(self) -> int:
        return len(self._charges)

    def settle(self) -> None:
        """Ends every reservation; each account's rule decides what comes back.

        A party's own account of what whole parties are promised keeps all rounds where parties are
        drawn, of a run that never drew it too: a price with sampling is that of all rounds that may
        have drawn a party. Were one that was not drawn free, runs could be repeated until one draws
        it, and that one would not be hidden among as many as its price counts on.
        """
        whole = self._charges.get("")
        standing = whole is not None and whole.end is None and whole.journalled < whole.steps
        if self._drawn and whole is not None and standing:
            whole.journal(whole.steps)
        for charge in self._charges.values():
            charge.settle()

    def journal_round(self, step: int, local: int, entered: str) -> None:
        """Journals that round `step`, of `local` steps in each party, may have been released: in
        the account of every party and in that of the whole, by one commit."""
        steps = [(charge, step * local if name else step) for name, charge in self._charges.items()]
        if self._ledger is not None:
            self._ledger.journal_together(steps, entered)

    def extract(self) -> dict[str, Any]:
        """The ledger's part of the report."""
        if self._ledger is None:
            return {"accounts": [], "head": "", "verified": True}
        charges = list(self._charges.values())
        found = self._ledger.extract([charge.account for charge in charges])
        return found | {"run": charges[0].run}  # all holders' reservations have one name

    def journalled(self) -> int:
        """Steps that may have been released, of all holders together; where whole parties are
        protected those are rounds, in whose sum alone the parties' own steps leave."""
        whole = self._charges.get("")
        of = self._charges.values() if whole is None else (whole,)
        return sum(charge.journalled for charge in of)

    def close(self) -> None:
        """Lets go of the ledger; the reservations stand."""
        if self._ledger is not None:
            self._ledger.close()

    def __enter__(self) -> Charges:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Throughout:
    """The journal of the rounds of a federation that protects whole parties, and rows within them.

    *Guarantee:* a round is in the accounts of all parties, whoever was asked, when it is in that of
    the whole, and before its noised sum is handed on. So a ledger does not say which parties a
    round drew, which a price with sampling counts on; and a party that was not asked pays too,
    which is more than it owes. The entry is the keyed digest of the noised sum's whole origin, so a
    round that is taken again with other changes is refused in every account.
    """

    charges: Charges
    steps: int
    """Local steps of a round."""

    def journal(self, step: int, entered: str) -> None:
        """See `nacre.training.fit.Journal`; `step` counts rounds."""
        self.charges.journal_round(step, self.steps, entered)


def reserve(
    plan: Plan,
    run: str,
    folder: Path,
    *,
    new: bool = False,
    cells: Sequence[Cells] = (),  # of all rows that are not public, held-out ones too
    parts: Mapping[str, Sequence[Cells]] | None = None,  # the same of each party
    drawn: bool = False,  # see `Charges`
) -> Charges:
    """The run's reservations, made now or standing already. All holders, or none.

    Only a `new` run may make the ledger or a grant; its rows are recorded against the accounts
    that they are charged to, so that no other name gives them a second budget. Raises
    `BudgetExceeded` and `LedgerError`.
    """
    protections = protections_of(plan.recipe)
    if not protections:
        return Charges({})
    path = protections[0].place_of(folder)
    if not new and not Ledger.exists(path):
        raise LedgerError(
            f"the ledger {path} is gone, and what this run has spent with it; put it back from a "
            "backup, and resume"
        )
    ledger = Ledger.open(path, create=new and any(p.granted for p in protections))
    try:
        if new and cells:
            of_level = {
                level.account: (parts or {}).get(level.name, cells) for level in plan.priced
            }
            split = plan.recipe.data.party if any(level.name for level in plan.priced) else None
            record_rows(ledger, of_level, split)
        return Charges(_reserved(plan, run, ledger, new=new), ledger, drawn=drawn)
    except BaseException:
        ledger.close()
        raise


def _reserved(
    plan: Plan,
    run: str,
    ledger: Ledger,
    *,
    new: bool,  # whether grants are made where they are new
) -> dict[str, Charge]:
    charges: dict[str, Charge] = {}
    try:
        for level in plan.priced:
            asked = level.request(run)
            promise = protection_for(plan.recipe, asked.unit)
            grant = promise.grant(asked) if new else None
            if grant is not None:
                _granted(ledger, level.account, grant)
            charges[level.name] = ledger.reserve(level.account, asked)
    except NacreError:
        if new:  # nothing was journalled, so all of it comes back by any rule
            for charge in charges.values():
                charge.settle()
        raise
    return charges


def _granted(ledger: Ledger, account: str, grant: Grant) -> None:
    ledger.grant_if_new(
        account, grant.unit, grant.epsilon, grant.delta, grant.rule, grant.adjacency, grant.column
    )
