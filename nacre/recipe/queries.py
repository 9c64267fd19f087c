"""A file of queries: what `nacre release` asks of a table. Read by the rules of recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.differential_privacy.local import LocalOption
from nacre.differential_privacy.queries import QueryOption


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
