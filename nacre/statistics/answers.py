# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""Noising about a table under differential privacy: counts, means, quantiles, cross tables.

A query is declared, then priced (`query_event`, which reads no row), then answered. The noise is
drawn from the operating system (`nacre.statistics.noisy_numbers`): an answer asked for twice is
two releases, and the ledger charges both.

What happens to a row before it counts depends on that row alone: a missing value is left out, a
number outside its declared range is clamped, a category that was not declared counts as "other",
and 1 is named as 1.0 is, which pandas makes of it where another row has no value.

*Why all groups of a query cost as much as one:* each row is in one group at most. A person whose k
rows are spread over groups, k1 + k2 + … = k, costs epsilon (k1 + k2 + …) / k = epsilon under
Laplace noise, and rho (k1² + k2² + …) / k² <= rho under Gaussian noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nacre.core.errors import DataError
from nacre.core.random import Source
from nacre.data.readers import text
from nacre.differential_privacy.leaves import pure_event
from nacre.differential_privacy.queries import (
    OTHER,
    Choice,
    Contingency,
    Count,
    Histogram,
    Keys,
    Mean,
    Quantiles,
    QueryOption,
    Sum,
    Variance,
)
from nacre.statistics.choosing import choose, shown_keys
from nacre.statistics.frames import places_among
from nacre.statistics.noisy_numbers import (
    CONFIDENCE,
    DRAWN,
    Noising,
    NoisyNumbers,
    margin,
    rho,
    strays,
)

if TYPE_CHECKING:
    import pandas as pd
    from dp_accounting import DpEvent


@dataclass(frozen=True)
class Answer:
    """A release: values with their noise's scale, 95 % intervals, and the event to charge.

    Each interval covers the number that would have been released without noise (of the rows that
    were kept, clamped), with probability 0.95 over the noise, bar by bar.
    """

    name: str
    labels: tuple[str, ...]  # one a value; ("",) for a single number; of a choice, what was chosen
    values: tuple[float, ...]
    scale: float  # of the noise on a sum or count: Laplace scale, or deviation
    low: tuple[float, ...]
    high: tuple[float, ...]
    event: DpEvent

    @property
    def value(self) -> float:
        """The number, where the answer is one."""
        if len(self.values) != 1:
            raise ValueError(f"the answer {self.name!r} has {len(self.values)} values")
        return self.values[0]


def query_event(query: QueryOption) -> DpEvent:
    """What the answer will reveal at most about one person; known before a row is read.

    Laplace: any mechanism of that pure epsilon. Gaussian: zero-concentrated privacy, which is what
    OpenDP proves for its discrete sampler.
    """
    import dp_accounting

    from nacre.differential_privacy.event_types import ApproximateDpEvent

    parts = _parts(query)
    if isinstance(query, Keys):
        return ApproximateDpEvent(query.epsilon, query.delta)
    if query.delta == 0:
        each = pure_event(query.epsilon / parts)
    else:
        each = dp_accounting.ZCDpEvent(rho(query.epsilon, query.delta) / parts)
    return dp_accounting.SelfComposedDpEvent(each, parts)


def joint_event(queries: Sequence[QueryOption]) -> DpEvent:
    """What the answers to several queries reveal together at most; of one, its own event."""
    import dp_accounting

    events = [query_event(query) for query in queries]
    return events[0] if len(events) == 1 else dp_accounting.ComposedDpEvent(events)


def answer(
    table: pd.DataFrame,
    query: QueryOption,
    source: Source | None = None,
    numbers: Noising = DRAWN,
) -> Answer:
    """The noised answer. `source` keys which rows of a person are kept, nothing else. `numbers`
    noises the counts and sums, which are asked of it in an order that follows from the query alone.

    Raises `DataError` where a column is missing or is not a number.
    """
    kept = _bounded(table, query, source or Source.fresh())
    if isinstance(query, Histogram | Contingency | Keys | Choice) or query.by is None:
        return _whole(kept, query, numbers)
    if query.groups_from is not None:
        raise ValueError(
            f"groups_from={query.groups_from!r} has to be answered before: `grouped_by`"
        )
    of = _column(kept, query.by).map(text, na_action="ignore")
    found = [
        _whole(kept.iloc[np.flatnonzero(of == group)], query, numbers) for group in query.groups
    ]
    labels = (
        f"{group}: {label}" if label else group
        for group, each in zip(query.groups, found, strict=True)
        for label in each.labels
    )

    def all_of(name: str) -> tuple[float, ...]:
        return tuple(value for each in found for value in getattr(each, name))

    return replace(
        found[0], labels=tuple(labels), values=all_of("values"), low=all_of("low"),
        high=all_of("high"),
    )  # fmt: skip


def grouped_by(query: QueryOption, answers: Sequence[Answer]) -> QueryOption:
    """The query with the keys of the answer that it names as its groups; others as they are.

    The keys were released, so the price is that of declared groups. Where no key was found there
    is nothing to ask of: `no_answer`.
    """
    name = getattr(query, "groups_from", None)
    if name is None:
        return query
    keys = next(answer.labels for answer in answers if answer.name == name)
    return replace(query, groups=keys, groups_from=None) if keys else query


def no_answer(query: QueryOption) -> Answer:
    """The answer to a query about groups of which there is none."""
    return Answer(query.name, (), (), 0.0, (), (), query_event(query))


def _whole(rows: pd.DataFrame, query: QueryOption, ask: Noising) -> Answer:
    """The answer about all these rows."""
    match query:
        case Count():
            return _answer(query, ask.count(len(rows), query, 1))
        case Sum():
            numbers = _numbers(rows, query.column)
            return _answer(query, ask.total(numbers, query.low, query.high, query, 1))
        case Mean():
            return _mean(_numbers(rows, query.column), query, ask)
        case Variance():
            return _variance(_numbers(rows, query.column), query, ask)
        case Quantiles():
            return _quantiles(_numbers(rows, query.column), query, ask)
        case Histogram():
            return _histogram(rows, query, ask)
        case Contingency():
            return _contingency(rows, query, ask)
        case Keys():
            return _keys(rows, query)
        case Choice():
            return _choice(rows, query)


def _parts(query: QueryOption) -> int:
    """Into how many releases the budget is split."""
    match query:
        case Mean():
            return 2 if query.size is None else 1
        case Variance():
            return 3 if query.size is None else 2
        case _:
            return 1


# -- which rows count, and as what ---------------------------------------------------------------


def _column(table: pd.DataFrame, name: str) -> Any:  # a Series; pandas has no types
    """The column. Raises `DataError` for none, and for two of one name: a row would count twice."""
    if name not in table.columns:
        raise DataError(f"the table has no column {name!r}; it has {list(table.columns)}")
    found = table[name]
    if found.ndim != 1:
        raise DataError(
            f"the table has column {name!r} twice, so it is unclear which one is meant; rename one"
        )
    return found


def _bounded(table: pd.DataFrame, query: QueryOption, source: Source) -> pd.DataFrame:
    """At most `rows_per_unit` rows of each person, the first in an order drawn by `source`.

    A person that is added or removed changes at most that many of the rows that are kept, because
    the order within a person is keyed by the person. Rows that name no person are left out.
    """
    if query.unit is None:
        return table
    people = _column(table, query.unit)
    chosen: list[int] = []
    for person, places in people.groupby(people, sort=False).indices.items():
        order = source.child("rows_per_unit", str(person)).stream().permutation(len(places))
        chosen.extend(int(places[i]) for i in order[: query.rows_per_unit].tolist())
    return table.iloc[sorted(chosen)]


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) float64, rows without a value left out."""
    values = _column(table, column)
    try:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {column!r} holds values that are not numbers") from error
    return numbers[~np.isnan(numbers)]


# -- answers -------------------------------------------------------------------------------------


def _answer(query: QueryOption, noised: NoisyNumbers, labels: tuple[str, ...] = ("",)) -> Answer:
    low = tuple(value - noised.margin for value in noised.values)
    high = tuple(value + noised.margin for value in noised.values)
    event = query_event(query)
    return Answer(query.name, labels, noised.values, noised.scale, low, high, event)


@dataclass(frozen=True)
class _Between:
    """A number and its interval."""

    value: float
    low: float
    high: float

    def over(self, rows: _Between) -> _Between:
        """This number a row; `rows` are at least 1."""
        ends = [end / count for end in (self.low, self.high) for count in (rows.low, rows.high)]
        return _Between(self.value / rows.value, min(ends), max(ends))


def _around(noised: NoisyNumbers) -> _Between:
    (value,) = noised.values
    return _Between(value, value - noised.margin, value + noised.margin)


def _rows(
    count: int, query: Mean | Variance, parts: int, confidence: float, ask: Noising
) -> _Between:
    """How many rows there are: what was declared, else a noised count."""
    if query.size is not None:
        return _Between(query.size, query.size, query.size)
    found = _around(ask.count(count, query, parts, confidence))
    return _Between(max(1.0, found.value), max(1.0, found.low), max(1.0, found.high))


def _mean(numbers: np.ndarray, query: Mean, ask: Noising) -> Answer:
    """middle + sum of (number - middle) / count, brought into the range.

    Around the middle of the range one row moves the sum by half the range only. The interval holds
    jointly: numerator and denominator miss with half of the error probability each.
    """
    middle, parts = (query.low + query.high) / 2, _parts(query)
    each = 1 - (1 - CONFIDENCE) / parts
    reach = query.high - middle
    noised = ask.total(numbers - middle, -reach, reach, query, parts, each)
    mean = _around(noised).over(_rows(len(numbers), query, parts, each, ask))

    def inside(offset: float) -> tuple[float]:
        return (min(max(middle + offset, query.low), query.high),)

    value, low, high = inside(mean.value), inside(mean.low), inside(mean.high)
    return Answer(query.name, ("",), value, noised.scale, low, high, query_event(query))


def _variance(numbers: np.ndarray, query: Variance, ask: Noising) -> Answer:
    """Mean square minus squared mean, both around the middle of the range; joint as `_mean`."""
    middle, parts = (query.low + query.high) / 2, _parts(query)
    each = 1 - (1 - CONFIDENCE) / parts
    reach = query.high - middle
    offsets = np.clip(numbers - middle, -reach, reach)
    rows = _rows(len(numbers), query, parts, each, ask)
    mean = _around(ask.total(offsets, -reach, reach, query, parts, each)).over(rows)
    noised = ask.total(np.square(offsets), 0.0, reach**2, query, parts, each)
    square = _around(noised).over(rows)
    most = max(mean.low**2, mean.high**2)
    least = 0.0 if mean.low <= 0 <= mean.high else min(mean.low**2, mean.high**2)

    def inside(value: float) -> tuple[float]:
        return (min(max(value, 0.0), reach**2),)

    value = inside(square.value - mean.value**2)
    low, high = inside(square.low - most), inside(square.high - least)
    return Answer(query.name, ("",), value, noised.scale, low, high, query_event(query))


def _quantiles(numbers: np.ndarray, query: Quantiles, ask: Noising) -> Answer:
    """Where the noised rows below reach each share, and every cell that may be the one.

    The cell k that holds the quantile has `rows up to its end - share * all rows >= 0`, and the
    cell before it has not; each of the two is tested with half of the error probability.
    """
    edges = np.linspace(query.low, query.high, query.cells + 1)
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, query.cells - 1)
    noised = ask.histogram([int(place) for place in places], query.cells, query)
    counts = np.array(noised.values)
    below = np.concatenate([[0.0], np.cumsum(counts)])  # rows below each edge
    rising = np.maximum.accumulate(np.clip(below, 0.0, None))
    before = np.arange(query.cells + 1)
    sides = np.stack([before, query.cells - before], 1)  # cells below and above each edge
    found: list[_Between] = []
    for share in query.shares:
        weights = np.array([1 - share, -share])
        margin = strays(weights, sides, noised.scale, query.delta > 0, (1 - CONFIDENCE) / 2)
        excess = below - share * below[-1]
        first = int(np.argmax((excess >= -margin)[1:]))  # the last edge always may
        last = query.cells - 1 - int(np.argmax((excess <= margin)[-2::-1]))
        value = float(np.interp(share * rising[-1], rising, edges)) if rising[-1] > 0 else edges[0]
        low, high = float(edges[first]), float(edges[max(first, last) + 1])
        found.append(_Between(min(max(value, low), high), low, high))
    labels = tuple(f"share {share:g}" for share in query.shares)
    return Answer(
        query.name, labels, tuple(q.value for q in found), noised.scale,
        tuple(q.low for q in found), tuple(q.high for q in found), query_event(query),
    )  # fmt: skip


def _histogram(table: pd.DataFrame, query: Histogram, ask: Noising) -> Answer:
    if query.edges:
        bars = len(query.edges) - 1
        numbers = _numbers(table, query.column)
        found = np.clip(np.searchsorted(query.edges, numbers, side="right") - 1, 0, bars - 1)
        labels = tuple(f"{a:g} to {b:g}" for a, b in itertools.pairwise(query.edges))
        noised = ask.histogram([int(place) for place in found], bars, query)
        return _answer(query, noised, labels)
    present = _column(table, query.column).dropna()
    places = places_among(present, query.categories)
    noised = ask.histogram(places, len(query.categories) + 1, query)
    return _answer(query, noised, (*query.categories, OTHER))


def _contingency(table: pd.DataFrame, query: Contingency, ask: Noising) -> Answer:
    present = table[[name for name in query.columns if _column(table, name) is not None]].dropna()
    places = [0] * len(present)
    for name, categories in query.columns.items():
        bars = len(categories) + 1
        found = zip(places, places_among(present[name], categories), strict=True)
        places = [bars * place + own for place, own in found]
    crossed = itertools.product(*((*known, OTHER) for known in query.columns.values()))
    labels = tuple(" × ".join(values) for values in crossed)
    return _answer(query, ask.histogram(places, len(labels), query), labels)


def _keys(table: pd.DataFrame, query: Keys) -> Answer:
    """Rare keys are shown only where the noise was high, so what is shown of them lies too high:
    that a key is shown *and* its interval misses has a probability of at most 5 %."""
    present = [text(value) for value in _column(table, query.column).dropna()]
    found, scale, _ = shown_keys(present, query.epsilon, query.delta, query.rows_per_unit)
    values = tuple(float(count) for count in found.values())
    noised = NoisyNumbers(values, scale, margin(scale, CONFIDENCE, False))
    return _answer(query, noised, tuple(found))


def _choice(table: pd.DataFrame, query: Choice) -> Answer:
    present = _column(table, query.column).dropna()
    places = places_among(present, query.categories)
    counts = [places.count(place) for place in range(len(query.categories))]
    chosen = choose(
        counts, query.epsilon, query.delta, sensitivity=query.rows_per_unit, monotonic=True
    )
    return Answer(query.name, (query.categories[chosen],), (), 0.0, (), (), query_event(query))
