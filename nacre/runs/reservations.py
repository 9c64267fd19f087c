"""The reservations of a run: all of its accounts, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.core.errors import LedgerError, NacreError
from nacre.data.sketches.cells import Cells
from nacre.ledger import Charge, Grant, Ledger
from nacre.ledger.recorded_rows import record_rows
from nacre.planning.levels import PricedLevel
from nacre.planning.plan import Plan
from nacre.planning.protection import Protection, protection_of


class Charges(Mapping[str, Charge]):
    """The reservations of a run, by holder; empty where nothing is private."""

    def __init__(self, charges: Mapping[str, Charge], ledger: Ledger | None = None) -> None:
        self._charges = dict(charges)
        self._ledger = ledger

    def __getitem__(self, name: str) -> Charge:
        return self._charges[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._charges)

    def __len__(self) -> int:
        return len(self._charges)

    def settle(self) -> None:
        """Ends every reservation; each account's rule decides what comes back."""
        for charge in self._charges.values():
            charge.settle()

    def extract(self) -> dict[str, Any]:
        """The ledger's part of the report."""
        if self._ledger is None:
            return {"accounts": [], "head": "", "verified": True}
        charges = list(self._charges.values())
        found = self._ledger.extract([charge.account for charge in charges])
        return found | {"run": charges[0].run}  # all holders' reservations have one name

    def journalled(self) -> int:
        """Steps that may have been released, of all holders together."""
        return sum(charge.journalled for charge in self._charges.values())

    def close(self) -> None:
        """Lets go of the ledger; the reservations stand."""
        if self._ledger is not None:
            self._ledger.close()

    def __enter__(self) -> Charges:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve(
    plan: Plan,
    run: str,
    folder: Path,
    *,
    new: bool = False,
    cells: Sequence[Cells] = (),  # of all rows that are not public, held-out ones too
    parts: Mapping[str, Sequence[Cells]] | None = None,  # the same of each party
) -> Charges:
    """The run's reservations, made now or standing already. All holders, or none.

    Only a `new` run may make the ledger or a grant; its rows are recorded against the accounts
    that they are charged to, so that no other name gives them a second budget. Raises
    `BudgetExceeded` and `LedgerError`.
    """
    protection = protection_of(plan.recipe)
    if protection is None:
        return Charges({})
    path = protection.place_of(folder)
    if not new and not Ledger.exists(path):
        raise LedgerError(
            f"the ledger {path} is gone, and what this run has spent with it; put it back from a "
            "backup, and resume"
        )
    ledger = Ledger.open(path, create=new and protection.ledger.grant is not None)
    try:
        if new and cells:
            of_level = {
                level.account: (parts or {}).get(level.name, cells) for level in plan.priced
            }
            split = plan.recipe.data.party if any(level.name for level in plan.priced) else None
            record_rows(ledger, of_level, split)
        return Charges(_reserved(plan.priced, run, ledger, protection if new else None), ledger)
    except BaseException:
        ledger.close()
        raise


def _reserved(
    levels: Sequence[PricedLevel],
    run: str,
    ledger: Ledger,
    granting: Protection | None,  # whose grant is made where it is new; None for a run that stands
) -> dict[str, Charge]:
    charges: dict[str, Charge] = {}
    try:
        for level in levels:
            asked = level.request(run)
            grant = granting.grant(asked) if granting is not None else None
            if grant is not None:
                _granted(ledger, level.account, grant)
            charges[level.name] = ledger.reserve(level.account, asked)
    except NacreError:
        if granting is not None:  # nothing was journalled, so all of it comes back by any rule
            for charge in charges.values():
                charge.settle()
        raise
    return charges


def _granted(ledger: Ledger, account: str, grant: Grant) -> None:
    ledger.grant_if_new(
        account, grant.unit, grant.epsilon, grant.delta, grant.rule, grant.adjacency, grant.column
    )
