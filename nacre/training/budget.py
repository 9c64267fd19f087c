"""What a plan would take from the ledger. Writes nothing."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nacre.core.errors import BudgetExceeded
from nacre.core.types import Adjacency, Unit
from nacre.ledger import Grant, Ledger, Preview, is_url, preview_new
from nacre.ledger.weigh import PLANNED
from nacre.recipe.schema import Recipe

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent

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
    grant = declared_grant(recipe, wanted)
    asked, span = wanted[:4], wanted.span
    rows = rows_per_unit(recipe)
    if path is not None and Ledger.exists(path):
        with Ledger.open(path) as ledger:
            name = run[0] if run is not None else PLANNED
            found = ledger.preview(
                account, *asked, rows, span, column_of(recipe, wanted.unit), grant=grant, run=name
            )
    elif grant is not None:
        found = preview_new(account, grant, *asked, rows, span, column_of(recipe, wanted.unit))
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


def declared_grant(recipe: Recipe, wanted: Asked) -> Grant | None:
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
            column=column_of(recipe, wanted.unit),
        )
    except ValueError as error:
        raise BudgetExceeded(f"the recipe's `ledger.grant` allows nothing: {error}") from error


def column_of(recipe: Recipe, unit: Unit) -> str:
    """The column whose values tell units of this kind apart; "" for rows, and where parties are
    named by the recipe."""
    column = {"group": recipe.data.unit, "client": recipe.data.party}.get(unit)
    return unicodedata.normalize("NFC", column or "")


def rows_per_unit(recipe: Recipe) -> int | None:
    privacy = recipe.differential_privacy
    return privacy.rows_per_unit if privacy is not None else None
