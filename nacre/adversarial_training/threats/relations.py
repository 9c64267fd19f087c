"""What holds between the columns of a row, in their own units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nacre.core.errors import BadArgument

Halfspace = tuple[dict[str, float], float]
"""(weight of each column, bound): the weighted sum of the columns is at most the bound."""

BoundFault = tuple[str, str]
"""(key under the relation, what is wrong with what stands there)"""


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
            raise BadArgument("terms must give each column a weight that is finite and not 0")

    @property
    def columns(self) -> Mapping[str, str]:
        """Key -> the column that takes part there."""
        return {f"terms.{name}": name for name in self.terms}

    def halfspaces(self) -> Iterator[Halfspace]:
        """The relation as upper bounds on weighted sums: of `at_most`, then of `at_least`."""
        if self.at_most is not None:
            yield dict(self.terms), self.at_most
        if self.at_least is not None:
            yield {name: -weight for name, weight in self.terms.items()}, -self.at_least

    def impossible(
        self, low: Mapping[str, float], high: Mapping[str, float]
    ) -> Iterator[BoundFault]:
        """(key, what is wrong) of each bound that no values between `low` and `high` keep."""
        for key, (weights, bound) in zip(_given(self), self.halfspaces(), strict=True):
            least = _above(bound, weights, low, high)
            if least is not None:
                end = f"at least {least:g}" if key == "at_most" else f"at most {0 - least:g}"
                yield (
                    key,
                    (
                        f"the declared ranges make the sum {end}, so no row keeps "
                        f"{key}={getattr(self, key):g}: mend the bound or a weight"
                    ),
                )


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
    def columns(self) -> Mapping[str, str]:
        """Key -> the column that takes part there."""
        return {"of": self.of, "over": self.over}

    def halfspaces(self) -> Iterator[Halfspace]:
        """The relation as upper bounds on weighted sums: of `at_most`, then of `at_least`."""
        if self.at_most is not None:
            yield _nonzero({self.of: 1.0, self.over: -self.at_most}), 0.0
        if self.at_least is not None:
            yield _nonzero({self.of: -1.0, self.over: self.at_least}), 0.0

    def impossible(
        self, low: Mapping[str, float], high: Mapping[str, float]
    ) -> Iterator[BoundFault]:
        """(key, what is wrong) of each bound that no values between `low` and `high` keep."""
        for key, (weights, bound) in zip(_given(self), self.halfspaces(), strict=True):
            if _above(bound, weights, low, high) is not None:
                ranges = (
                    f"{name!r} between {low[name]:g} and {high[name]:g}"
                    for name in (self.of, self.over)
                )
                value = getattr(self, key)
                yield (
                    key,
                    (
                        f"the declared ranges have {' and '.join(ranges)}, so no row keeps "
                        f"{key}={value:g}: mend the bound, or exchange the two columns"
                    ),
                )


RelationOption = LinearRelation | RatioRelation


def _nonzero(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight}


def _given(relation: RelationOption) -> list[str]:
    """The keys of its bounds, in the order of its halfspaces."""
    return [key for key in ("at_most", "at_least") if getattr(relation, key) is not None]


def _above(
    bound: float, weights: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float]
) -> float | None:
    """The least value of the weighted sum where it is above the bound by more than rounding."""
    parts = [w * (low[name] if w > 0 else high[name]) for name, w in weights.items()]
    least = sum(parts)
    return least if least - _ROUNDING * sum(map(abs, parts)) > bound else None


_ROUNDING = 1e-6
"""Relative; ranges that are not declared in float64 are those of float32 inputs."""


def _check_bounds(least: float | None, most: float | None) -> None:
    for name, value in (("at_least", least), ("at_most", most)):
        if value is not None and not math.isfinite(value):
            raise BadArgument(f"{name}={value} must be finite; leave it out for no bound")
    if least is None and most is None:
        raise BadArgument("neither `at_most` nor `at_least` is given: give one of them")
    if least is not None and most is not None and least > most:
        raise BadArgument(f"at_least={least} must not be above at_most={most}")
