"""Who is protected how well, and the account that pays: what a private recipe says of both."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from nacre.core.errors import BudgetExceeded
from nacre.core.types import Unit
from nacre.differential_privacy.accounting.price import Accountant
from nacre.differential_privacy.mechanism import Budget
from nacre.differential_privacy.options import Privacy
from nacre.ledger import Grant, Request, is_url
from nacre.recipe.places import refuse
from nacre.recipe.schema import Recipe
from nacre.recipe.sections import GrantOption, LedgerChoice

IN_RUN = "{run}"
"""In a ledger's path: the run folder."""


@dataclass(frozen=True, kw_only=True)
class Protection:
    """One promise of a recipe and the ledger that it is charged to; `protections_of` makes it."""

    privacy: Privacy
    ledger: LedgerChoice
    folder: Path
    """What the ledger's path is relative to."""
    column: str
    """Whose values tell units apart; "" for rows, and where parties are named by the recipe."""
    within: bool = False
    """Whether it is made within parties, beside that to whole parties."""

    @property
    def key(self) -> str:
        """Where the recipe makes the promise."""
        return "within_parties.differential_privacy" if self.within else "differential_privacy"

    @property
    def granted(self) -> GrantOption | None:
        """The recipe's grant for the accounts of this promise; None where it declares none."""
        return self.ledger.grant_within_parties if self.within else self.ledger.grant

    @property
    def grant_key(self) -> str:
        """Of the recipe's `ledger`, the key of that grant."""
        return "grant_within_parties" if self.within else "grant"

    @property
    def budget(self) -> Budget:
        """What the whole run may spend."""
        return Budget(epsilon=self.privacy.epsilon, delta=self.privacy.delta)

    @property
    def accountant(self) -> Accountant:
        """Who calibrates: the accountant that was asked for, else that of the grant's rule."""
        if self.privacy.accountant != "auto":
            return self.privacy.accountant
        grant = self.granted
        return "pld" if grant is not None and grant.rule == "pld" else "rdp"

    def account(self, holder: str) -> str:
        """The account of a party, or of the whole run where `holder` is ""."""
        return f"{self.ledger.dataset}/{holder}" if holder else self.ledger.dataset

    @property
    def place(self) -> Path | str | None:
        """Where the ledger is, a file or a URL; None where it lies in a run folder."""
        if is_url(self.ledger.path):
            return self.ledger.path
        return None if IN_RUN in self.ledger.path else self.folder / self.ledger.path

    def place_of(self, run: Path) -> Path | str:
        """Where the ledger of the run in this folder is."""
        return self.place or Path(self.ledger.path.replace(IN_RUN, str(run)))

    def grant(self, asked: Request) -> Grant | None:
        """The recipe's grant for the unit that it protects; None where it declares none."""
        option = self.granted
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
            key = f"ledger.{self.grant_key}"
            raise BudgetExceeded(f"the recipe's `{key}` allows nothing: {error}") from error


def protections_of(recipe: Recipe) -> tuple[Protection, ...]:
    """All that a recipe promises: nothing, one thing, or something for whole parties and then
    something for the rows within them. Raises as `protection_of`."""
    first = protection_of(recipe)
    if first is None:
        return ()
    inner = recipe.within_parties
    if inner is None:
        return (first,)
    privacy = inner.differential_privacy
    column = column_of(recipe, privacy.unit)
    return first, replace(first, privacy=privacy, column=column, within=True)


def key_of_rows(recipe: Recipe) -> str:
    """Where the recipe says what is promised to rows or groups of them."""
    inner = recipe.within_parties
    return "differential_privacy" if inner is None else "within_parties.differential_privacy"


def protection_for(recipe: Recipe, unit: Unit) -> Protection:
    """The promise to units of this kind, which the recipe makes."""
    return next(each for each in protections_of(recipe) if each.privacy.unit == unit)


def protection_of(recipe: Recipe) -> Protection | None:
    """What a recipe's section `differential_privacy` promises and who pays; None without one.

    Raises `Incompatible` for a promise without a ledger.
    """
    privacy = recipe.differential_privacy
    if privacy is None:
        return None
    if recipe.ledger is None:
        refuse(
            recipe,
            "differential_privacy",
            "a private run is charged to a ledger and the recipe names none; add "
            "`ledger: {path: privacy.db, dataset: NAME, grant: {epsilon: …, delta: …}}`",
        )
    column = column_of(recipe, privacy.unit)
    return Protection(privacy=privacy, ledger=recipe.ledger, folder=recipe.folder, column=column)


def column_of(recipe: Recipe, unit: Unit) -> str:
    """The column whose values tell units of this kind apart; "" for rows, and where parties are
    named by the recipe."""
    column = {"group": recipe.data.unit, "client": recipe.data.party}.get(unit)
    return unicodedata.normalize("NFC", column or "")
