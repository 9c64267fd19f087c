# pyright: reportMissingTypeStubs=false
"""What the entries of one account amount to: grants, runs, and what each grant has left.

Everything here is derived by replaying entries in order; nothing is stored. A charge names a unit
and is posted to *every* grant of its account, in that grant's unit:

| the grant's unit is | price | because |
|---|---|---|
| the charge's | the event's | |
| finer | of two units; of one under replace-one | see `posted_event` |
| coarser: rows of a group | of `rows_per_unit` rows, if declared | group privacy |
| coarser: anything of a client | infinite | nobody declares how much a client holds |
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from nacre.core.errors import BadArgument, LedgerError
from nacre.core.types import Adjacency, Unit
from nacre.differential_privacy.group_privacy import group_event
from nacre.differential_privacy.request import Request, require_choice, require_column
from nacre.ledger.rules import Rule, RuleName, build_rule, smallest_epsilon

if TYPE_CHECKING:
    from dp_accounting import DpEvent

UNITS: tuple[Unit, ...] = ("example", "group", "client")
"""From fine to coarse."""

End = Literal["settled", "abandoned"]


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What the owner of the data allows for one unit of one account.

    Raises `ValueError` for numbers that allow nothing or everything.
    """

    unit: Unit
    epsilon: float
    delta: float
    rule: RuleName = "rdp"
    adjacency: Adjacency = "add_or_remove"
    column: str = ""
    """The column whose values tell units apart; "" for rows, and for what the first run names."""

    def __post_init__(self) -> None:
        require_column(self.unit, self.column)
        require_choice("unit", self.unit, Unit)
        require_choice("rule", self.rule, RuleName)
        require_choice("adjacency", self.adjacency, Adjacency)
        if not 0 < self.delta < 1:
            raise BadArgument(f"delta={self.delta} must lie between 0 and 1")
        least = smallest_epsilon(self.rule, self.delta)
        if not least < self.epsilon < math.inf:
            raise BadArgument(
                f"epsilon={self.epsilon} must be > {least:.3g} and finite at delta={self.delta} "
                f"under rule={self.rule}"
            )

    def __str__(self) -> str:
        column = f" in column {self.column!r}" if self.column else ""
        return (
            f"epsilon={self.epsilon:g}, delta={self.delta:g}, unit={self.unit}{column}, "
            f"rule={self.rule}, adjacency={self.adjacency}"
        )


def grant_of(
    unit: Unit,
    epsilon: float,
    delta: float,
    rule: RuleName,
    adjacency: Adjacency,
    column: str = "",
) -> Grant:
    """The grant, refused in a sentence where people typed its numbers."""
    try:
        return Grant(
            unit=unit, epsilon=epsilon, delta=delta, rule=rule, adjacency=adjacency,
            column=unicodedata.normalize("NFC", column),
        )  # fmt: skip
    except ValueError as error:
        raise LedgerError(f"no such grant can be made: {error}") from error


def posted_event(asked: Request, unit: Unit) -> DpEvent | None:
    """What a step costs a grant in `unit`; None where nothing bounds it.

    *Finer units.* Taking one row from a group leaves another group in its place: the old one goes
    and a new one comes, which is two changes under add-or-remove and two under zero-out, but a
    single one under replace-one. So the price of one change would be too low.

    *Coarser units.* A group of at most k rows changes in k changes of one row (under replace-one:
    into another group of as many rows). Amplification is lost either way; see `group_event`.
    """
    own, other = UNITS.index(asked.unit), UNITS.index(unit)
    if own == other:
        return asked.event
    if other < own:
        return group_event(asked.event, 1 if asked.adjacency == "replace_one" else 2)
    if (asked.unit, unit) == ("example", "group") and asked.rows_per_unit is not None:
        return group_event(asked.event, asked.rows_per_unit)
    return None


@dataclass(frozen=True)
class Posting:
    """What a reservation recorded for one grant: the price in its rule's currency."""

    price: float
    order: float | None  # Rényi order, under rdp only


@dataclass
class Reservation:
    """A reservation and what has become of it."""

    request: Request
    postings: Mapping[Unit, Posting]
    number: int  # of its entry
    time: str
    journalled: int = 0  # steps that may have been released
    entered: dict[int, str] = field(default_factory=dict[int, str])  # step -> what entered it
    end: End | None = None

    def sure(self, rule: Rule) -> int:
        """Events that stay charged whatever happens now."""
        return rule.settle(self.request.count, self.request.counted(self.journalled))

    def charged(self, rule: Rule) -> int:
        """Events that are charged: all of them until the run ends."""
        return self.sure(rule) if self.end else self.request.count


@dataclass
class Account:
    """The grants and runs of one account; only `replay.py` changes them."""

    name: str
    grants: dict[Unit, Grant] = field(default_factory=dict[Unit, Grant])
    runs: dict[str, Reservation] = field(default_factory=dict[str, Reservation])
    rows: set[str] = field(default_factory=set[str])  # encrypted sketches of what it stands for

    def run(self, name: str) -> Reservation:
        """The reservation of this name. Raises `LedgerError` where there is none."""
        if name not in self.runs:
            raise LedgerError(f"account {self.name!r} has no run {name!r}; reserve it first")
        return self.runs[name]

    def column(self, unit: Unit) -> str:
        """The column that units of this kind are told apart by: the grant's, or else that of the
        first run of this kind; "" where none is bound."""
        granted = self.grants[unit].column if unit in self.grants else ""
        runs = (run.request for run in self.runs.values())
        return granted or next((one.column for one in runs if one.unit == unit and one.column), "")

    def require_column(self, asked: Request) -> None:
        """Raises `LedgerError` where units of the same kind are told apart by another column: what
        one person holds many of would each have the epsilon of a person."""
        bound = self.column(asked.unit)
        if bound and asked.column != bound:
            raise LedgerError(
                f"run {asked.run!r} tells units apart by {_named(asked.column)}, but account "
                f"{self.name!r} counts {asked.unit}s by {_named(bound)}, whose privacy it was "
                f"granted for; use `unit: {bound}`"
            )

    def admit(self, grant: Grant) -> bool:
        """Whether `grant` would add a unit to this account (or stands already: False).

        Raises `LedgerError` where another grant of that unit stands, where the others count
        neighbours differently, or where runs have gone by that it would have to answer for.
        """
        stands = self.grants.get(grant.unit)
        if stands is not None and replace(stands, column=stands.column or grant.column) == grant:
            return False
        if stands is not None:
            raise LedgerError(
                f"account {self.name!r} was granted {stands}, and not {grant}; of a grant "
                "only epsilon can change, and only grow, by its owner with `nacre ledger grant`: "
                "declare what stands, or take another account"
            )
        others = {other.adjacency for other in self.grants.values()} - {grant.adjacency}
        if others:
            raise LedgerError(
                f"account {self.name!r} counts neighbours by adjacency={others.pop()}, so a grant "
                f"with adjacency={grant.adjacency} does not fit; all grants of an account share one"
            )
        if self.runs:
            raise LedgerError(
                f"account {self.name!r} has reservations already, which a new grant for "
                f"unit={grant.unit} would not have seen; grant all units before the first run"
            )
        return True

    def covers(self, grant: Grant) -> bool:
        """Whether what stands is `grant`, or `grant` with its epsilon raised since."""
        stands = self.grants.get(grant.unit)
        if stands is None or stands.epsilon < grant.epsilon:
            return False
        column = stands.column or grant.column  # one of before columns were bound
        return replace(stands, epsilon=grant.epsilon, column=column) == grant

    def raises(self, grant: Grant) -> bool:
        """Whether `grant` is the one that stands with a larger epsilon."""
        stands = self.grants.get(grant.unit)
        if stands is None or grant.epsilon <= stands.epsilon:
            return False
        return {**asdict(stands), "epsilon": grant.epsilon} == asdict(grant)

    def order(self, unit: Unit) -> float | None:
        """The order that the first reservation fixed; None before it and under other rules."""
        first = next(iter(self.runs.values()), None)
        return first.postings[unit].order if first else None

    def rule(self, unit: Unit) -> Rule | None:
        """The rule of a grant; None before the first reservation, which may fix its order."""
        if not self.runs:
            return None
        grant = self.grants[unit]
        return build_rule(grant.rule, grant.epsilon, grant.delta, self.order(unit))

    def taken(self, unit: Unit, rule: Rule, *, sure: bool = False) -> list[float]:
        """What each run has taken from a grant; with `sure`, without what may come back."""
        return [
            rule.take(run.postings[unit].price, steps)
            for run in self.runs.values()
            if (steps := run.sure(rule) if sure else run.charged(rule))
        ]


def _named(column: str) -> str:
    return f"column {column!r}" if column else "no column"
