"""What can be asked of a table under differential privacy, and what each question declares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nacre.core.errors import BadArgument

LEAST = 1e-9
"""The smallest epsilon of a query: doubles near 1, by which it is priced, have no more digits."""

MOST_DELTA = 0.01
"""The largest delta of a query: the chance that all it promises to somebody fails."""

OTHER = "other"
"""What a value that was not declared counts as."""


@dataclass(frozen=True, kw_only=True)
class _Query:
    """What every query declares."""

    name: str
    """What the answer is called in the report and in the ledger."""
    epsilon: float
    """What the answer may cost."""
    delta: float = 0.0
    """0 for Laplace noise; above 0 for Gaussian noise, within (epsilon, delta)."""
    unit: str | None = None
    """The column that names the person; None where every row is another person."""
    rows_per_unit: int = 1
    """The most rows that one person may have; rows beyond it are left out by a keyed draw."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise BadArgument(f"name={self.name!r} must be a name: it tells the answers apart")
        if not 0 < self.epsilon < math.inf:
            raise BadArgument(
                f"epsilon={self.epsilon} must be > 0 and finite; 0.1 to 1 is usual for a query"
            )
        if self.epsilon < LEAST:
            raise BadArgument(
                f"epsilon={self.epsilon} must be at least {LEAST:g}: less has no price"
            )
        if not 0 <= self.delta <= MOST_DELTA:
            raise BadArgument(
                f"delta={self.delta:g} must be at least 0 and at most {MOST_DELTA:g}: with this "
                "chance the promise fails; choose it well below 1 / number of people"
            )
        if self.rows_per_unit < 1:
            raise BadArgument(f"rows_per_unit={self.rows_per_unit} must be at least 1")
        if self.unit is None and self.rows_per_unit > 1:
            raise BadArgument(
                f"rows_per_unit={self.rows_per_unit} needs `unit`, the person's column"
            )


_WIDEST = 1e100
"""How far from 0 a range may lie, and how narrow it may be, as one over it: squares of its ends,
and a 2**30th of its width, are still doubles."""


def check_range(low: float, high: float) -> None:
    """Raises `ValueError` for a range that no noise can be made for."""
    if not -math.inf < low < high < math.inf:
        raise BadArgument(f"low={low} and high={high} must be finite and in order")
    if max(abs(low), abs(high)) > _WIDEST or high - low < 1 / _WIDEST:
        raise BadArgument(
            f"low={low} and high={high} must lie within {_WIDEST:g} of 0, and "
            f"{1 / _WIDEST:g} apart at least"
        )


def _check_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise BadArgument(f"size={size} must be at least 1")


def _check_categories(name: str, categories: Sequence[str]) -> None:
    if len(set(categories)) < len(categories):
        raise BadArgument(f"{name}={tuple(categories)} must differ from each other")


def _check_bars(name: str, categories: Sequence[str]) -> None:
    _check_categories(name, categories)
    if OTHER in categories:
        raise BadArgument(
            f"{name}={tuple(categories)} may not hold {OTHER!r}, which is where all values go that "
            "are not declared; leave it out"
        )


@dataclass(frozen=True, kw_only=True)
class _Grouped(_Query):
    """A query that may be asked of each group of rows."""

    by: str | None = None
    """A column: each of its declared `groups` gets an answer of its own, at the price of one, since
    a row is in one group at most. Rows of other groups count in none."""
    groups: tuple[str, ...] = ()
    """The values of `by` that get an answer, known beforehand and not taken from the rows."""
    groups_from: str | None = None
    """Instead of `groups`: the name of a query of kind `keys` before this one, about the same
    column, whose keys are the groups."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups and self.groups_from is not None:
            raise BadArgument("groups and groups_from exclude each other; keep one")
        if (self.by is None) != (not self.groups and self.groups_from is None):
            raise BadArgument("by and groups need each other: name the column and its values")
        _check_categories("groups", self.groups)


@dataclass(frozen=True, kw_only=True)
class Count(_Grouped):
    """How many rows there are."""

    kind: Literal["count"] = "count"


@dataclass(frozen=True, kw_only=True)
class Sum(_Grouped):
    """The sum of a column."""

    kind: Literal["sum"] = "sum"
    column: str
    """Which column."""
    low: float
    """The smallest value a row may contribute; smaller ones are raised to it."""
    high: float
    """The largest value a row may contribute; larger ones are lowered to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Mean(_Grouped):
    """The mean of a column: half of the budget for the sum, half for the count (it is private)."""

    kind: Literal["mean"] = "mean"
    column: str
    """Which column."""
    low: float
    """The smallest value a row may contribute; smaller ones are raised to it."""
    high: float
    """The largest value a row may contribute; larger ones are lowered to it."""
    size: int | None = None
    """A public number of rows: the divisor, and the whole budget goes to the sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.low, self.high)
        _check_size(self.size)


@dataclass(frozen=True, kw_only=True)
class Variance(_Grouped):
    """The variance of a column (the mean square around its mean): a third of the budget each for
    the sum, the sum of squares, and the count."""

    kind: Literal["variance"] = "variance"
    column: str
    """Which column."""
    low: float
    """The smallest value a row may contribute; smaller ones are raised to it."""
    high: float
    """The largest value a row may contribute; larger ones are lowered to it."""
    size: int | None = None
    """A public number of rows: the divisor, and half of the budget goes to each sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.low, self.high)
        _check_size(self.size)


@dataclass(frozen=True, kw_only=True)
class Quantiles(_Grouped):
    """Quantiles of a column, all from one noised histogram of narrow cells: as many as you like at
    the price of one, each to about the width of a cell."""

    kind: Literal["quantiles"] = "quantiles"
    column: str
    """Which column."""
    low: float
    """Where the first cell begins; what lies below counts to it."""
    high: float
    """Where the last cell ends; what lies above counts to it."""
    cells: int = 100
    """Cells of equal width. More are finer and noisier: a quantile adds up the noise of all."""
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Which quantiles, each the value that this share of the rows lies below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.low, self.high)
        if not 2 <= self.cells <= 10_000:
            raise BadArgument(f"cells={self.cells} must lie between 2 and 10000")
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise BadArgument(f"shares={self.shares} must hold numbers between 0 and 1")
        if not _increasing(self.shares):
            raise BadArgument(f"shares={self.shares} must increase")


@dataclass(frozen=True, kw_only=True)
class Contingency(_Query):
    """How many rows have each combination of several columns' categories."""

    kind: Literal["contingency"] = "contingency"
    columns: dict[str, tuple[str, ...]]
    """Column: its categories. Any other value goes to "other", which each column has as well; a row
    without a value in one of the columns counts nowhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns:
            raise BadArgument("columns must name at least one column")
        for name, categories in self.columns.items():
            if not categories:
                raise BadArgument(f"column {name!r} needs at least one category")
            _check_bars(f"columns.{name}", categories)
        combinations = math.prod(len(categories) + 1 for categories in self.columns.values())
        if combinations > 100_000:
            raise BadArgument(f"columns have {combinations} combinations; 100000 are the most")


@dataclass(frozen=True, kw_only=True)
class Histogram(_Query):
    """How many rows fall into each bar: between edges, or one bar a category and one for others."""

    kind: Literal["histogram"] = "histogram"
    column: str
    """Which column."""
    edges: tuple[float, ...] = ()
    """Increasing borders of the bars, each counted to the bar above it; what lies outside goes to
    the first or last bar."""
    categories: tuple[str, ...] = ()
    """The values that have a bar; any other value goes to the last one, "other"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.edges) == bool(self.categories):
            raise BadArgument("a histogram needs either `edges` or `categories`")
        if self.edges and (len(self.edges) < 2 or not _increasing(self.edges)):
            raise BadArgument(f"edges={self.edges} must be at least two increasing finite numbers")
        _check_bars("categories", self.categories)


@dataclass(frozen=True, kw_only=True)
class Keys(_Query):
    """Which values a column has, and how many rows each, where they cannot be declared: only those
    that enough rows have. Rarer ones are missing, and a value of one person alone is shown with a
    chance of at most `delta`. Needs an account granted under `rule: pld`."""

    kind: Literal["keys"] = "keys"
    column: str
    """Which column."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.delta > 0:
            raise BadArgument(
                f"delta={self.delta} must be above 0: a value that one person alone has may be "
                "shown with this chance; 1e-6 is usual, far below 1 over the number of people"
            )


@dataclass(frozen=True, kw_only=True)
class Choice(_Query):
    """The most frequent of a column's declared categories, its number of rows not told: much
    cheaper than their counts."""

    kind: Literal["choice"] = "choice"
    column: str
    """Which column."""
    categories: tuple[str, ...]
    """The values to choose from; rows with others count for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.categories) < 2:
            raise BadArgument(f"categories={self.categories} must be at least two")
        _check_categories("categories", self.categories)


def _increasing(edges: Sequence[float]) -> bool:
    finite = all(math.isfinite(edge) for edge in edges)
    return finite and all(a < b for a, b in itertools.pairwise(edges))


QueryOption = Count | Sum | Mean | Variance | Quantiles | Histogram | Contingency | Keys | Choice
"""Every query that can be asked."""
