"""Levels -> priced and charged levels: noise calibrated, the price, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.core.errors import BudgetExceeded, Incompatible, LedgerError, UnsupportedEvent
from nacre.differential_privacy.accounting.price import epsilon, epsilon_by_step
from nacre.differential_privacy.mechanism import Mechanism
from nacre.ledger import PLANNED, Ledger, Quote, Request, preview_new
from nacre.planning.levels import ChargedLevel, Level, PricedLevel, Trial
from nacre.planning.protection import Protection
from nacre.planning.shares_of_noise import noised_grid
from nacre.recipe.places import placed, refuse
from nacre.recipe.schema import Recipe
from nacre.recipe.tune import Tune


def priced(recipe: Recipe, protection: Protection, level: Level) -> PricedLevel:
    """The level with the least noise that keeps it within its budget, and the price of that."""
    privacy, by = protection.privacy, protection.accountant
    try:
        mechanism = level.mechanism.calibrated(protection.budget, by)
        _grid_is_fine(recipe, mechanism)
        asks = mechanism.request(
            PLANNED, rows_per_unit=privacy.rows_per_unit, column=protection.column
        )
    except Incompatible as error:
        refuse(recipe, f"{protection.key}.epsilon", str(error))
    except UnsupportedEvent as error:
        refuse(recipe, protection.key, str(error), UnsupportedEvent)
    by_step = epsilon_by_step(
        mechanism.event, mechanism.releases, privacy.delta, by, adjacency=mechanism.adjacency
    )
    return PricedLevel(
        name=level.name,
        account=protection.account(level.name),
        size=level.size,
        mechanism=mechanism,
        against=level.against,
        basis=mechanism,
        multiplier=mechanism.multiplier,
        delta=privacy.delta,
        price=epsilon(mechanism.event(), privacy.delta, by, mechanism.adjacency),
        accountant=by,
        by_step=tuple(by_step),
        asks=asks,
    )


def searched(
    recipe: Recipe,
    tune: Tune,
    protection: Protection,
    levels: Sequence[Level],  # the same one under each alternative
) -> list[PricedLevel]:
    """The level under each alternative of a search, with the noise and the price of the search."""
    privacy = protection.privacy
    try:
        mechanisms = tune.search.calibrated(
            [level.mechanism for level in levels], protection.budget
        )
        for mechanism in mechanisms:
            _grid_is_fine(recipe, mechanism)
        trial = Trial(search=tune.search, mechanisms=tuple(mechanisms))
        price = epsilon(trial.event(), privacy.delta, "rdp", mechanisms[0].adjacency)
        asks = _asked(protection, trial)
    except (Incompatible, UnsupportedEvent) as error:
        remedy = "raise epsilon, lower `trials`, or take a cheaper score"
        refuse(recipe, "tune", f"this search has no price within epsilon ({error}); {remedy}")
    return [
        PricedLevel(
            name=level.name,
            account=protection.account(level.name),
            size=level.size,
            mechanism=mechanism,
            basis=trial,
            multiplier=mechanism.multiplier,
            delta=privacy.delta,
            price=price,
            accountant="rdp",
            by_step=((mechanism.steps, price.epsilon),),
            asks=asks,
        )
        for level, mechanism in zip(levels, mechanisms, strict=True)
    ]


def _grid_is_fine(recipe: Recipe, mechanism: Mechanism) -> None:
    """Rounding to the grid of noised sums must not be as long as a change itself."""
    try:
        noised_grid(mechanism)
    except ValueError as error:
        refuse(recipe, "federated_learning.gather", str(error))


def _asked(protection: Protection, trial: Trial) -> Request:
    """What a search asks of its account: two steps that are charged together, one before the first
    trial and one for the winner."""
    first = trial.mechanisms[0]
    return Request.of(
        PLANNED,
        trial.event(),
        steps=2,
        unit=first.unit,
        adjacency=first.adjacency,
        rows_per_unit=protection.privacy.rows_per_unit,
        span=2,
        column=protection.column,
    )


def charged(
    recipe: Recipe,
    protection: Protection,
    level: PricedLevel,
    run: tuple[str, Path] | None,  # name and folder of the run that is resumed
) -> ChargedLevel:
    """The level with what it takes from its grant. Raises `BudgetExceeded` for too much."""
    name, folder = run or (PLANNED, None)
    try:
        quote = _quoted(protection, level.account, level.request(name), folder)
    except (BudgetExceeded, LedgerError, UnsupportedEvent) as error:
        if isinstance(level.basis, Trial) and isinstance(error, UnsupportedEvent):
            refuse(
                recipe,
                "ledger.dataset",
                f"a search has a price under `rdp` only, and account {level.account!r} was "
                "granted under another rule, which never changes: take an account that was granted "
                "by `nacre ledger grant --rule rdp`",
            )
        raise type(error)(placed(recipe, "ledger.path", str(error))) from error
    if quote.refusal:
        raise BudgetExceeded(placed(recipe, f"{protection.key}.epsilon", quote.refusal))
    return level.covered(quote)


def _quoted(
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
    declared = f"declare `ledger: {{{protection.grant_key}: {{epsilon: …, delta: …}}}}`"
    if path is None:  # each run has a ledger of its own, which nobody can grant beforehand
        raise BudgetExceeded(
            f"account {account!r} has no grant, since the ledger is made with the run; {declared}"
        )
    raise BudgetExceeded(
        f"account {account!r} has no grant: the ledger {path} does not exist; make one with "
        f"`nacre ledger grant`, or {declared}"
    )
