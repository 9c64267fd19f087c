# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Bounds on epsilon of many different Gaussian steps, nearly equal.

A grid (`composition.py`) costs one long FFT for each kind of steps. Here each kind takes a few
dozen points and a few dozen frequencies (`quadrature.py`), and both bounds come from the same
numbers.

*Delta.* The law of the composition tilted by exp(order L) has E exp(i t L) = Phi(t), the product
over the steps of phi(order + i t) / phi(order). With K the sum of log phi(order), delta at epsilon
is exp(K - order epsilon) times E g(L - epsilon) under the tilted law, where g(u) = exp(-order u) -
exp(-(1 + order) u) for u > 0 and 0 below, whose transform is 1 / ((order + i t) (1 + order + i t))
(Alghamdi et al. 2023, "The saddle-point method in differential privacy").

*Both bounds.* The sum over the frequencies 2 pi m / W is, by Poisson's formula, the same with the
sum over all n of g(u + n W) in the place of g(u): never less, as g >= 0, and more by at most
    exp(-order W / 2) / (1 - exp(-order W)) + c (P(L < epsilon - W / 2) + P(L > epsilon + W)),
c = 1 + 1 / (1 - exp(-order W)), both under the tilted law, by Chernoff's bound. Frequencies above
the last one t add at most the bound on |Phi| there, over pi t, since the transform is below 1 /
t^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.characteristic.quadrature import (
    DifferentSteps,
    Quadrature,
    cumulant,
    quadratures,
)
from nacre.differential_privacy.accounting.loss_distribution import Step, Unsettled
from nacre.differential_privacy.accounting.powers import UNIT

_NEGLIGIBLE = 1e-7
"""What is cut off in each place, as a share of delta."""

_MOST_FREQUENCIES = 4096

_HALVINGS = 40

_CLOSE = 1e-9
"""How near to the upper bound a lower one is tried first."""

_LEAST, _MOST = 0.02, 1e4  # orders

_DOUBLES = 700.0
"""The exponential of more comes near the end of the doubles."""

_AHEAD = np.geomspace(0.02, 8.0, 12)
"""How far above the tilt's order those of Chernoff's bounds lie, in units of 1 + order, and how far
below it, in units of order."""


def bounds_of_many(steps: Sequence[tuple[Step, int]], delta: float) -> tuple[float, float]:
    """A lower and an upper bound on epsilon at `delta`.

    Raises `Unsettled` where few steps decide, so that too many frequencies or points are needed.
    """
    multiplier, rate = np.array([[kind.multiplier, kind.rate] for kind, _ in steps]).T
    times = np.array([float(number) for _, number in steps])
    both = [DifferentSteps(multiplier, rate, times, added) for added in (False, True)]
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number proves nothing here
        ways = [_one_way(kinds, delta) for kinds in both]
    return max(lower for lower, _ in ways), max(upper for _, upper in ways)


def _one_way(kinds: DifferentSteps, delta: float) -> tuple[float, float]:
    order, guess = _saddle_point(kinds, delta)
    curve = _curve(kinds, order, guess)
    if curve.upper(0.0) <= delta:
        return 0.0, 0.0
    upper = _first(lambda epsilon: curve.upper(epsilon) <= delta, guess)
    return _lower(curve, delta, upper), upper


def _first(holds: Callable[[float], bool], guess: float) -> float:
    """Where a statement that does not hold at 0 begins to, up to rounding; it holds there."""
    low, high = 0.0, max(2 * guess, 1e-3)
    while not holds(high):
        low, high = high, 2 * high
        if high > _MOST:
            raise Unsettled(f"an epsilon above {low:.3g} is none")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _lower(curve: _DeltaCurve, delta: float, upper: float) -> float:
    """An epsilon just below the upper bound at which delta is proven to be reached, or 0."""
    away = _CLOSE * max(upper, 1.0)
    while away < upper:
        if curve.lower(upper - away) >= delta:
            return upper - away
        away *= 2
    return 0.0


@dataclass(frozen=True)
class _Chernoff:
    """Bounds on the tails of the composition, tilted."""

    order: float
    cumulant: float  # K, at least
    orders: Array  # others, on both sides
    cumulants: Array  # K there, at most

    def beyond(self, loss: float, side: int) -> float:
        """The mass above a loss (1), or below it (-1)."""
        away = self.orders - self.order
        there = away * side > 0
        found = self.cumulants[there] - self.cumulant - away[there] * loss
        return math.exp(min(float(found.min(initial=0.0)), 0.0))

    def excess(self, epsilon: float, period: float) -> float:
        """What the periods of length W add to E g, at most."""
        falls = -math.expm1(-self.order * period)
        both = self.beyond(epsilon - period / 2, -1) + self.beyond(epsilon + period, 1)
        return math.exp(-self.order * period / 2) / falls + (1 + 1 / falls) * both


@dataclass(frozen=True)
class _DeltaCurve:
    """Bounds on delta at every epsilon, of one direction."""

    order: float
    cumulant: float  # K
    unsure: float  # of K, absolute
    frequencies: Array  # (M,) from 0 on
    values: Array  # (M,) complex, Phi times the transform of g
    error: float  # of the sum, absolute
    tails: _Chernoff

    @property
    def period(self) -> float:
        """W."""
        return 2 * math.pi / float(self.frequencies[1])

    def upper(self, epsilon: float) -> float:
        """At least delta."""
        log_scale = self.cumulant + self.unsure - self.order * epsilon
        if log_scale > _DOUBLES:
            return math.inf
        return math.exp(log_scale) * max(self._sum(epsilon) + self._wrong(epsilon), 0.0)

    def lower(self, epsilon: float) -> float:
        """At most delta."""
        log_scale = min(self.cumulant - self.unsure - self.order * epsilon, _DOUBLES)
        more = self._wrong(epsilon) + self.tails.excess(epsilon, self.period)
        return math.exp(log_scale) * (self._sum(epsilon) - more)

    def _sum(self, epsilon: float) -> float:
        terms = (self.values * np.exp(-1j * self.frequencies * epsilon)).real
        return float(2 * terms.sum() - terms[0]) / self.period

    def _wrong(self, epsilon: float) -> float:
        """The error of the sum, absolute."""
        turns = 64 + len(self.frequencies) + 4 * float(self.frequencies[-1]) * epsilon
        return self.error + UNIT * turns * 2 * float(np.abs(self.values).sum()) / self.period


def _curve(kinds: DifferentSteps, order: float, guess: float) -> _DeltaCurve:
    parts = quadratures(kinds, order, 0.0)
    whole, unsure = cumulant(parts)
    deviation = math.sqrt(sum(part.variance() for part in parts))
    # About what the sum comes to, were the tilted law normal.
    size = min(1.0, 1 / (2.6 * (order + 1) * deviation)) / max(order, 1 / deviation)
    tails, period = _tails(kinds, order, whole - unsure), 10 * deviation
    while tails.excess(guess, period) > _NEGLIGIBLE * size:
        period *= 1.1
        if period > 1e4 * deviation:
            raise Unsettled("the tails of the losses are too long")
    last, beyond = 7 / deviation, math.inf
    while beyond > _NEGLIGIBLE * size:
        last *= 1.25
        if last * period > 2 * math.pi * _MOST_FREQUENCIES:
            raise Unsettled(f"more than {_MOST_FREQUENCIES} frequencies are too many")
        beyond = _beyond(quadratures(kinds, order, last), last)
    number = math.ceil(last * period / (2 * math.pi)) + 1
    frequencies = np.arange(number) * (2 * math.pi / period)
    product, wrong = _product(quadratures(kinds, order, float(frequencies[-1])), frequencies)
    transform = 1 / ((order + 1j * frequencies) * (1 + order + 1j * frequencies))
    error = 2 * float((np.abs(transform) * wrong).sum()) / period + beyond
    return _DeltaCurve(order, whole, unsure, frequencies, product * transform, error, tails)


def _product(parts: Sequence[Quadrature], frequencies: Array) -> tuple[Any, Array]:
    """Phi at these equally spaced frequencies, and by how much each may be wrong."""
    number = len(frequencies)
    logs: Any = np.zeros(number, dtype=complex)
    share, most = np.full(number, 1e-12), np.zeros(number)
    for part in parts:
        times = part.kinds.times
        turn: Any = np.exp(1j * frequencies[1] * part.losses)
        current: Any = part.weights.astype(complex)
        for place in range(number):
            if place:
                current *= turn
            found: Any = current.sum(1)
            found = np.where(np.abs(found) < 1e-300, 1e-300, found)
            away = part.unsure(float(frequencies[place]), place)
            modulus, one = np.abs(found), np.log(found)
            logs[place] += times @ one
            relative = -np.log1p(-np.minimum(away / modulus, 0.999))
            share[place] += times @ (relative + UNIT * (8 + len(one)) * np.abs(one))
            most[place] += times @ np.log(np.minimum(modulus, 1.0) + away)
    product: Any = np.exp(logs)
    close = np.abs(product) * np.expm1(np.minimum(share, 1.0))
    # Where a factor is lost in its error, no more is known than how large the product can be.
    return product, np.where(share < 0.5, close, np.abs(product) + np.exp(np.minimum(most, 0.0)))


def _beyond(parts: Sequence[Quadrature], last: float) -> float:
    """What the frequencies above the last one can add to the sum."""
    found = sum(float(part.kinds.times @ part.log_at_most(last)) for part in parts)
    return math.exp(min(found, 0.0)) / (math.pi * last) * (1 + 1e-9)


def _tails(kinds: DifferentSteps, order: float, least: float) -> _Chernoff:
    known: list[tuple[float, float]] = []
    for one in (*(order + _AHEAD * (1 + order)), *(order * (1 - np.minimum(_AHEAD, 1)))):
        try:
            found, unsure = cumulant(quadratures(kinds, float(one), 0.0))
        except Unsettled:
            continue  # the others do
        known.append((float(one), found + unsure))
    orders, cumulants = np.array(known).reshape(-1, 2).T
    return _Chernoff(order, least, orders, cumulants)


def _saddle_point(kinds: DifferentSteps, delta: float) -> tuple[float, float]:
    """The order of the tilt, and a guess of epsilon; nothing that is proven depends on either."""
    low, high = math.log(_LEAST), math.log(_MOST)
    best = (_MOST, 0.0)
    for _ in range(_HALVINGS // 2):
        order = math.exp((low + high) / 2)
        try:
            parts = quadratures(kinds, order, 0.0)
        except Unsettled:
            high = math.log(order)
            continue
        mean, spread = sum(part.mean() for part in parts), sum(part.variance() for part in parts)
        epsilon = max(mean - 1 / order - 1 / (1 + order), 0.0)
        around = spread + order**-2 + (1 + order) ** -2
        log_delta = cumulant(parts)[0] - order * epsilon - math.log(order * (1 + order))
        if log_delta - math.log(2 * math.pi * around) / 2 > math.log(delta):
            low = math.log(order)
        else:
            high, best = math.log(order), (order, epsilon)
    return best
