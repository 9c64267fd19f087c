# pyright: reportMissingTypeStubs=false
"""What a request would take from the grants of its account, and whether it fits. Writes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nacre.core.errors import BudgetExceeded, LedgerError
from nacre.core.types import Unit
from nacre.differential_privacy.events import require_priced
from nacre.differential_privacy.leaves import is_amplified
from nacre.differential_privacy.request import PLANNED, Request
from nacre.ledger.accounts import Account, Grant, Posting, posted_event
from nacre.ledger.rules import Rule, RuleName, build_rule, first_order


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a run takes from one grant. Shares are of the grant's allowance; 1 is all of it."""

    account: str
    unit: Unit  # the grant's
    rule: RuleName
    order: float | None  # Rényi order, under rdp only
    price: float  # of a step (rdp, zcdp) or of the run (pld), in the rule's currency
    share: float  # inf where nothing bounds the price
    share_before: float  # what stands already, all open reservations included
    epsilon_after: float  # of all that stands once this run is reserved, at the grant's delta
    refusal: str = ""  # why the run does not fit, and the remedy; "" where it fits
    known: bool = False  # whether the run is reserved already

    @property
    def fits(self) -> bool:
        """Whether the grant covers the run."""
        return not self.refusal

    @property
    def share_after(self) -> float:
        """The share that stands once this run is reserved."""
        return self.share_before + self.share

    @property
    def posting(self) -> Posting:
        """What the reservation records for the grant."""
        return Posting(self.price, self.order)

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it."""
        return {
            "rule": self.rule,
            "order": self.order,
            "share": self.share,
            "share_after": self.share_after,
            "epsilon_after": self.epsilon_after,
        }


def tightest(quotes: Sequence[Quote]) -> Quote:
    """The quote of the grant that decides: one that does not cover the run, or else the one that is
    nearest its end."""
    return max(quotes, key=lambda quote: (not quote.fits, quote.share_after))


def weigh(account: Account, asked: Request) -> tuple[Quote, ...]:
    """What `asked` would take from each grant of the account, fine units first.

    Raises `BudgetExceeded` where there is no grant, `LedgerError` for one that counts neighbours
    differently, and `UnsupportedEvent` where a rule cannot price the event.
    """
    if not account.grants:
        raise BudgetExceeded(
            f"account {account.name!r} has no grant, so nothing may be charged to it; make one "
            "with `nacre ledger grant`, or for a training run declare `grant` in the recipe's "
            "`ledger` section"
        )
    if asked.run in account.runs:
        return _standing(account, asked)
    require_priced(asked.event, asked.adjacency)  # a request can be written without `Request.of`
    account.require_column(asked)
    return tuple(_quote(account, grant, asked) for grant in account.grants.values())


def _quote(account: Account, grant: Grant, asked: Request) -> Quote:
    if grant.adjacency != asked.adjacency:
        raise LedgerError(
            f"run {asked.run!r} has adjacency={asked.adjacency}, but account {account.name!r} was "
            f"granted {grant}; one promise cannot be charged to the other: use the same adjacency"
        )
    event = posted_event(asked, grant.unit)
    order = account.order(grant.unit)
    if order is None and event is not None:
        order = first_order(grant.rule, grant.epsilon, grant.delta, event, asked.count)
    if event is None:
        return _unbounded(account, grant, asked)
    rule = build_rule(grant.rule, grant.epsilon, grant.delta, order)
    taken = account.taken(grant.unit, rule)
    price = rule.price(event, asked.count)
    amount = rule.take(price, asked.count)
    fits = rule.fits(taken, amount)
    share, left = amount / rule.allowance, rule.left(taken) / rule.allowance
    return Quote(
        account=account.name,
        unit=grant.unit,
        rule=grant.rule,
        order=order,
        price=price,
        share=share,
        share_before=math.fsum(taken) / rule.allowance,
        epsilon_after=rule.epsilon([*taken, amount]),
        refusal="" if fits else _too_much(account, grant, asked, rule, share, left),
    )


def _too_much(
    account: Account, grant: Grant, asked: Request, rule: Rule, share: float, left: float
) -> str:
    who = "this run" if asked.run == PLANNED else f"run {asked.run!r}"
    asks, rest = _apart(share, left)
    what = f"{who} asks for {asks} of what account {account.name!r} was granted"
    if grant.rule == "pld" and not left:
        return (
            f"{what} ({grant}), which is for one run fixed beforehand and has been taken by "
            "another; start with a grant under `rule: rdp` where several runs are wanted"
        )
    taken, sure = (account.taken(grant.unit, rule, sure=sure) for sure in (False, True))
    held = (math.fsum(taken) - math.fsum(sure)) / rule.allowance
    runs = f" (open runs hold {held:.1%} until they end)" if held > 1e-9 else ""
    remedy = (
        "zcdp counts no sampling, so take an account that was granted under `rule: rdp`, or ask"
        if grant.rule == "zcdp" and is_amplified(asked.event)
        else "ask"
    )
    less = (
        "a smaller epsilon" if asked.steps == 1 else "fewer steps, more noise or a smaller epsilon"
    )
    return (
        f"{what} ({grant}), and {rest} of it is left{runs}; {remedy} for {less}, or have the owner "
        "raise the grant with `nacre ledger grant`"
    )


def _apart(share: float, left: float) -> tuple[str, str]:
    """Both in per cent, with as many digits as it takes to see that the first is larger."""
    for digits in range(1, 16):
        asks, rest = f"{share:.{digits}%}", f"{left:.{digits}%}"
        if asks != rest:
            return asks, rest
    return f"a hair more than {left:.1%}", f"{left:.1%}"


def _unbounded(account: Account, grant: Grant, asked: Request) -> Quote:
    """A grant in a coarser unit, of whose share in this run nothing is known."""
    remedy = (
        "declare `rows_per_unit`"
        if (asked.unit, grant.unit) == ("example", "group")
        else f"run with `differential_privacy.unit: {grant.unit}`"
    )
    return Quote(
        account=account.name,
        unit=grant.unit,
        rule=grant.rule,
        order=None,
        price=math.inf,
        share=math.inf,
        share_before=0.0,
        epsilon_after=math.inf,
        refusal=(
            f"run {asked.run!r} protects unit={asked.unit}, and account {account.name!r} was "
            f"granted {grant}: nothing says how much one {grant.unit} holds, so its price is "
            f"infinite and nothing can be left of it; {remedy}"
        ),
    )


def _standing(account: Account, asked: Request) -> tuple[Quote, ...]:
    """What the run with this name has taken, once it is certain that it is the same."""
    run = account.runs[asked.run]
    if run.request != asked:
        raise LedgerError(
            f"run {asked.run!r} is reserved in account {account.name!r} with other numbers, and a "
            "reservation never changes; give this run a name of its own"
        )
    return tuple(_stands(account, grant, asked) for grant in account.grants.values())


def _stands(account: Account, grant: Grant, asked: Request) -> Quote:
    run = account.runs[asked.run]
    posting = run.postings[grant.unit]
    rule = build_rule(grant.rule, grant.epsilon, grant.delta, posting.order)
    charged = run.charged(rule)
    own = rule.take(posting.price, charged) if charged else 0.0
    others = max(0.0, math.fsum([*account.taken(grant.unit, rule), -own]))
    return Quote(
        account=account.name,
        unit=grant.unit,
        rule=grant.rule,
        order=posting.order,
        price=posting.price,
        share=own / rule.allowance,
        share_before=others / rule.allowance,
        epsilon_after=rule.epsilon(account.taken(grant.unit, rule)),
        known=True,
    )


def preview_new(account: str, grant: Grant, asked: Request) -> Quote:
    """What a run would take from `grant` as the first of its account; needs no ledger."""
    return tightest(weigh(with_grant(Account(account), grant), asked))


def with_grant(account: Account, grant: Grant | None) -> Account:
    """The account as it would be once a recipe's grant was made."""
    if grant is None or account.covers(grant) or not account.admit(grant):
        return account
    return replace(account, grants={**account.grants, grant.unit: grant})
