# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The composition of small losses, and an upper bound on its hockey-stick divergence at every e.

The losses s of each kind of step lie on one grid, from above (`jumps.py` says in which sense). The
composition is one FFT after a tilt by exp(order * loss), at several orders: s has no heavy tail, so
a tilt does reach epsilon, and the smallest of the bounds is taken at each e. Mass that wraps around
can only add to the window; what lies above it is bounded by Chernoff.

*Blocks.* A grid so fine that a step's loss is not lost in it is needless for the sum of thousands
of steps. So many steps are composed on the fine grid first, in a short window; their law goes to a
coarser grid, each mass between its two neighbours so that P's and Q's mass are kept (which again is
an upper bound), and that is composed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import fft

from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.loss_distribution import Unsettled
from nacre.differential_privacy.accounting.powers import UNIT, power

CUT = 1e-5
"""What is cut off in one place, as a share of delta."""

_MOST = 1 << 20
"""Places of a window."""

_PARTS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of epsilon, at which a tilted mean lies
_ORDERS = np.geomspace(1e-3, 1e7, 61)  # of Chernoff's bounds
_AHEAD = np.geomspace(0.01, 100.0, 21)  # the same, ahead of a tilt


@dataclass(frozen=True)
class Small:
    """P's masses of the kinds of steps at the losses (first + j) * width."""

    first: int
    masses: Array  # (kinds, places)
    times: Array  # (kinds,) how often each is taken
    width: float
    lost: float = 0.0  # P's mass of the composition that is left out

    @property
    def losses(self) -> Array:
        """(places,)"""
        return (self.first + np.arange(self.masses.shape[1])) * self.width

    def cumulants(self, orders: Array) -> Array:
        """log of the mean of exp(order * loss) of the composition, at each order; inf where it is
        beyond the doubles."""
        return self.times @ self.log_moments(orders)

    def log_moments(self, orders: Array) -> Array:
        """(kinds, orders) of one step of each kind."""
        losses = self.losses  # which ascend, so that the ends have the extreme exponents
        ends = np.multiply.outer(losses[[0, -1]], orders)
        top, near = ends.max(0), np.abs(ends).max(0) < 1
        found = np.empty((len(self.masses), len(orders)))
        missing = self.masses.sum(1, keepdims=True) - 1
        found[:, near] = np.log1p(
            self.masses @ np.expm1(np.multiply.outer(losses, orders[near])) + missing
        )
        with np.errstate(divide="ignore"):
            exponents = np.multiply.outer(losses, orders[~near])
            far = np.log(self.masses @ np.exp(exponents - top[~near]))
        # -inf: the masses that decide are below the doubles.
        found[:, ~near] = np.where(np.isneginf(far), math.inf, far + top[~near])
        return found

    @cached_property
    def rising(self) -> Array:
        """The cumulants at `_ORDERS`, which several bounds ask for."""
        return self.cumulants(_ORDERS)

    @cached_property
    def falling(self) -> Array:
        """The same at -`_ORDERS`."""
        return self.cumulants(-_ORDERS)

    def orders_of(self, means: Sequence[float]) -> list[float]:
        """0 and the orders of the tilts that have these means, ascending, as far as there are any
        and doubles hold them."""
        found = {0.0, *(self._order_of(mean) for mean in means)}
        known = np.isfinite(self.cumulants(np.array(sorted(found))))
        return [order for order, is_known in zip(sorted(found), known, strict=True) if is_known]

    def _order_of(self, mean: float) -> float:
        """0 where the mean is larger without a tilt."""
        if self._tilted_mean(0.0) >= mean:
            return 0.0
        low, high = math.log(1e-6), math.log(1e9)
        for _ in range(16):
            middle = (low + high) / 2
            below = self._tilted_mean(math.exp(middle)) < mean
            low, high = (middle, high) if below else (low, middle)
        return math.exp(high)

    def _tilted_mean(self, order: float) -> float:
        losses = self.losses
        exponents = order * losses
        grown = np.exp(exponents - exponents.max())
        whole = np.maximum(self.masses @ grown, 1e-300)
        return float(self.times @ ((self.masses @ (grown * losses)) / whole))


@dataclass(frozen=True)
class Curve:
    """Upper bounds on D(e) at e = first + i * width; D is convex in exp(e)."""

    first: float
    width: float
    values: Array
    above: float  # beyond the last
    mass: float  # where exp(e) is 0

    def at(self, e: Array) -> Array:
        """The bound at any e: the chord between its neighbours."""
        place = (e - self.first) / self.width
        low = np.clip(np.floor(place), 0, len(self.values) - 2).astype(np.int64)
        share = np.expm1((place - low) * self.width) / math.expm1(self.width)
        share = np.clip(share, 0.0, 1.0)
        inside = self.values[low] * (1 - share) + self.values[low + 1] * share
        ahead = np.exp(np.minimum(e - self.first, 0.0))  # below the first: from exp(e) = 0
        before = self.mass - (self.mass - min(self.values[0], self.mass)) * ahead
        found = np.where(e < self.first, before, inside)
        return np.where(place > len(self.values) - 1, self.above, found)


def curve_above(small: Small, delta: float, epsilon: float) -> Curve:
    """The bounds from the smallest losses to about `epsilon` and above. Raises `Unsettled`."""
    orders = small.orders_of([part * epsilon for part in _PARTS])
    first, size = _window(small, math.log(CUT * delta), orders[-1])
    over = _above(small, (first + size - 1) * small.width)
    places = first + np.arange(size)
    found = np.min([_hockey(small, order, first, size) for order in orders], axis=0)
    whole = float(small.cumulants(np.zeros(1))[0]) + _slack(small)
    mass = min(1.0, math.exp(min(whole, 0.0)) * (1 + 1e-6))
    return Curve(float(places[0]) * small.width, small.width, found + over, over, mass)


def blocks(small: Small, ratio: int, number: int, delta: float) -> Small:
    """The composition of one kind in blocks of `number` steps, on a grid coarser by `ratio`."""
    times = int(small.times[0])
    tiny = CUT * delta * number / times
    parts: list[tuple[int, Array, int]] = []
    lost = small.lost
    for steps, often in ((number, times // number), (times % number, 1)):
        if not steps:
            continue
        block = replace(small, times=np.array([float(steps)]))
        top = _top(block, tiny)
        orders = block.orders_of([0.3 * top, 0.6 * top, 0.9 * top])
        first, size = _window(block, math.log(tiny), orders[-1])
        masses = np.min([_masses(block, order, first, size) for order in orders], axis=0)
        lost += often * _above(block, (first + size - 1) * block.width)
        lost += often * _below(block, first)  # what a tilt has made less of where it wraps around
        parts.append((*_coarser(first, masses, ratio, small.width), often))
    return replace(stacked(parts, small.width * ratio), lost=lost)


def _coarser(first: int, masses: Array, ratio: int, width: float) -> tuple[int, Array]:
    """Each mass between its two neighbours on the coarser grid, rounded upwards."""
    places = first + np.arange(len(masses))
    low = places // ratio
    up = masses * (np.expm1((low * ratio - places) * width) / math.expm1(-width * ratio))
    up = np.clip(up * (1 + 16 * UNIT), 0.0, masses)
    start = int(low[0])
    size = int(low[-1]) - start + 2
    found = np.bincount(low - start + 1, up, size) + np.bincount(low - start, masses - up, size)
    return start, found * (1 + 8 * ratio * UNIT)


def _top(small: Small, tiny: float) -> float:
    """A loss above which the composition has a mass of at most `tiny`."""
    return float(((small.rising - math.log(tiny)) / _ORDERS).min())


def _window(small: Small, tiny: float, order: float) -> tuple[int, int]:
    """The first place of a window and the number of its places, so that neither the law nor the
    one tilted by `order` has more than a tiny mass outside. Raises `Unsettled`."""
    least = float(((tiny - small.falling) / _ORDERS).max())
    least = max(least, float(small.times.sum()) * float(small.losses[0]))
    most = _top(small, math.exp(tiny))
    if order:
        ahead = order * (1 + _AHEAD)
        here = float(small.cumulants(np.array([order]))[0])
        rises = (small.cumulants(ahead) - here + 25) / (ahead - order)
        most = max(most, float(rises.min()))
    first = math.floor(least / small.width)
    places = most / small.width + 2 - first
    if not places <= _MOST:
        raise Unsettled(f"a window of {places:.3g} points is too long")
    size: Any = fft.next_fast_len(max(math.ceil(places), 64), real=True)
    return first, int(size)


def _above(small: Small, loss: float) -> float:
    """At least the mass of the composition above this loss (Chernoff)."""
    found = float((small.rising - _ORDERS * loss).min())
    return math.exp(min(found + _slack(small), 0.0)) * (1 + 1e-3)


def _below(small: Small, first: int) -> float:
    """At least the mass of the composition below this place (Chernoff)."""
    if first <= int(small.times.sum()) * small.first:
        return 0.0
    found = float((small.falling + _ORDERS * first * small.width).min())
    return math.exp(min(found + _slack(small), 0.0)) * (1 + 1e-3)


def _slack(small: Small) -> float:
    """What rounding may leave of the log of a moment of the composition, but for its order."""
    return float(small.times.sum()) * (64 + small.masses.shape[1]) * UNIT


def _masses(small: Small, order: float, first: int, size: int) -> Array:
    """(size,) at least the mass of the composition at each place of the window."""
    exponents = order * small.losses
    grown = small.masses * np.exp(exponents - exponents.max())
    grown /= grown.sum(1, keepdims=True)
    found = power(small.first, grown, small.times, size)
    scale = float(small.cumulants(np.array([order]))[0])
    scale += _slack(small) * (1 + float(np.abs(exponents).max()))
    weights = np.roll(found.masses, (found.first - first) % size) + found.error
    logs = scale - order * (first + np.arange(size)) * small.width
    return weights * np.exp(np.minimum(logs, 690.0))


def _hockey(small: Small, order: float, first: int, size: int) -> Array:
    """(size,) upper bounds on D at each place, of what lies in the window.

    D(e) is the integral over t > e of exp(e - t) times the mass above t: a sum of positive terms.
    """
    from scipy.signal import lfilter  # almost a second to import, and seldom needed

    masses, width = _masses(small, order, first, size), small.width
    over = np.append(masses[:0:-1].cumsum()[::-1], 0.0)
    found: Any = lfilter([-math.expm1(-width)], [1.0, -math.exp(-width)], over[::-1])
    return found[::-1] * (1 + 8 * size * UNIT)


def stacked(parts: Sequence[tuple[int, Array, int]], width: float) -> Small:
    """(first, masses, times) of each kind as one table."""
    start = min(first for first, _, _ in parts)
    end = max(first + len(masses) for first, masses, _ in parts)
    if len(parts) * (end - start) > 100 * _MOST:
        raise Unsettled(f"{len(parts)} kinds take {end - start} points each")
    table = np.zeros((len(parts), end - start))
    for row, (first, masses, _) in zip(table, parts, strict=True):
        row[first - start : first - start + len(masses)] = masses
    return Small(start, table, np.array([float(times) for _, _, times in parts]), width)
