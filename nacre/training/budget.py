"""What a plan takes from the ledger, and the charges of a run."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nacre.core.errors import BudgetExceeded, LedgerError, NacreError
from nacre.core.types import Adjacency, Unit
from nacre.data.cells import Cells
from nacre.data.sketch import sketched
from nacre.ledger import Charge, Grant, Ledger, Preview, is_url, preview_new
from nacre.ledger.weigh import PLANNED
from nacre.recipe.schema import Recipe

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

    from nacre.training.plan import Plan

IN_RUN = "{run}"
"""In a ledger's path: the run folder."""


class Asked(NamedTuple):
    """What a run asks of an account: see `Ledger.reserve`."""

    event: DpEvent  # of `span` steps
    steps: int
    unit: Unit
    adjacency: Adjacency
    span: int


@dataclass(frozen=True)
class Takes:
    """What one run takes from one account's grant. Shares are of the whole grant."""

    account: str
    rule: str  # of the grant: rdp, zcdp or pld
    order: float | None  # Rényi order, under rdp only
    share: float
    share_after: float
    epsilon_after: float  # of everything the account stands for then, this run included
    refusal: str  # why it does not fit; "" where it does

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it."""
        return {
            "rule": self.rule,
            "order": self.order,
            "share": self.share,
            "share_after": self.share_after,
            "epsilon_after": self.epsilon_after,
        }


def ledger_path(recipe: Recipe, run: Path | None) -> Path | str | None:
    """Where the recipe's ledger is, a file or a URL; None where it is in a run folder that is not
    known yet."""
    assert recipe.ledger is not None
    if is_url(recipe.ledger.path):
        return recipe.ledger.path
    if IN_RUN not in recipe.ledger.path:
        return recipe.folder / recipe.ledger.path
    return None if run is None else Path(recipe.ledger.path.replace(IN_RUN, str(run)))


def takes(
    recipe: Recipe,
    account: str,
    wanted: Asked,
    run: tuple[str, Path] | None = None,  # name and folder of the run that is resumed
) -> Takes:
    """What the request would take from the account's grant. Writes nothing.

    Raises `BudgetExceeded` where there is no grant at all, `LedgerError` for a damaged ledger or
    a grant that differs from the recipe's.
    """
    path = ledger_path(recipe, run[1] if run is not None else None)
    grant = _grant(recipe, wanted)
    asked, span = wanted[:4], wanted.span
    rows = _rows_per_unit(recipe)
    if path is not None and Ledger.exists(path):
        with Ledger.open(path) as ledger:
            name = run[0] if run is not None else PLANNED
            found = ledger.preview(
                account, *asked, rows, span, _column(recipe, wanted.unit), grant=grant, run=name
            )
    elif grant is not None:
        found = preview_new(account, grant, *asked, rows, span, _column(recipe, wanted.unit))
    else:
        raise BudgetExceeded(
            f"account {account!r} has no grant: the ledger {path} does not exist; make one with "
            "`nacre ledger grant`, or declare `ledger: {grant: {epsilon: …, delta: …}}`"
        )
    return _takes(account, found)


def _takes(account: str, found: Preview) -> Takes:
    return Takes(
        account=account,
        rule=found.rule,
        order=found.order,
        share=found.share,
        share_after=found.share_after,
        epsilon_after=found.epsilon_after,
        refusal=found.refusal,
    )


def _grant(recipe: Recipe, wanted: Asked) -> Grant | None:
    """The recipe's grant for the unit that it protects."""
    assert recipe.ledger is not None
    option = recipe.ledger.grant
    if option is None:
        return None
    try:
        return Grant(
            unit=wanted.unit,
            epsilon=option.epsilon,
            delta=option.delta,
            rule=option.rule,
            adjacency=wanted.adjacency,
            column=_column(recipe, wanted.unit),
        )
    except ValueError as error:
        raise BudgetExceeded(f"the recipe's `ledger.grant` allows nothing: {error}") from error


def _column(recipe: Recipe, unit: Unit) -> str:
    """The column whose values tell units of this kind apart; "" for rows, and where parties are
    named by the recipe."""
    column = {"group": recipe.data.unit, "client": recipe.data.party}.get(unit)
    return unicodedata.normalize("NFC", column or "")


def _rows_per_unit(recipe: Recipe) -> int | None:
    privacy = recipe.differential_privacy
    return privacy.rows_per_unit if privacy is not None else None


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
        return self._ledger.extract([charge.account for charge in self._charges.values()])

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
) -> Charges:
    """The run's reservations, made now or standing already. All holders, or none.

    Only a `new` run may make the ledger or a grant; its rows are recorded against the accounts
    that they are charged to, so that no other name gives them a second budget. Raises
    `BudgetExceeded` and `LedgerError`.
    """
    recipe = plan.recipe
    if recipe.ledger is None or not plan.private:
        return Charges({})
    path = ledger_path(recipe, folder)
    assert path is not None
    if not new and not Ledger.exists(path):
        raise LedgerError(
            f"the ledger {path} is gone, and what this run has spent with it; put it back from a "
            "backup, and resume"
        )
    ledger = Ledger.open(path, create=new and recipe.ledger.grant is not None)
    try:
        if new and cells:
            accounts = [holder.account for holder in plan.holders if holder.account is not None]
            record_rows(ledger, accounts, cells)
        return Charges(_reserved(plan, run, ledger, new), ledger)
    except BaseException:
        ledger.close()
        raise


def record_rows(ledger: Ledger, accounts: Iterable[str], cells: Sequence[Cells]) -> None:
    """Records against these accounts which rows they stand for.

    An entry of one size is added for each account and each run, whatever the rows are. Raises
    `LedgerError` as `Ledger.record_rows` does.
    """
    sketch = sketched(cells, ledger.sketch_key())
    for account in accounts:
        ledger.record_rows(account, sketch)


def _reserved(plan: Plan, run: str, ledger: Ledger, new: bool) -> dict[str, Charge]:
    charges: dict[str, Charge] = {}
    try:
        for holder in plan.holders:
            assert holder.account is not None
            wanted = holder.asked
            grant = _grant(plan.recipe, wanted)
            if new and grant is not None:
                _granted(ledger, holder.account, grant)
            charges[holder.name] = ledger.reserve(
                holder.account,
                run,
                wanted.event,
                wanted.steps,
                wanted.unit,
                wanted.adjacency,
                _rows_per_unit(plan.recipe),
                wanted.span,
                _column(plan.recipe, wanted.unit),
            )
    except NacreError:
        if new:  # nothing was journalled, so whatever the rule, all of it comes back
            for charge in charges.values():
                charge.settle()
        raise
    return charges


def _granted(ledger: Ledger, account: str, grant: Grant) -> None:
    ledger.grant_if_new(
        account, grant.unit, grant.epsilon, grant.delta, grant.rule, grant.adjacency, grant.column
    )
