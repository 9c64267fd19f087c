"""Epsilon of composed Gaussian steps by their privacy loss distribution, between proven bounds.

One step's losses are put on a grid of width h: the mass of each cell is split between its two ends
so that both P's and Q's mass are kept (Doroshenko et al. 2022, "Connect the dots"). That dilates
exp(loss) under Q, so the composition on the grid lies above the truth. It is one FFT, after an
exponential tilt (`saddle_point.py`) that moves the weight to where epsilon lies: rounding is then
relative to delta, and the window is short.

*Upper bound.* What is cut off, what wraps around and what the FFT may round is added to delta.

*Lower bound.* Let L be the loss of T steps and L + D the one on the grid. Given L, exp(D) is under
Q a product of T factors of mean 1, each within an interval of length h on the log scale. By
Hoeffding's lemma |D| <= s = T h^2 / 8 + h sqrt(T log(2 / eta) / 2) under P up to probability eta.
The grid's hockey-stick divergence at epsilon exceeds the true one by E_P[V(epsilon - L)], where V,
the time value of an option on exp(D), is at most min(tau, exp(-2 (|x| - T h^2 / 8)_+^2 / (T h^2)))
with tau = sqrt(cosh(h / 2)^(2 T) - 1) / 2, half the deviation of exp(D). The mass of L near epsilon
is read off the grid within the distance s.

*Many kinds* of Gaussian steps take no grid each, but a few points (`characteristic/`).
"""

# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import fft

from nacre.differential_privacy.accounting.allocation import Allocated
from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.characteristic.bounds import bounds_of_many
from nacre.differential_privacy.accounting.jumps import upper_by_jumps
from nacre.differential_privacy.accounting.loss_distribution import (
    LossKind,
    Masses,
    Step,
    Unsettled,
    on_grid,
)
from nacre.differential_privacy.accounting.powers import UNIT, by_one_fft
from nacre.differential_privacy.accounting.saddle_point import Tilt, tilted

CountedSteps = Sequence[tuple[LossKind, int]]
"""Kinds of steps, with how often each is taken."""

_CUT = 1e-7
"""What the cut tails and the wrapped masses may take each, as a share of delta."""

_UNLIKELY = 1e-5
"""eta of the lower bound, as a share of delta."""

_MOST = 1 << 23
"""Points that a composition may take: about two seconds."""

_FIRST = 6.0
"""The first grid is coarser than the last by this: it finds epsilon, or that the other direction of
neighbours decides."""

_ATTEMPTS = 8

_GUESSED = 1.6e-2
"""How far the bounds of a guess may lie apart, relative; the guess itself is nearer by far."""

_STEPS, _FEW_KINDS, _RARE, _NOISY = 100, 8, 3e-3, 0.25
"""Where rare large losses are kept apart: the least number of steps, the most kinds of them, the
largest rate and the least multiplier. More kinds go by their characteristic functions."""

_SLACK = 1e-3
"""The share of delta left for what `powers.py` rounds beyond its bound."""

_MANY, _SKEWED = 1000, 1.0
"""The steps, and the skewness of the tilted composition, from which on few steps may decide."""

_LARGEST = 1500.0
"""Above such an epsilon nobody asks how large it is."""

_LONGEST = 600.0
"""The exponential of a longer window comes near the end of the doubles."""

_SMALL = 0.05
"""Below this epsilon the bounds lie as far apart as at this one."""

_NOTHING = 1e-300
"""More than exp(-2 * 20^2), what the time value is beyond twenty deviations."""


class Bounds(NamedTuple):
    """Proven bounds on epsilon."""

    lower: float
    upper: float


def epsilon_bounds(steps: CountedSteps, delta: float, gap: float = 1e-3) -> Bounds:
    """Bounds on the smallest epsilon at `delta` of all steps together, as their pairs have it.

    They are at most `gap` apart, relative to the upper one or to `_SMALL`; the lower one is 0 where
    an `Allocated` round is among the steps, whose grid is proven from above alone. Raises
    `Unsettled` where that takes a grid of more than eight million points, and for an epsilon beyond
    `_LARGEST`; with the upper bound that was reached.
    """
    if found := _of_many(steps, delta, gap):
        return found
    one_sided = any(
        isinstance(kind, Allocated) or (isinstance(kind, Step) and kind.rate < 1)
        for kind, _ in steps
    )
    directions = (False, True) if one_sided else (False,)  # the others are their own mirror images
    ways = [(tilted(steps, delta, added), added) for added in directions]
    largest = max(tilt.epsilon for tilt, _ in ways)
    if largest > _LARGEST:
        raise Unsettled(f"an epsilon of about {largest:.3g} is none")
    found, open_, above = Bounds(0.0, 0.0), "", _from_above(steps)
    for tilt, added in sorted(ways, key=lambda way: -way[0].epsilon):
        enough = found.upper if above else found.lower
        try:
            one = _refined(steps, delta, gap, tilt, added, enough)
        except Unsettled as error:
            upper = min(error.upper, _by_jumps(steps, delta, gap, added, enough))
            one, open_ = Bounds(error.lower, upper), open_ or str(error)
            above = True
        found = Bounds(max(found.lower, one.lower), max(found.upper, one.upper))
    if open_:
        raise Unsettled(open_, found.upper, found.lower)
    return found


def epsilon_near(steps: CountedSteps, delta: float, aim: float) -> float:
    """About the upper bound of `epsilon_bounds`, at a tenth of its cost: where a search looks next.

    Nothing is promised of it. Of the direction of neighbours that decides nearly always, on a grid
    so coarse that its dilation shows, which is taken off again: the split of a loss has a variance
    of h^2 / 6 on average over its cell. Of the first grid alone where epsilon lies far from `aim`.
    Raises `Unsettled` where a coarse grid does not tell.
    """
    if len(steps) > _FEW_KINDS or _from_above(steps):
        raise Unsettled("bounds that lie far apart cost as little")
    count = sum(times for _, times in steps)
    tilt, finer = tilted(steps, delta, False), _FIRST
    for _ in range(_ATTEMPTS):
        width = _width(count, delta, tilt, _GUESSED, max(tilt.epsilon, _SMALL), finer)
        found = _bounds(steps, delta, tilt, False, width)
        if math.isinf(found.upper):
            tilt = tilt.moved(2 * tilt.epsilon + 1)
            continue
        if not aim / 1.05 < found.upper < 1.05 * aim:
            return found.upper
        if finer == 1.0 and abs(found.upper - tilt.epsilon) <= 0.1 * tilt.epsilon:
            if found.lower == 0:
                break  # the tilt does not reach epsilon
            return found.upper - count * (1 + tilt.order) * width**2 / 12
        tilt, finer = tilt.moved(found.upper), 1.0
    raise Unsettled("the bounds on a coarse grid do not meet")


def _of_many(steps: CountedSteps, delta: float, gap: float) -> Bounds | None:
    """The bounds of many kinds of Gaussian steps; None for others, where few steps decide, and
    where they are no bounds as `epsilon_bounds` promises them."""
    plain = [(kind, times) for kind, times in steps if isinstance(kind, Step)]
    if len(steps) <= _FEW_KINDS or len(plain) < len(steps):
        return None
    try:
        found = Bounds(*bounds_of_many(plain, delta))
    except Unsettled:
        return None
    near = found.upper - found.lower <= gap * max(found.upper, _SMALL)
    return found if near and found.upper <= _LARGEST else None


def _by_jumps(steps: CountedSteps, delta: float, gap: float, added: bool, enough: float) -> float:
    """The upper bound that keeps rare large losses apart; inf where it does not settle either, and
    outside the steps for which it was held against independent lower bounds."""
    plain = _rare(steps)
    if not plain:
        return math.inf
    try:
        return upper_by_jumps(plain, delta * (1 - _SLACK), added, gap, enough)
    except ArithmeticError:  # `Unsettled`, or an epsilon beyond the doubles
        return math.inf


def _rare(steps: CountedSteps) -> list[tuple[Step, int]]:
    """The steps, where all of them are rare enough for jumps to be kept apart; else none."""
    plain = [
        (kind, times)
        for kind, times in steps
        if isinstance(kind, Step) and kind.rate <= _RARE and kind.multiplier >= _NOISY
    ]
    enough = sum(times for _, times in plain) >= _STEPS and len(steps) <= _FEW_KINDS
    return plain if enough and len(plain) == len(steps) else []


def _from_above(steps: CountedSteps) -> bool:
    """Whether the grid of some step is proven from above alone."""
    return any(isinstance(kind, Allocated) for kind, _ in steps)


def _refined(
    steps: CountedSteps, delta: float, gap: float, tilt: Tilt, added: bool, enough: float
) -> Bounds:
    """The bounds of one direction; coarse where its upper bound stays below `enough`."""
    count = sum(times for _, times in steps)
    if enough > 2 * tilt.epsilon:  # what a grid adds that takes about half of the rest
        found = _bounds(steps, delta, tilt, added, _width(count, delta, tilt, 16.0, enough))
        if found.upper <= enough:
            return found
    few = count >= _MANY and tilt.skewness > _SKEWED and bool(_rare(steps))
    finer = _FIRST
    found, least = Bounds(0.0, math.inf), math.inf
    for _ in range(_ATTEMPTS):
        guess = max(tilt.epsilon, enough, _SMALL)
        width = _width(count, delta, tilt, gap, guess, finer)
        try:
            found = _bounds(steps, delta, tilt, added, width)
        except Unsettled as error:
            raise Unsettled(str(error), least) from error
        least = min(least, found.upper)
        if math.isinf(found.upper):  # the guess was too low
            tilt = tilt.moved(2 * tilt.epsilon + 1)
            continue
        if found.upper <= enough or found.upper - found.lower <= gap * max(found.upper, _SMALL):
            return found
        if few and found.lower == 0:
            break  # the tilt does not reach epsilon, and finer grids do not help it
        near = abs(found.upper - tilt.epsilon) <= 0.1 * tilt.epsilon
        if _from_above(steps) and near and finer <= 1.0:
            return found
        finer = min(finer, 1.0) / 2 if finer <= 1.0 and near else min(finer, 1.0)
        tilt = tilt.moved(found.upper)
    raise Unsettled(f"the bounds {found.lower:.6g} and {least:.6g} do not meet", least)


def _width(
    count: int, delta: float, tilt: Tilt, gap: float, guess: float, coarser: float = 1.0
) -> float:
    """Of a grid whose bounds lie apart by about a share `gap` of `guess`, or of one coarser."""
    width = coarser * math.sqrt(0.4 * gap * guess / (2.2 * count * (1 + tilt.order)))
    return min(width, 3.0 / _likely(count, delta))


def _likely(count: int, delta: float) -> float:
    """How far the dilation of so many steps carries the loss at most, but for its drift, in widths
    of the grid."""
    return math.sqrt(count * math.log(2 / (_UNLIKELY * delta)) / 2)


@dataclass(frozen=True)
class _Composed:
    """The composition in a window of the grid, tilted: the mass at a place is
    exp(scale - order * (loss - least)) * weight."""

    least: float  # the loss at the window's first place
    width: float
    weights: Array  # (N,)
    order: float
    scale: float
    relative: float  # error of the scale
    rounding: float  # of a sum of weights from a place on that each fall by exp(-order * width)
    outside: float  # probability that is not in the window, or in it by mistake

    @property
    def losses(self) -> Array:
        """Above `least`, of each place."""
        return np.arange(len(self.weights)) * self.width

    def masses(self) -> Array:
        """(N,) P's mass at each place."""
        return self.weights * np.exp(self.scale - self.order * self.losses)


def _bounds(steps: CountedSteps, delta: float, tilt: Tilt, added: bool, width: float) -> Bounds:
    count = sum(times for _, times in steps)
    parts = [
        (on_grid(kind, width, added, _CUT * delta / max(count, 1)), times) for kind, times in steps
    ]
    spread = width * _likely(count, delta) + count * width**2 / 8
    margin = max(min(0.3 * tilt.epsilon, 100.0), 30 * spread, 8 * width)
    # A steeper tilt would leave nothing but rounding at the window's start.
    gentle = replace(tilt, order=min(tilt.order, 60.0 / margin))
    composed = _composed(parts, delta, gentle, width, tilt.epsilon - margin)
    lost = sum(times * part.lost for part, times in parts)
    cut = sum(times * part.cut for part, times in parts)
    drift = sum(times * part.drift for part, times in parts)
    upper = _upper(composed, delta, lost)
    if upper <= 0:
        return Bounds(0.0, 0.0)
    if math.isinf(upper):
        return Bounds(0.0, math.inf)
    if _from_above(steps):
        return Bounds(0.0, upper)
    lower = _lower(composed, delta, lost + cut, upper, spread, count)
    return Bounds(max(0.0, lower - drift), upper)


def _composed(
    parts: list[tuple[Masses, int]], delta: float, tilt: Tilt, width: float, least: float
) -> _Composed:
    tilt, length = tilt.window(least, math.log(_CUT * delta), width)
    order, places = tilt.order, math.ceil(length / width) + 1
    if places > _MOST or length > _LONGEST:
        raise Unsettled(f"{places} points over a length of {length:.3g} are too many")
    size: Any = fft.next_fast_len(places, real=True)
    start = math.floor(least / width)
    scale, relative = 0.0, 0.0
    rows: list[tuple[int, Array, int]] = []
    for part, times in parts:
        losses = (part.first + np.arange(len(part.masses))) * width
        top = float((order * losses).max())
        grown = part.masses * np.exp(order * losses - top)
        total = float(grown.sum())
        rows.append((part.first, grown / total, times))
        scale += times * (math.log(total) + top)
        relative += (
            times * part.grown + times * (64 + 4 * order * float(np.abs(losses).max())) * UNIT
        )
    falls = order * width
    first, weights, error = by_one_fft(rows, size)
    rounding = error / math.sqrt(-math.expm1(-2 * falls))  # Cauchy and Schwarz
    return _Composed(
        least=start * width,
        width=width,
        weights=np.roll(weights, (first - start) % size),
        order=order,
        scale=scale - order * start * width,
        relative=relative,
        rounding=rounding,
        outside=3 * _CUT * delta,
    )


def _tails(composed: _Composed) -> tuple[Array, Array, Array]:
    """(N,) each, by place k: P's mass from k on, Q's times exp(least), and the rounding of delta;
    all divided by exp(scale)."""
    losses, order = composed.losses, composed.order
    p = composed.weights * np.exp(-order * losses)
    q = p * np.exp(-losses)
    rounded = composed.rounding * np.exp(-order * losses)
    return p[::-1].cumsum()[::-1], q[::-1].cumsum()[::-1], rounded


def _upper(composed: _Composed, delta: float, lost: float) -> float:
    """The epsilon at which the upper bound of delta is `delta`; the window's start or above."""
    p, q, rounded = _tails(composed)
    losses = composed.losses
    divergence = p - np.exp(losses) * q
    left = (delta - lost - composed.outside) * math.exp(-composed.scale)
    above = ~((1 + composed.relative) * divergence + rounded <= left)  # so is what is no number
    if not above.any():
        return composed.least
    place = int(np.flatnonzero(above)[-1])  # epsilon lies between this place and the next
    if place + 1 >= len(losses):
        return math.inf
    rest = (left - rounded[place]) / (1 + composed.relative)
    inside = losses[place + 1]
    if q[place + 1] > 0 and p[place + 1] > rest:
        inside = min(max(math.log((p[place + 1] - rest) / q[place + 1]), losses[place]), inside)
    return float(composed.least + inside * (1 + 4 * UNIT))


def _lower(
    composed: _Composed, delta: float, cut: float, upper: float, spread: float, count: int
) -> float:
    """An epsilon at which the lower bound of delta is `delta` or more; -inf where none is."""
    p, q, rounded = _tails(composed)
    losses, masses = composed.losses, composed.masses()
    drift = count * composed.width**2 / 8
    tau = math.sqrt(math.expm1(2 * count * math.log(math.cosh(composed.width / 2)))) / 2

    variance = count * composed.width**2
    reach = math.ceil((spread + drift + 20 * math.sqrt(variance)) / composed.width) + 1

    def excess(epsilon: float) -> float:
        """The lower bound of the divergence there, less `delta`; both in the window."""
        place = math.ceil((epsilon - composed.least) / composed.width)
        divergence = p[place] - math.exp(epsilon - composed.least) * q[place]
        proven = (1 - composed.relative) * divergence - rounded[max(place - 1, 0)]
        near = slice(max(place - reach, 0), place + reach)
        away = np.abs(losses[near] - (epsilon - composed.least)) - spread - drift
        value = np.minimum(tau, np.exp(-2 * np.maximum(away, 0.0) ** 2 / variance))
        time_value = float(masses[near] @ value) + tau * _UNLIKELY * delta + _NOTHING
        return math.exp(composed.scale) * proven - time_value - cut - composed.outside - delta

    step = 1e-4 * (upper - composed.least)
    high, low = upper, upper - step
    while low > composed.least and excess(low) < 0:
        step *= 2
        high, low = low, low - step
    if low <= composed.least:
        return -math.inf
    for _ in range(4):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) >= 0 else (low, middle)
    return float(low)
