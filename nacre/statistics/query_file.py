"""A file of queries: what `nacre release` asks of a table. Read by the rules of recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.core.errors import BadArgument
from nacre.differential_privacy.leaves import NO_PROMISE
from nacre.differential_privacy.queries import Keys, QueryOption
from nacre.statistics.across.options import Across
from nacre.statistics.local import LocalOption


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Statistics to release, each with its own price."""

    nacre: Literal[1] = 1
    """The format of this file, which begins with it."""
    queries: tuple[QueryOption, ...]
    """What is asked; every answer is charged to the account."""
    across: Across | None = None
    """Several parties answer together by a secure sum; None asks one table."""

    def __post_init__(self) -> None:
        if not self.queries:
            raise BadArgument("queries must hold at least one query")
        for number, query in enumerate(self.queries):
            before, place = self.queries[:number], f"queries.{number}"
            if query.name in [other.name for other in before]:
                raise BadArgument(
                    f"{place}.name: queries name {query.name!r} twice; give each answer its own"
                )
            if query.epsilon > NO_PROMISE:
                raise BadArgument(
                    f"{place}.epsilon: epsilon={query.epsilon:g} promises nothing, so it has no "
                    "price; 0.1 to 1 is usual for a query"
                )
            _keys_come_first(place, query, before)
        if self.across is not None:
            self.across.refuse_unsuited(self.queries)


def _keys_come_first(place: str, query: QueryOption, before: tuple[QueryOption, ...]) -> None:
    """Raises `ValueError` where a query takes its groups from what does not give them."""
    name = getattr(query, "groups_from", None)
    if name is None:
        return
    keys = next((other for other in before if other.name == name), None)
    if not isinstance(keys, Keys):
        raise BadArgument(
            f"{place}.groups_from: {query.name!r} takes its groups from {name!r}, which is no "
            "query of kind keys before it; ask for the keys first"
        )
    if keys.column != getattr(query, "by", None):
        raise BadArgument(
            f"{place}.by: {query.name!r} is by another column than {name!r}, whose keys are its "
            f"groups; write `by: {keys.column}`"
        )


@dataclass(frozen=True, kw_only=True)
class Records:
    """Columns whose records are noised one by one; what `nacre release --local` reads."""

    nacre: Literal[1] = 1
    """The format of this file, which begins with it."""
    columns: dict[str, LocalOption]
    """Column: how each of its values is noised. Columns that are not named are not written."""

    def __post_init__(self) -> None:
        if not self.columns:
            raise BadArgument("columns must name at least one column")
