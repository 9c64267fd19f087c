"""Who is charged for what: noise calibrated, the price, and what it takes from the grant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.core.errors import BudgetExceeded, Incompatible, LedgerError, UnsupportedEvent
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.noise import NoNoise
from nacre.differential_privacy.price import Accountant, Price, epsilon, epsilon_by_step
from nacre.differential_privacy.search import Search
from nacre.recipe.places import placed, refuse
from nacre.recipe.schema import Recipe
from nacre.training.budget import Asked, Takes, takes

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A holder's mechanism is that of one trial: what the whole search is."""

    search: Search
    mechanisms: tuple[Mechanism, ...]  # all that a trial may draw

    @property
    def event(self) -> DpEvent:
        """Of the whole search."""
        return self.search.event(self.mechanisms)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who is charged, and for what: one account, one mechanism."""

    name: str  # "" for the central run or the whole federation
    account: str | None
    size: int  # declared units
    mechanism: Mechanism
    price: Price | None = None  # of the whole run, by the accountant that calibrated it
    by_step: tuple[tuple[int, float], ...] = ()  # (steps done, epsilon)
    takes: Takes | None = None  # from the account's grant
    delta: float | None = None
    trial: Trial | None = None  # None where the mechanism is all that happens

    @property
    def event(self) -> DpEvent:
        """What everything that is charged reveals at most about one unit."""
        return self.mechanism.event() if self.trial is None else self.trial.event

    @property
    def asked(self) -> Asked:
        """What is reserved. A search has two steps that are charged together: one before its first
        trial, one for the winner."""
        mechanism = self.mechanism
        unit, adjacency = mechanism.unit, mechanism.adjacency
        if self.trial is not None:
            return Asked(self.trial.event, 2, unit, adjacency, 2)
        return Asked(mechanism.event(1), mechanism.steps, unit, adjacency, mechanism.span)


def accountant(recipe: Recipe) -> Accountant:
    """Which accountant calibrates: the one asked for, else the one of the grant's rule."""
    privacy, ledger = recipe.differential_privacy, recipe.ledger
    assert privacy is not None
    if privacy.accountant != "auto":
        return privacy.accountant
    rule = ledger.grant.rule if ledger is not None and ledger.grant is not None else "rdp"
    return "pld" if rule == "pld" else "rdp"


def priced(recipe: Recipe, run: tuple[str, Path] | None, holder: Holder, ledger: bool) -> Holder:
    """The holder with its noise calibrated, its price, and what it takes from the grant, unless
    its `ledger` is not to be looked at. As it is where nothing is to be calibrated."""
    privacy = recipe.differential_privacy
    if privacy is None or _noiseless(holder):
        return holder
    budget = Budget(epsilon=privacy.epsilon, delta=privacy.delta)
    try:
        mechanism = holder.mechanism.calibrated(budget, accountant(recipe))
    except Incompatible as error:
        refuse(recipe, "differential_privacy.epsilon", str(error))
    except UnsupportedEvent as error:
        refuse(recipe, "differential_privacy", str(error), UnsupportedEvent)
    event, by = mechanism.event(), accountant(recipe)
    price = epsilon(event, privacy.delta, by, mechanism.adjacency)
    by_step = epsilon_by_step(
        mechanism.event, mechanism.steps, privacy.delta, by, adjacency=mechanism.adjacency
    )
    found = replace(
        holder, mechanism=mechanism, price=price, by_step=tuple(by_step), delta=privacy.delta
    )
    return _charged(recipe, run, found) if ledger else found


def searched(
    recipe: Recipe,
    run: tuple[str, Path] | None,
    holders: Sequence[Holder],  # the same one under each alternative, uncalibrated
    ledger: bool,
) -> list[Holder]:
    """The holder under each alternative of a search, with the noise and the price of the search."""
    privacy, tune = recipe.differential_privacy, recipe.tune
    assert privacy is not None  # alternatives() has refused the rest
    assert tune is not None
    if _noiseless(holders[0]):
        return list(holders)
    budget = Budget(epsilon=privacy.epsilon, delta=privacy.delta)
    try:
        mechanisms = tune.search.calibrated([each.mechanism for each in holders], budget)
        trial = Trial(search=tune.search, mechanisms=tuple(mechanisms))
        price = epsilon(trial.event, privacy.delta, "rdp", mechanisms[0].adjacency)
    except (Incompatible, UnsupportedEvent) as error:
        remedy = "raise epsilon, lower `trials`, or take a cheaper score"
        refuse(recipe, "tune", f"this search has no price within epsilon ({error}); {remedy}")
    found = [
        replace(
            holder, mechanism=mechanism, price=price, trial=trial, delta=privacy.delta,
            by_step=((mechanism.steps, price.epsilon),),
        )
        for holder, mechanism in zip(holders, mechanisms, strict=True)
    ]  # fmt: skip
    if not ledger:
        return found
    taken = _charged(recipe, run, found[0]).takes
    return [replace(holder, takes=taken) for holder in found]


def _noiseless(holder: Holder) -> bool:
    noise = holder.mechanism.noise
    return isinstance(noise, NoNoise) or noise.multiplier is not None


def _charged(recipe: Recipe, run: tuple[str, Path] | None, holder: Holder) -> Holder:
    """The holder with what it takes from its grant. Raises `BudgetExceeded` for too much."""
    assert holder.account is not None  # private_runs_have_a_ledger has refused the rest
    try:
        share = takes(recipe, holder.account, holder.asked, run)
    except (BudgetExceeded, LedgerError, UnsupportedEvent) as error:
        if holder.trial is not None and isinstance(error, UnsupportedEvent):
            refuse(
                recipe,
                "ledger.dataset",
                f"a search has a price under `rdp` only, and account {holder.account!r} was "
                "granted under another rule, which never changes: take an account that was granted "
                "by `nacre ledger grant --rule rdp`",
            )
        raise type(error)(placed(recipe, "ledger.path", str(error))) from error
    if share.refusal:
        raise BudgetExceeded(placed(recipe, "differential_privacy.epsilon", share.refusal))
    return replace(holder, takes=share)
