"""What a party at fault does: to the rows that it trains on, and to what it sends.

These are for tests, benchmarks and audits of one's own federation, never for a run that is handed
on. A *change* is weights after minus weights before, as a reply carries it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nacre.core.random import Source
from nacre.core.types import Tensors
from nacre.data.dataset import Rows


@dataclass(frozen=True)
class Seen:
    """What those at fault know of a round, together."""

    own: Sequence[Tensors]  # what they would send, trained on their `rows`; at least one
    honest: Sequence[Tensors]  # the others' changes; () where the attacker does not see them
    others: int  # how many are honest, which each party can count
    source: Source  # of this round

    @property
    def known(self) -> Sequence[Tensors]:
        """The honest changes; where none are seen, their own stand for them."""
        return self.honest or self.own

    @property
    def cohort(self) -> int:
        """How many answer."""
        return len(self.own) + self.others


@dataclass(frozen=True, kw_only=True)
class Attacker(ABC):
    """A way to be at fault; each kind changes the rows, or the replies, or both."""

    kind: str

    omniscient: ClassVar[bool] = False
    """Whether it is given the honest changes before it sends, as the strongest attacker is."""

    def rows(self, rows: Rows, source: Source) -> Rows:
        """What a party at fault trains on in place of its rows; `source` is its own."""
        return rows

    def changes(self, seen: Seen) -> list[Tensors]:
        """What each of those at fault sends, in the order of `seen.own`."""
        return list(seen.own)

    @abstractmethod
    def sentence(self) -> str:
        """What it does, with its numbers."""
        ...
