"""What an aggregate is: from the parties' contributions to the one that the server follows.

An aggregate gives a *total*: what divided by the expected number of parties is the direction. So
the update (`total / expected`) is the same line for every aggregate, and the mean is a plain sum
whose bound is that of one party.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nacre.core import require
from nacre.core.errors import PartyError
from nacre.core.types import Tensors


@dataclass(frozen=True)
class RoundFacts:
    """What a server knows of a round before it looks at a reply; all of it is public."""

    round: int = 0  # counted from 0
    root: Tensors | None = None  # the contribution of the public rows, at this round's weights
    center: Tensors | None = None  # the last direction; None where it is zero or not needed


NOTHING_KNOWN = RoundFacts()


def at_fault(count: int) -> str:
    """The number at fault in words.

    >>> at_fault(1), at_fault(2)
    ('1 party at fault', '2 parties at fault')
    """
    return f"{count} {'party' if count == 1 else 'parties'} at fault"


@dataclass(frozen=True, kw_only=True)
class Aggregate(ABC):
    """What every aggregate answers; a rule says otherwise where it differs.

    `f` below is the declared number of parties at fault (`bad` in a recipe), `n` the number of
    contributions. A rule is (f, kappa)-robust where, whichever n - f contributions are honest and
    whatever the others are, the squared distance of its result from the mean of the honest ones is
    at most kappa times their mean squared distance from it (Allouah et al. 2023,
    https://arxiv.org/abs/2302.01772, definition 2). No rule has a kappa below f / (n - 2f), so
    none helps where the honest contributions differ more than they agree.
    """

    kind: str

    robust: ClassVar[bool] = True
    """Made for parties at fault: replies that cannot be used are left out, the run continues."""

    @property
    def faults(self) -> int:
        """f: how many parties at fault the recipe reckons with."""
        return 0

    @property
    def least(self) -> int:
        """The smallest n with which f parties at fault are withstood, and the rule is defined."""
        return 1

    @property
    def centred(self) -> bool:
        """Whether contributions are taken minus the last direction, which the update adds again.

        The last direction was released, so under privacy a sum of differences is bounded by what
        the clip rule leaves of each.
        """
        return False

    @property
    def rooted(self) -> bool:
        """Whether it needs the contribution of the public rows, `RoundFacts.root`."""
        return False

    @abstractmethod
    def total(
        self,
        contributions: Sequence[Tensors],  # at least one; equal names and shapes
        expected: float,  # parties a round, declared
        known: RoundFacts = NOTHING_KNOWN,
    ) -> Tensors:
        """`expected` times what the rule makes of them; finite where the contributions are.

        Raises `PartyError` where they are too few for the rule.
        """
        ...

    @abstractmethod
    def sentence(self) -> str:
        """What the server takes of the changes, with its numbers."""
        ...

    @abstractmethod
    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes have to be,
        as a sentence."""
        ...

    def kappa(self, parties: int) -> float:
        """The kappa of `parties` contributions, f of them at fault; inf where none is proven."""
        return math.inf

    def facts(self, parties: int) -> dict[str, Any]:
        """The rule as plan.json has it, in a cohort of `parties`; kappa None where none is
        proven."""
        kappa = self.kappa(parties)
        return {
            "kind": self.kind,
            "bad": self.faults,
            "least": self.least,
            "kappa": kappa if math.isfinite(kappa) else None,
        }

    def bound(self, each: float) -> float:
        """inf, so every noise refuses it: the result is no sum with one bounded share a party.

        What one party more or less moves depends on the others.
        """
        return math.inf

    def enough(self, contributions: Sequence[Tensors]) -> None:
        """Raises `PartyError` where fewer than `least` contributions came."""
        if len(contributions) < self.least:
            raise PartyError(
                f"{len(contributions)} usable replies came, and `aggregate: {{kind: {self.kind}}}` "
                f"with {at_fault(self.faults)} needs {self.least}; see that the parties run "
                "and resume"
            )


@dataclass(frozen=True, kw_only=True)
class AgainstFaults(Aggregate):
    """A rule to which the number of parties at fault is declared."""

    bad: int
    """Parties at fault that are reckoned with."""

    def __post_init__(self) -> None:
        require.at_least(0, bad=self.bad)

    @property
    def faults(self) -> int:
        """As declared."""
        return self.bad

    @property
    def least(self) -> int:
        """More than twice those at fault."""
        return 2 * self.bad + 1
