"""What holds between the columns of a row, in their own units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nacre.core.errors import BadArgument

Halfspace = tuple[dict[str, float], float]
"""(weight of each column, bound): the weighted sum of the columns is at most the bound."""


@dataclass(frozen=True, kw_only=True)
class LinearRelation:
    """A weighted sum of columns has a least or a greatest value.

    >>> list(LinearRelation(terms={"paid": 1, "billed": -1}, at_most=0).halfspaces())
    [({'paid': 1, 'billed': -1}, 0)]
    """

    kind: Literal["linear"] = "linear"
    terms: dict[str, float]
    """The weight of each column that takes part."""
    at_most: float | None = None
    """Largest value of the sum."""
    at_least: float | None = None
    """Smallest value of the sum."""

    def __post_init__(self) -> None:
        _check_bounds(self.at_least, self.at_most)
        if not self.terms or not all(w != 0 and math.isfinite(w) for w in self.terms.values()):
            raise BadArgument(f"terms={self.terms} must give columns weights that are not 0")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that take part."""
        return tuple(self.terms)

    def halfspaces(self) -> Iterator[Halfspace]:
        """The relation as upper bounds on weighted sums."""
        if self.at_most is not None:
            yield dict(self.terms), self.at_most
        if self.at_least is not None:
            yield {name: -weight for name, weight in self.terms.items()}, -self.at_least


@dataclass(frozen=True, kw_only=True)
class RatioRelation:
    """One column divided by another has a least or a greatest value.

    It is read without a division, `of <= at_most * over`, which is the same where `over` is
    positive; so `over` has to be a column that is never negative. Where it is 0, `of` is at most 0.

    >>> list(RatioRelation(of="debt", over="income", at_most=4).halfspaces())
    [({'debt': 1.0, 'income': -4}, 0.0)]
    """

    kind: Literal["ratio"] = "ratio"
    of: str
    """The column above the line."""
    over: str
    """The column below the line, at least 0."""
    at_most: float | None = None
    """Largest ratio."""
    at_least: float | None = None
    """Smallest ratio."""

    def __post_init__(self) -> None:
        _check_bounds(self.at_least, self.at_most)
        if self.of == self.over:
            raise BadArgument(f"of={self.of!r} and over={self.over!r} must be two columns")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that take part."""
        return (self.of, self.over)

    def halfspaces(self) -> Iterator[Halfspace]:
        """The relation as upper bounds on weighted sums."""
        if self.at_most is not None:
            yield _nonzero({self.of: 1.0, self.over: -self.at_most}), 0.0
        if self.at_least is not None:
            yield _nonzero({self.of: -1.0, self.over: self.at_least}), 0.0


RelationOption = LinearRelation | RatioRelation


def _nonzero(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight}


def _check_bounds(least: float | None, most: float | None) -> None:
    for name, value in (("at_least", least), ("at_most", most)):
        if value is not None and not math.isfinite(value):
            raise BadArgument(f"{name}={value} must be finite; leave it out for no bound")
    if least is None and most is None:
        raise BadArgument("at_most=None and at_least=None bound nothing: give one of them")
    if least is not None and most is not None and least > most:
        raise BadArgument(f"at_least={least} must not be above at_most={most}")
