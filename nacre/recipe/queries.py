"""A file of queries: what `nacre release` asks of a table. Read by the rules of recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.differential_privacy.local import LocalOption
from nacre.differential_privacy.queries import Keys, QueryOption


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Statistics to release, each with its own price."""

    nacre: Literal[1] = 1
    """The format of this file, which begins with it."""
    queries: tuple[QueryOption, ...]
    """What is asked; every answer is charged to the account."""

    def __post_init__(self) -> None:
        if not self.queries:
            raise ValueError("queries must hold at least one query")
        names = [query.name for query in self.queries]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"queries name {twice[0]!r} twice; give each answer its own name")
        for place, query in enumerate(self.queries):
            _keys_come_first(query, self.queries[:place])


def _keys_come_first(query: QueryOption, before: tuple[QueryOption, ...]) -> None:
    """Raises `ValueError` where a query takes its groups from what does not give them."""
    name = getattr(query, "groups_from", None)
    if name is None:
        return
    keys = next((other for other in before if other.name == name), None)
    if not isinstance(keys, Keys):
        raise ValueError(
            f"queries: {query.name!r} takes its groups from {name!r}, which is no query of kind "
            "keys before it; ask for the keys first"
        )
    if keys.column != getattr(query, "by", None):
        raise ValueError(
            f"queries: {query.name!r} is by another column than {name!r}, whose keys are its "
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
            raise ValueError("columns must name at least one column")
