"""A level of a plan, where private rows' gradients are released: declared, priced, charged.

Each stage is a type of its own, and holds all that is known at it: what takes a `PricedLevel` needs
no word on what happens where a price is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nacre.differential_privacy.accounting.conversions import in_other_words
from nacre.differential_privacy.accounting.price import Accountant, Price
from nacre.differential_privacy.mechanism import Mechanism
from nacre.differential_privacy.selection.search import Search
from nacre.ledger import Quote, Request
from nacre.planning.shares_of_noise import by_observer

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search, of which the search as a whole has the price."""

    search: Search
    mechanisms: tuple[Mechanism, ...]  # all that a trial may draw

    def event(self) -> DpEvent:
        """What the whole search reveals at most about one unit."""
        return self.search.event(self.mechanisms)


@dataclass(frozen=True, kw_only=True)
class Level:
    """Who takes part, and what happens. A run without privacy has no more than this."""

    name: str  # "" for the central run or the whole federation
    account: str | None  # who pays, in the ledger; None where nothing is promised
    size: int  # declared units
    mechanism: Mechanism
    parties: int = 1  # that are alike, of which `name` is the first; more only where none pays
    against: str = ""  # whom its promise holds against, where a recipe makes two

    def promise(self) -> dict[str, Any]:
        """What plan.json says of the price."""
        return {
            "epsilon": None,
            "delta": None,
            "accountant": None,
            "epsilon_by_step": [],
            "takes": None,
        }


@dataclass(frozen=True, kw_only=True)
class PricedLevel(Level):
    """A level whose noise is calibrated, and what that costs."""

    account: str
    basis: Mechanism | Trial  # what the price is of: all that happens here, or the search
    multiplier: float  # of the noise, in sensitivities
    delta: float
    price: Price  # of the whole run
    accountant: Accountant  # who calibrated it, as it was asked for
    by_step: tuple[tuple[int, float], ...]  # (steps done, epsilon)
    asks: Request  # of the account, by a run that has no name yet

    def request(self, run: str) -> Request:
        """What the run of this name asks of the account."""
        return replace(self.asks, run=run)

    def covered(self, quote: Quote) -> ChargedLevel:
        """The level, once its account covers it."""
        return ChargedLevel(**vars(self), quote=quote)

    def by_observer(self) -> dict[str, Any]:
        """What plan.json says of who sees what, where parties noise a sum themselves."""
        if isinstance(self.basis, Trial):
            return {}
        return by_observer(self.mechanism, self.delta, self.accountant)

    def promise(self) -> dict[str, Any]:
        """What plan.json says of the price."""
        return {
            "epsilon": self.price.epsilon,
            "delta": self.delta,
            "accountant": self.price.accountant,
            "epsilon_by_step": [list(point) for point in self.by_step],
            "takes": None,
            **in_other_words(self.basis.event(), self.price.accountant, self.mechanism.adjacency),
            **self.by_observer(),
        }


@dataclass(frozen=True, kw_only=True)
class ChargedLevel(PricedLevel):
    """A level that its account covers, and what it takes from the grant."""

    quote: Quote

    def promise(self) -> dict[str, Any]:
        """What plan.json says of the price."""
        return super().promise() | {"takes": self.quote.to_json()}


def by_unit(levels: Sequence[PricedLevel]) -> list[list[PricedLevel]]:
    """The levels of each unit that is protected, in their order: epsilons of different units are no
    figures of one kind.

    Each account is charged for its own unit at its own price. The two promises of a recipe are of
    the same releases, so for one who is covered by both, either holds, and they do not add up.
    """
    units = dict.fromkeys(level.mechanism.unit for level in levels)
    return [[level for level in levels if level.mechanism.unit == unit] for unit in units]


def smallest_and_largest(levels: Sequence[PricedLevel]) -> tuple[PricedLevel, ...]:
    """The level of the fewest declared units and that of the most, between which the others lie;
    the first one alone where all have as many."""
    least, most = min(levels, key=lambda each: each.size), max(levels, key=lambda each: each.size)
    return (levels[0],) if least.size == most.size else (least, most)
