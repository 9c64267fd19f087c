"""What all sides of a release take from the same file of queries."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nacre.core.errors import Refusal
from nacre.core.strict import canonical
from nacre.differential_privacy.queries import QueryOption
from nacre.federated_learning.messages import RoundRequest
from nacre.federated_learning.roster import Roster
from nacre.federated_learning.secure.grids.grid import WholeNumbers
from nacre.federated_learning.secure.survivors import SumTerms
from nacre.statistics.across.options import Across
from nacre.statistics.across.slots import Slot, slots_of
from nacre.statistics.query_file import Queries


@dataclass(frozen=True)
class AgreedQueries:
    """Queries that several parties answer together. `AgreedQueries.of` makes it."""

    queries: tuple[QueryOption, ...]
    across: Across

    @classmethod
    def of(cls, asked: Queries) -> AgreedQueries:
        """Raises `Refusal` for queries of one table."""
        if asked.across is None:
            raise Refusal(
                "the queries are of one table: add `across`, with the names of the parties and a "
                "threshold, to ask several parties"
            )
        return cls(asked.queries, asked.across)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what is asked and by which sum: what a party's policy names."""
        said = {
            "queries": [dataclasses.asdict(query) for query in self.queries],
            "across": dataclasses.asdict(self.across),
        }
        return hashlib.sha256(b"nacre release" + canonical(_plain(said)).encode()).hexdigest()

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Of the vector that is summed. Raises `BadArgument` as `slots_of` does."""
        return slots_of(self.queries, self.across)

    @property
    def size(self) -> int:
        """Numbers of the vector."""
        return sum(slot.size for slot in self.slots)

    @property
    def grid(self) -> WholeNumbers:
        """The ring that the numbers are added in."""
        return WholeNumbers(parties=len(self.across.parties))

    @property
    def most(self) -> int:
        """What one number of a party is clamped to: half of the room is left for noise."""
        return self.grid.most // 2

    def request(self) -> RoundRequest:
        """What the server asks of each party: there is one round, and no weights."""
        return RoundRequest("train", 0, self.digest, {})

    def terms(self, run: str, roster: Roster) -> SumTerms:
        """Of the secure sum. Raises `PartyError` for a party whose key the roster does not pin."""
        names = self.across.parties
        roster.must_name(names)
        return SumTerms(
            run=run,
            recipe=self.digest,
            rounds=1,
            roster=Roster(roster.server, {name: roster.parties[name] for name in names}),
            threshold=self.across.threshold,
            colluders=self.across.colluders,
            grid=self.grid,
        )


def _plain(value: Any) -> Any:
    """`low: 1` and `low: 1.0` ask the same."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return int(value) if isinstance(value, float) and value.is_integer() else value
