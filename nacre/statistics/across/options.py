"""Who answers a file of queries together, and where the noise comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.differential_privacy.queries import Choice, Keys, QueryOption
from nacre.federated_learning.roster import ALL, SERVER
from nacre.federated_learning.secure.option import SecureGather


@dataclass(frozen=True, kw_only=True)
class CentralNoise:
    """The server opens the exact sum and adds the noise. It is trusted with that sum."""

    kind: Literal["central"] = "central"

    def against(self, colluders: int) -> str:
        """Whom epsilon holds against."""
        others = f" ({_parties(colluders)} may help it)" if colluders else ""
        return (
            "epsilon holds against everyone who sees the answers, but not against the server: it "
            "opens the exact sums over the parties that answered and adds the noise; it sees no "
            f"party's own{others}"
        )


@dataclass(frozen=True, kw_only=True)
class DistributedNoise:
    """Each party adds a share of the noise before the sum; nobody sees a sum without noise."""

    kind: Literal["distributed"] = "distributed"

    def against(self, colluders: int) -> str:
        """Whom epsilon holds against."""
        helping = "helps" if colluders == 1 else "help"
        others = f" and {_parties(colluders)} that {helping} it" if colluders else ""
        return (
            f"epsilon holds against everyone who sees the answers, the server{others} among them, "
            "and against each of the other parties"
        )


NoiseOrigin = CentralNoise | DistributedNoise
"""Where the noise of a sum over parties comes from."""


@dataclass(frozen=True, kw_only=True)
class Across:
    """Who answers together, by which secure sum."""

    parties: tuple[str, ...]
    """Their names."""
    column: str | None = None
    """The column that names the party of a row: it deals one table to the parties, and a party
    refuses a file with rows of another. Without it each party has a file of its own."""
    threshold: int
    """Parties that have to answer at every stage; with fewer there is no answer."""
    colluders: int = 1
    """Parties that may be on the server's side; at most `2 * threshold - parties - 1`, and
    `threshold - 2`."""
    noise: NoiseOrigin
    """Who adds it, which decides whom epsilon holds against."""

    def __post_init__(self) -> None:
        require.at_least(2, threshold=self.threshold)
        require.at_least(0, colluders=self.colluders)
        count = len(self.parties)
        if len(set(self.parties)) < count:
            raise BadArgument(f"parties={self.parties} must differ from each other")
        for name in self.parties:
            if name in ("", ALL, SERVER) or not name.isprintable():
                raise BadArgument(f"parties: {name!r} is no party's name; give it another one")
        if self.threshold > count:
            raise BadArgument(
                f"threshold={self.threshold} is more than the {count} parties; at most {count}"
            )
        gather = SecureGather(threshold=self.threshold, colluders=self.colluders)
        tolerated = gather.tolerated(count)
        if self.colluders > tolerated:
            raise BadArgument(
                f"threshold={self.threshold} of {count} parties hides a party's numbers from a "
                f"server that {self.colluders} parties help only where colluders is at most "
                f"min(2 threshold - parties - 1, threshold - 2) = {tolerated}; raise `threshold`"
            )

    @property
    def counted(self) -> int:
        """Shares of noise that nobody who looks knows, at least: those of the honest parties that
        answered, without that of one who looks, since a party knows its own share also where none
        helps the server."""
        return self.threshold - max(self.colluders, 1)

    def refuse_unsuited(self, queries: Sequence[QueryOption]) -> None:
        """Raises `BadArgument` for a query that no sum over parties answers."""
        for number, query in enumerate(queries):
            place = f"queries.{number}"
            if isinstance(query, Keys | Choice):
                raise BadArgument(
                    f"{place}.kind: {query.kind!r} is no sum, so it cannot be asked of several "
                    "parties together; ask for a histogram of declared categories"
                )
            if getattr(query, "groups_from", None) is not None:
                raise BadArgument(
                    f"{place}.groups_from: several parties cannot be asked for keys together; "
                    "declare `groups`"
                )
            if isinstance(self.noise, DistributedNoise) and query.delta == 0:
                raise BadArgument(
                    f"{place}.delta: distributed noise is Gaussian, so it needs a delta above 0; "
                    "1e-6 is usual, or write `noise: {kind: central}`"
                )


def _parties(count: int) -> str:
    return "one party" if count == 1 else f"{count} parties"
