"""What holds between the columns of a row, in their own units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nacre.core import require
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
        require.not_infinite(**{f"terms[{name!r}]": weight for name, weight in self.terms.items()})
        if not self.terms or not all(self.terms.values()):
            raise BadArgument("terms must give each column a weight that is finite and not 0")

    @property
    def columns(self) -> Mapping[str, str]:
        """Key -> the column that takes part there."""
        return {f"terms.{name}": name for name in self.terms}

    def sentence(self) -> str:
        """The sum and its bounds, as `paid - 2 billed at most 0`."""
        shown = [
            (weight < 0, f"{abs(weight):g} {name}" if abs(weight) != 1 else name)
            for name, weight in self.terms.items()
        ]
        words = "".join(f" {'-' if negative else '+'} {term}" for negative, term in shown)
        return f"{words.removeprefix(' + ').strip()} {_bounds_in_words(self)}"

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

    def sentence(self) -> str:
        """The ratio and its bounds, as `debt / income from 0 to 4`."""
        return f"{self.of} / {self.over} {_bounds_in_words(self)}"

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


def contradictory(
    relations: Sequence[RelationOption], low: Mapping[str, float], high: Mapping[str, float]
) -> tuple[int, ...]:
    """The places of relations that no values between `low` and `high` keep together, of which none
    can be spared; () where there are none.

    >>> less = LinearRelation(terms={"a": 1, "b": -1}, at_most=-1)
    >>> more = RatioRelation(of="a", over="b", at_least=2)
    >>> ends = {"a": 0.0, "b": 0.0}, {"a": 9.0, "b": math.inf}
    >>> contradictory([less, LinearRelation(terms={"a": 1}, at_most=5), more], *ends)
    (0, 2)
    """
    found = _refuted(relations, range(len(relations)), low, high)
    for place in found:
        others = [other for other in found if other != place]
        if others and len(others) < len(found):
            found = _refuted(relations, others, low, high) or found
    return found


def _refuted(
    relations: Sequence[RelationOption],
    places: Sequence[int],
    low: Mapping[str, float],
    high: Mapping[str, float],
) -> tuple[int, ...]:
    """Which of the relations at these places take part in a proof that no values keep them all; ()
    without one.

    *Proof (Farkas' lemma):* whatever keeps several bounds keeps their sum, each times a number that
    is not negative; so nothing keeps them where nothing keeps the sum. A linear program proposes
    the numbers, and the sum is judged without it.
    """
    bounds = [(place, *one) for place in places for one in relations[place].halfspaces()]
    names = sorted({name for _, weights, _ in bounds for name in weights})
    sizes = {name: _size(low[name], high[name]) for name in names}
    factors = _multipliers([(weights, bound) for _, weights, bound in bounds], low, high, sizes)
    total = math.fsum(f * bound for f, (_, _, bound) in zip(factors, bounds, strict=True))
    lost = math.fsum(abs(f * bound) for f, (_, _, bound) in zip(factors, bounds, strict=True))
    summed: dict[str, float] = {}
    for name in names:
        parts = [f * w.get(name, 0.0) for f, (_, w, _) in zip(factors, bounds, strict=True)]
        gross, net = math.fsum(map(abs, parts)), math.fsum(parts)
        lost += gross * sizes[name]
        if abs(net) > _CANCELLED * gross:
            summed[name] = net
    if _above(total + _CANCELLED * lost, summed, low, high) is None:
        return ()
    taken = {place for f, (place, _, _) in zip(factors, bounds, strict=True) if f > 0}
    return tuple(sorted(taken))


_CANCELLED = 1e-9
"""Relative to what is added up: how near to 0 a sum may be and still be rounding."""


def _multipliers(
    bounds: Sequence[Halfspace],
    low: Mapping[str, float],
    high: Mapping[str, float],
    sizes: Mapping[str, float],
) -> list[float]:
    """What to multiply each bound by so that the sum is as far as can be from being kept, of
    bounds in their own largest terms: the prices of the least excess that all can share."""
    import numpy as np
    from scipy.optimize import linprog  # a third of a second to import

    names = list(sizes)
    weights = np.array([[one.get(name, 0.0) * sizes[name] for name in names] for one, _ in bounds])
    largest = np.abs(weights).max(axis=1, keepdims=True)
    most = np.array([[bound] for _, bound in bounds])
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scaled, limits = weights / largest, most / largest
    if not (np.isfinite(scaled).all() and np.isfinite(limits).all()):
        return [0.0] * len(bounds)  # beyond what numbers can say: no proof
    found = linprog(
        [*[0.0] * len(names), 1.0],
        A_ub=np.hstack([scaled, -np.ones_like(largest)]),
        b_ub=limits,
        bounds=[*((low[n] / sizes[n], high[n] / sizes[n]) for n in names), (0, None)],
    )
    if found.status != 0:  # no answer is no proof
        return [0.0] * len(bounds)
    prices = np.maximum(-found.ineqlin.marginals, 0.0)
    return (prices / largest[:, 0]).tolist()


def _size(low: float, high: float) -> float:
    """The largest finite number between the ends, by its size; 1 where there is none above 0."""
    return max((abs(end) for end in (low, high) if math.isfinite(end) and end), default=1.0)


def _bounds_in_words(relation: RelationOption) -> str:
    least, most = relation.at_least, relation.at_most
    if least is None or most is None:
        return f"at most {most:g}" if most is not None else f"at least {least:g}"
    return f"from {least:g} to {most:g}"


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
    require.not_infinite("; leave it out for no bound", at_least=least, at_most=most)
    if least is None and most is None:
        raise BadArgument("neither `at_most` nor `at_least` is given: give one of them")
    if least is not None and most is not None and least > most:
        raise BadArgument(f"at_least={least} must not be above at_most={most}")
