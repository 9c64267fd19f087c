# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An upper bound on epsilon where few steps decide it: very small rates, with little noise.

The loss of one step is then tiny, but for the rare draw of the unit, whose loss is large and has a
heavy tail: no exponential tilt puts the weight of a composition to where epsilon lies (`loss.py`
does), and Rényi prices are ten times too high. So the two are kept apart.

*Notation.* All measures are P's, on losses: a measure m stands for the pair (m, exp(-loss) m) and
has the hockey-stick divergence D_m(e) = integral of (1 - exp(e - loss))_+ dm. It grows with m, and
where mass moves to a larger loss; it is convex in exp(e), and so, for the composition m * n, an
integral over n of a convex function of exp(-loss).

*Jumps.* A step's losses are s + b, those up to a threshold and those above it, the jumps; b has the
mass beta. T steps have the law of sum over k of C(T, k) s^(T - k) * b^k. By Jensen's inequality
(the mean of exp(-loss) under s, scaled to mass one, is at most exp(eta), eta = -log(1 - beta))
    D_(m * s)(e) >= (1 - beta) D_m(e + eta),
so a missing s costs a factor of 1 / (1 - beta) and a shift by eta:
    D(epsilon) <= sum over k of T^k / k! times the integral of D_(s^T)(epsilon - y) d(c^k)(y),
with c the jumps b / (1 - beta), moved up by eta. The same holds with a sum over kinds of steps of
T_i c_i in the place of T c. The threshold is such that about one jump is expected, so k is small.

*What is on grids.* s on one of width h, and the jumps on a coarser one (there are few of them),
each mass between its two neighbours so that P's and Q's mass are kept (Doroshenko et al. 2022,
"Connect the dots"; its proof is the convexity above, for any grid). Powers of the jumps are direct
convolutions of positive numbers.

*s^T* is one FFT after a tilt by exp(order * loss), at several orders; the smallest of the bounds is
taken at each e. s has no heavy tail, so a tilt does reach epsilon. Mass that wraps around can only
add to the window; what lies above it is bounded by Chernoff. The tilted law of a step has the
characteristic function 1 + z with z = sum of g_j (exp(i w j) - 1), its most likely place aside, of
which rounding takes a share of those g_j alone. With x the error of log(1 + z), summed over the
steps, exp(x) - 1 bounds the relative error of the power at this frequency; the mean over the
frequencies bounds the error of every weight, which is added to it.

Sources: Cooley-Tukey's error, componentwise, is at most a multiple of log2(N) roundings times the
1-norm (Higham 2002, "Accuracy and stability of numerical algorithms", section 24.1, with absolute
values in place of norms). Splitting jumps off is usual for heavy tails (Asmussen & Glynn 2007,
"Stochastic simulation", chapter VI.3).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from nacre.differential_privacy.accounting.loss_distribution import (
    UNIT,
    Step,
    Unsettled,
    above,
    part_on_grid,
)

Array = NDArray[np.floating[Any]]
Steps = Sequence[tuple[Step, int]]

_EXPECTED = 1.0
"""Jumps that are expected, at most."""

_CUT = 1e-5
"""What is cut off in one place, as a share of delta."""

_MOST = 1 << 20
"""Places of the window of s^T."""

_JUMP_PLACES = 2000
DEBUG = False
_FAR = 13.0
_RARE = 0.1
_MOVED = 1e-4
_PARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of epsilon, at which a tilted mean lies
_ORDERS = np.geomspace(1e-3, 1e7, 81)  # of Chernoff's bounds
_ROUNDS = 12
_BISECTIONS = 50


@dataclass(frozen=True)
class _Jumps:
    """The jumps of all steps, by their number k = 1, 2, …"""

    start: float
    width: float
    powers: tuple[Array, ...]  # nu^k / k!, at k * start + i * width
    lost: float


@dataclass(frozen=True)
class _Small:
    """One kind's losses up to the threshold on the grid."""

    first: int
    masses: Array
    times: int


def upper_by_jumps(
    steps: Steps, delta: float, added: bool, gap: float, enough: float = 0.0
) -> float:
    """An upper bound on the epsilon at `delta` of one direction of neighbours.

    The grid gets finer until the bound moves by less than `gap`, relative, is at most `enough`, or
    the grid takes more than a million places.
    Raises `Unsettled` where no bound is found.
    """
    threshold = _floor(steps) if added else _threshold(steps)
    epsilon = _guess(steps, threshold, added, delta)
    width, best, before = math.inf, math.inf, math.inf
    for _ in range(_ROUNDS):
        width = min(width, epsilon / 300)
        found = _bound(steps, delta, added, threshold, epsilon, width)
        if DEBUG:
            print(
                "      ",
                added,
                "c %.3g eps %.4g width %.3g ->" % (threshold, epsilon, width),
                found,
            )
        if found is None:
            break
        best = min(best, found)
        if found <= enough or abs(before - found) <= gap * best:
            break
        if abs(found - epsilon) < 0.3 * epsilon:
            before, width = found, width / 4
        epsilon = min(max(found, 0.2 * epsilon), 5 * epsilon)
    if math.isinf(best):
        raise Unsettled("the losses of the steps take too many points")
    return best


def _threshold(steps: Steps) -> float:
    """The loss above which about `_EXPECTED` steps are expected, and a tenth of no kind."""

    def few(loss: float) -> bool:
        chances = [(above(kind, loss)[0], times) for kind, times in steps]
        expected = sum(chance * times for chance, times in chances)
        return expected <= _EXPECTED and all(chance <= _RARE for chance, _ in chances)

    return _least(few)


def _floor(steps: Steps) -> float:
    """How far below 0 a loss may lie where the unit is added: what lies below is moved up."""
    return _least(lambda loss: sum(above(kind, loss)[1] * n for kind, n in steps) <= _MOVED)


def _least(holds: Callable[[float], bool]) -> float:
    """The least positive number, to two digits, from which `holds` is true."""
    low, high = math.log(1e-15), math.log(1e4)
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _jumps(steps: Steps, start: float, delta: float, reach: float) -> _Jumps:
    """The jumps above `start`, on a grid up to `start + reach`."""
    width = reach / _JUMP_PLACES
    expected, lost, shift = np.zeros(_JUMP_PLACES + 1), 0.0, 0.0
    end = start + reach
    for kind, times in steps:
        chance = above(kind, start)[0]
        scale = times / (1 - chance) * (1 + 64 * UNIT)
        shift = max(shift, -math.log1p(-chance) * (1 + 8 * UNIT))
        found = part_on_grid(kind, width, False, start, end, start, gathered=False).masses
        masses = np.zeros(_JUMP_PLACES + 1)
        masses[: len(found)] = found[: len(masses)]
        # The cell from the grid's end to infinity, by P's mass and Q's.
        p, q = above(kind, end)
        near = min(p, q * math.exp(end) * (1 + 1e-12))
        masses[-1] += near
        lost += scale * (p - near + 1e-11 * p)
        expected += scale * masses
    return _exponential(expected, start + shift, width, lost, delta)


def _exponential(expected: Array, start: float, width: float, lost: float, delta: float) -> _Jumps:
    whole = float(expected.sum()) + lost
    powers, missed, power, endless = [expected], 0.0, expected, lost
    missed += lost
    chance, number = whole, 1
    while chance * math.exp(whole) > _CUT * delta:
        number += 1
        chance *= whole / number
        grown = np.convolve(power, expected) / number * (1 + 4 * len(expected) * UNIT)
        endless = (endless * whole + float(power.sum()) * lost) / number
        kept = grown[: len(expected)].copy()
        beyond = grown[len(expected) :]
        near = beyond * np.exp(-width * np.arange(1, len(beyond) + 1))
        kept[-1] += float(near.sum())
        endless += float((beyond - near).sum()) * (1 + 1e-12)
        power = kept
        powers.append(power)
        missed += endless
    rest = chance * math.exp(whole)  # at least the sum of what follows
    return _Jumps(start, width, tuple(powers), missed + rest)


def _guess(steps: Steps, threshold: float, added: bool, delta: float) -> float:
    """An epsilon near which to look first; nothing that is certified depends on it."""
    width, mean, spread = threshold / 100, 0.0, 0.0
    for kind, times in steps:
        part = _small(kind, times, width, added, threshold)
        losses = (part.first + np.arange(len(part.masses))) * width
        mean += times * float(part.masses @ losses)
        spread += times * float(part.masses @ losses**2)
    normal = max(mean - float(ndtri(delta)) * math.sqrt(spread), 1e-12)
    if added:
        return normal
    rare = _least(lambda loss: sum(above(kind, loss)[0] * n for kind, n in steps) <= delta)
    return max(normal, min(rare, 1e3))


def _bound(
    steps: Steps, delta: float, added: bool, threshold: float, epsilon: float, width: float
) -> float | None:
    """The bound on one grid, inf where `epsilon` is much too low; None for a grid too large."""
    try:
        small = [_small(kind, times, width, added, threshold) for kind, times in steps]
    except Unsettled:
        return None
    curve = _curve(small, delta, epsilon, width)
    if curve is None:
        return None
    jumps = None if added else _jumps(steps, threshold, delta, 6 * epsilon)
    count = sum(times for _, times in steps)
    return _solved(curve, jumps, delta, epsilon, count)


def _small(kind: Step, times: int, width: float, added: bool, threshold: float) -> _Small:
    """The losses that are no jumps; where the unit is added, those above the floor."""
    far = kind.loss(-_FAR * kind.multiplier)
    furthest = math.log1p(-kind.rate) if kind.rate < 1 else far
    ends = (-threshold, -furthest) if added else (furthest, threshold)
    found = part_on_grid(kind, width, added, *ends)
    return _Small(found.first, found.masses, times)


def _solved(curve: _Curve, jumps: _Jumps | None, delta: float, epsilon: float, count: int) -> float:
    """The least epsilon at which the bound is at most `delta`."""

    def bound(at: float) -> float:
        found = float(curve.at(np.array([at]))[0]) + count * float(ndtr(-_FAR))
        if jumps is None:
            return found
        found += jumps.lost
        for k, power in enumerate(jumps.powers, start=1):
            sizes = k * jumps.start + np.arange(len(power)) * jumps.width
            found += float(power @ curve.at(at - sizes))
        return found * (1 + 1e-9)

    if bound(0.0) <= delta:
        return 0.0
    high = epsilon
    while bound(high) > delta:
        high *= 1.5
        if high > 6 * epsilon:
            return math.inf
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if bound(middle) > delta else (low, middle)
        if high - low < 1e-6 * high:
            break
    return high


@dataclass(frozen=True)
class _Curve:
    """Upper bounds on D_(s^T) at e = first + i * width, of which the function is convex in exp(e)."""

    first: float
    width: float
    values: Array
    above: float  # beyond the last
    mass: float  # where exp(e) is 0

    def at(self, e: Array) -> Array:
        """The bound at any e."""
        place = (e - self.first) / self.width
        low = np.clip(np.floor(place), 0, len(self.values) - 2).astype(np.int64)
        share = np.expm1((place - low) * self.width) / math.expm1(self.width)
        share = np.clip(share, 0.0, 1.0)
        inside = self.values[low] * (1 - share) + self.values[low + 1] * share
        ahead = np.exp(
            np.minimum(e - self.first, 0.0)
        )  # below the first: the chord from exp(e) = 0
        before = self.mass - (self.mass - min(self.values[0], self.mass)) * ahead
        found = np.where(e < self.first, before, inside)
        return np.where(place > len(self.values) - 1, self.above, found)


def _curve(small: Sequence[_Small], delta: float, epsilon: float, width: float) -> _Curve | None:
    cumulant = functools.partial(_cumulant, small, width)
    tiny = math.log(_CUT * delta)
    orders = sorted({_order(small, width, part * epsilon) for part in _PARTS})
    least = max((tiny - cumulant(-float(order))) / float(order) for order in _ORDERS)
    most = min((cumulant(float(order)) - tiny) / float(order) for order in _ORDERS)
    for order in orders[1:]:
        ahead = order * (1 + np.geomspace(0.01, 100, 30))
        rises = [(cumulant(float(o)) - cumulant(order) + 25) / float(o - order) for o in ahead]
        most = max(most, min(rises))
    first = math.floor(least / width)
    places = math.ceil(most / width) + 2 - first
    if places > _MOST:
        return None
    size: Any = fft.next_fast_len(max(places, 64), real=True)
    top = (first + size - 1) * width
    over = min(cumulant(float(order)) - float(order) * top for order in _ORDERS)
    over = min(1.0, math.exp(min(over, 0.0)) * (1 + 1e-6))
    values = np.min([_hockey(small, width, order, first, size) for order in orders], axis=0) + over
    mass = min(1.0, math.exp(cumulant(0.0)) * (1 + 1e-6))
    return _Curve(first * width, width, values, over, mass)


def _cumulant(small: Sequence[_Small], width: float, order: float) -> float:
    """log of the mean of exp(order * loss) under s^T; inf where it is beyond the doubles."""
    return sum(part.times * _log_moment(part, width, order)[0] for part in small)


def _log_moment(part: _Small, width: float, order: float) -> tuple[float, float]:
    """log of the mean of exp(order * loss) under s, and its derivative."""
    losses = (part.first + np.arange(len(part.masses))) * width
    exponents = order * losses
    top = float(np.abs(exponents).max())
    if top < 1:
        missing = float(part.masses.sum() - 1)
        moment = float(part.masses @ np.expm1(exponents)) + missing
        grown = part.masses * np.exp(exponents)
        return math.log1p(moment), float(grown @ losses) / float(grown.sum())
    top = float(exponents.max())
    grown = part.masses * np.exp(exponents - top)
    whole = float(grown.sum())
    return math.log(whole) + top, float(grown @ losses) / whole


def _order(small: Sequence[_Small], width: float, mean: float) -> float:
    """The order of the tilt whose mean this is; 0 where the mean is larger without one."""

    def tilted(order: float) -> float:
        return sum(part.times * _log_moment(part, width, order)[1] for part in small)

    if tilted(0.0) >= mean:
        return 0.0
    low, high = math.log(1e-6), math.log(1e9)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if tilted(math.exp(middle)) < mean else (low, middle)
    return math.exp(high)


def _hockey(small: Sequence[_Small], width: float, order: float, first: int, size: int) -> Array:
    """(size,) upper bounds on D at each place, of what lies in the window."""
    share = 16 * UNIT * math.log2(size)
    log_power: Any = np.zeros(size // 2 + 1, dtype=complex)
    doubt, most = np.zeros(size // 2 + 1), np.zeros(size // 2 + 1)
    scale, slack, base = 0.0, 0.0, 0
    for part in small:
        exponents = order * (part.first + np.arange(len(part.masses))) * width
        grown = part.masses * np.exp(exponents - float(exponents.max()))
        mode = int(grown.argmax())
        others = grown / float(grown.sum())
        others[mode] = 0.0
        moved = float(others.sum())
        places = (np.arange(len(others)) - mode) % size
        raised: Any = fft.rfft(np.bincount(places, others, size))
        logs, wrong, largest = _log1p(raised - moved, 2 * share * moved)
        log_power += part.times * logs
        doubt += part.times * wrong
        most += part.times * largest
        scale += part.times * _log_moment(part, width, order)[0]
        slack += part.times * 64 * UNIT * (1 + float(np.abs(exponents).max()))
        base += part.times * (part.first + mode)
    spectrum: Any = np.exp(log_power)
    modulus = np.abs(spectrum)
    unsure = np.where(doubt < 1, modulus * np.expm1(np.minimum(doubt, 1.0)), modulus + np.exp(most))
    error = float((unsure + share * modulus).sum()) * 2 / size
    weights: Any = np.roll(fft.irfft(spectrum, size), (base - first) % size)
    logs = scale + slack - order * (first + np.arange(size)) * width
    masses = (np.maximum(weights, 0.0) + error) * np.exp(np.minimum(logs, 690.0))
    # D(e) is the integral over t > e of exp(e - t) times the mass above t: a sum of positive terms.
    over = np.append(masses[:0:-1].cumsum()[::-1], 0.0)
    found: Any = lfilter([-math.expm1(-width)], [1.0, -math.exp(-width)], over[::-1])
    return found[::-1] * (1 + 8 * size * UNIT)


def _log1p(z: Any, error: float) -> tuple[Any, Array, Array]:
    """log(1 + z) of complex z, known up to `error`; by how much it may be wrong, and the largest
    log |1 + z| that is possible."""
    size = np.abs(z)
    square = np.maximum(z.real * (2 + z.real) + z.imag**2, -1 + 1e-30)
    modulus = np.sqrt(1 + square)
    found = 0.5 * np.log1p(square) + 1j * np.arctan2(z.imag, 1 + z.real)
    rounded = error + 8 * UNIT * (2 * size + size**2) / modulus
    share = rounded / modulus
    wrong = np.where(share < 0.5, 2 * share, 1e300) + 8 * UNIT * np.abs(found)
    return found, wrong, found.real + np.log1p(share)
