"""What a plan would take from the ledger. Writes nothing."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from nacre.core.errors import BudgetExceeded
from nacre.core.types import Unit
from nacre.ledger import Grant, Ledger, Quote, Request, is_url, preview_new
from nacre.recipe.schema import Recipe

IN_RUN = "{run}"
"""In a ledger's path: the run folder."""


def ledger_path(recipe: Recipe, run: Path | None) -> Path | str | None:
    """Where the recipe's ledger is, a file or a URL; None where it is in a run folder that is not
    known yet."""
    assert recipe.ledger is not None
    if is_url(recipe.ledger.path):
        return recipe.ledger.path
    if IN_RUN not in recipe.ledger.path:
        return recipe.folder / recipe.ledger.path
    return None if run is None else Path(recipe.ledger.path.replace(IN_RUN, str(run)))


def quoted(
    recipe: Recipe,
    account: str,
    asked: Request,
    folder: Path | None = None,  # of the run that is resumed
) -> Quote:
    """What the request would take from the account's grant. Writes nothing.

    Raises `BudgetExceeded` where there is no grant at all, `LedgerError` for a damaged ledger or
    a grant that differs from the recipe's.
    """
    path = ledger_path(recipe, folder)
    grant = declared_grant(recipe, asked)
    if path is not None and Ledger.exists(path):
        with Ledger.open(path) as ledger:
            return ledger.preview(account, asked, grant=grant)
    if grant is not None:
        return preview_new(account, grant, asked)
    raise BudgetExceeded(
        f"account {account!r} has no grant: the ledger {path} does not exist; make one with "
        "`nacre ledger grant`, or declare `ledger: {grant: {epsilon: …, delta: …}}`"
    )


def declared_grant(recipe: Recipe, asked: Request) -> Grant | None:
    """The recipe's grant for the unit that it protects."""
    assert recipe.ledger is not None
    option = recipe.ledger.grant
    if option is None:
        return None
    try:
        return Grant(
            unit=asked.unit,
            epsilon=option.epsilon,
            delta=option.delta,
            rule=option.rule,
            adjacency=asked.adjacency,
            column=asked.column,
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
