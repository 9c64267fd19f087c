# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""Noised counts and sums by OpenDP, with how far the noise strays.

OpenDP's samplers are exact, on integers, under its own proofs, so floating-point attacks on the
noise (Mironov 2012) do not reach it. Noising are rounded to a 2**30th of their range and added as
integers, whose sensitivity is exact. Noise is drawn from the operating system.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nacre.differential_privacy.accounting.analytic import root
from nacre.differential_privacy.accounting.rdp import ORDERS, rdp_epsilon
from nacre.differential_privacy.queries import QueryOption

CONFIDENCE = 0.95
"""Of every interval."""

_CELLS = 2**30
"""Grid cells from the middle of a range to its end; 2**33 rows still add up within 64 bits."""


@dataclass(frozen=True)
class NoisyNumbers:
    """Released numbers, the noise's scale, and half the width of an interval around each."""

    values: tuple[float, ...]
    scale: float  # Laplace scale, or deviation
    margin: float


@functools.lru_cache
def rho(epsilon: float, delta: float) -> float:
    """The largest rho whose curve `order * rho` stays within (epsilon, delta)."""

    def excess(log_rho: float) -> float:
        curve = [order * math.exp(log_rho) for order in ORDERS]
        return rdp_epsilon(curve, ORDERS, delta) - epsilon

    low = high = math.log(epsilon)
    low -= 50  # nothing but delta's share is left of the price there
    if excess(low) > 0:
        raise ValueError(f"epsilon={epsilon} is too small for Gaussian noise at delta={delta}")
    while excess(high) < 0:
        high += 1
    return math.exp(root(excess, low, high)) * (1 - 1e-9)


@contextlib.contextmanager
def opendp() -> Generator[Any]:
    """OpenDP's prelude, its vetted `contrib` constructors switched on for the block."""
    import opendp.prelude as dp
    from opendp.mod import GLOBAL_FEATURES, enable_features

    before = set(GLOBAL_FEATURES)
    enable_features("contrib")
    try:
        yield dp
    finally:
        GLOBAL_FEATURES.intersection_update(before)


def noisy_aggregate(
    query: QueryOption,
    parts: int,
    aggregate: Callable[[Any], Any],  # OpenDP -> its transformation from integer rows
    rows: list[int],
    confidence: float = CONFIDENCE,
) -> NoisyNumbers:
    """The noised aggregate, with the least scale that OpenDP's stability map allows the budget."""
    with opendp() as dp:
        start = dp.vector_domain(dp.atom_domain(T="i64")), dp.symmetric_distance()
        transformation = start >> aggregate(dp)
        gaussian = query.delta > 0
        noise = dp.m.then_gaussian if gaussian else dp.m.then_laplace
        share = rho(query.epsilon, query.delta) if gaussian else query.epsilon

        def measurement(scale: float) -> Any:
            return transformation >> noise(scale)

        scale = dp.binary_search_param(measurement, query.rows_per_unit, share / parts)
        released = _drawn(measurement(scale), transformation, rows)
    values = released if isinstance(released, list) else [released]
    return NoisyNumbers(tuple(float(v) for v in values), scale, margin(scale, confidence, gaussian))


def noised_wholes(
    values: list[int],
    moved: int,  # by one unit at most, all together: in L1, and so in L2
    query: QueryOption,
    parts: int,
    confidence: float = CONFIDENCE,
) -> NoisyNumbers:
    """Whole numbers with noise, by the least scale that OpenDP's privacy map allows the budget."""
    with opendp() as dp:
        gaussian = query.delta > 0
        distance = dp.l2_distance(T="i64") if gaussian else dp.l1_distance(T="i64")
        start = dp.vector_domain(dp.atom_domain(T="i64")), distance
        noise = dp.m.then_gaussian if gaussian else dp.m.then_laplace
        share = rho(query.epsilon, query.delta) if gaussian else query.epsilon

        def measurement(scale: float) -> Any:
            return start >> noise(scale)

        scale = dp.binary_search_param(measurement, moved, share / parts)
        released = _drawn(measurement(scale), list[int], values)
    return NoisyNumbers(tuple(map(float, released)), scale, margin(scale, confidence, gaussian))


def _drawn(measurement: Any, transformation: Any, rows: list[int]) -> Any:
    """What leaves: the measurement's output, never the transformation's."""
    return measurement(rows)


def margin(scale: float, confidence: float, gaussian: bool) -> float:
    """How far the noise strays with probability `1 - confidence`."""
    from scipy.special import ndtri

    miss = 1 - confidence
    return scale * (float(-ndtri(miss / 2)) if gaussian else -math.log(miss))


def noisy_count(
    rows: int, query: QueryOption, parts: int, confidence: float = CONFIDENCE
) -> NoisyNumbers:
    return noisy_aggregate(
        query, parts, lambda dp: dp.t.then_count(TO="i64"), [0] * rows, confidence
    )


def total(
    numbers: np.ndarray,
    low: float,
    high: float,
    query: QueryOption,
    parts: int,
    confidence: float = CONFIDENCE,
) -> NoisyNumbers:
    """The noised sum of the numbers, each clamped to low … high."""
    rows, bounds, cell = in_cells(numbers, low, high, _CELLS)

    def aggregate(dp: Any) -> Any:
        return dp.t.then_clamp(bounds) >> dp.t.then_sum()

    cells = noisy_aggregate(query, parts, aggregate, rows.tolist(), confidence)
    return NoisyNumbers((cells.values[0] * cell,), cells.scale * cell, cells.margin * cell)


def in_cells(
    numbers: np.ndarray,
    low: float,
    high: float,
    cells: int,  # a power of two: from 0 to the end of the range that lies further off
) -> tuple[np.ndarray, tuple[int, int], float]:
    """(each number in cells, near the range; the ends of the range in cells; the width of a cell).

    The end that lies further off is `cells` exactly, so a number that is clamped to the ends moves
    a sum by no more.
    """
    reach = max(abs(low), abs(high))
    cell = reach / cells
    # Infinities and huge values are brought near the range first: an integer must hold them.
    near = np.clip(numbers, low - reach, high + reach)
    ends = math.floor(low / cell), math.ceil(high / cell)
    return np.rint(near / cell).astype(np.int64), ends, cell


def noisy_histogram(places: list[int], bars: int, query: QueryOption) -> NoisyNumbers:
    """How many rows fall into each of so many bars; `places` are theirs, a row has one."""
    distance = "L2Distance<i64>" if query.delta > 0 else "L1Distance<i64>"

    def aggregate(dp: Any) -> Any:
        categories = list(range(bars))
        return dp.t.then_count_by_categories(
            categories, null_category=False, MO=distance, TOA="i64"
        )

    return noisy_aggregate(query, 1, aggregate, places)


class Noising(Protocol):
    """Noises what answers are computed from: counts, sums and bars."""

    def count(
        self, rows: int, query: QueryOption, parts: int, confidence: float = CONFIDENCE
    ) -> NoisyNumbers:
        """How many rows there are."""
        ...

    def total(
        self, numbers: np.ndarray, low: float, high: float, query: QueryOption, parts: int,
        confidence: float = CONFIDENCE,
    ) -> NoisyNumbers:  # fmt: skip
        """The sum of the numbers, each clamped to low … high."""
        ...

    def histogram(self, places: list[int], bars: int, query: QueryOption) -> NoisyNumbers:
        """How many rows fall into each bar."""
        ...


class Drawn:
    """Noise that is drawn here and now, on one holder's own rows."""

    def count(
        self, rows: int, query: QueryOption, parts: int, confidence: float = CONFIDENCE
    ) -> NoisyNumbers:
        """See `Noising.count`."""
        return noisy_count(rows, query, parts, confidence)

    def total(
        self, numbers: np.ndarray, low: float, high: float, query: QueryOption, parts: int,
        confidence: float = CONFIDENCE,
    ) -> NoisyNumbers:  # fmt: skip
        """See `Noising.total`."""
        return total(numbers, low, high, query, parts, confidence)

    def histogram(self, places: list[int], bars: int, query: QueryOption) -> NoisyNumbers:
        """See `Noising.histogram`."""
        return noisy_histogram(places, bars, query)


DRAWN = Drawn()


def strays(
    weights: np.ndarray,  # (V,)
    counts: np.ndarray,  # (N, V): how many noises enter each of N sums with each weight
    scale: float,
    gaussian: bool,
    miss: float,
) -> np.ndarray:  # (N,)
    """What each weighted sum of independent noises exceeds with a probability of at most `miss`.

    Gaussian: by the normal quantile. Laplace: by Chernoff's bound, with the moments of the discrete
    law exp(-|k| / scale).
    """
    if gaussian:
        from scipy.special import ndtri

        return scale * float(-ndtri(miss)) * np.sqrt(counts @ np.square(weights))
    largest = np.abs(weights).max()
    tilts = np.geomspace(1e-3, 0.999, 60) / (scale * largest)
    tilted = np.abs(np.outer(weights, tilts))  # (V, tilts)
    moments = 2 * math.log1p(-math.exp(-1 / scale)) - np.log1p(-np.exp(tilted - 1 / scale))
    moments -= np.log1p(-np.exp(-tilted - 1 / scale))
    return ((counts @ moments - math.log(miss)) / tilts).min(1)
