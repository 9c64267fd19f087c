# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An upper bound on epsilon where few steps decide it: very small rates, with little noise.

The loss of one step is then tiny, but for the rare draw of the unit, whose loss is large and has a
heavy tail: no exponential tilt, as `composition.py` has one, puts the weight of a composition to
where epsilon lies, and Rényi prices are ten times too high. So the two are kept apart.

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

*s^T* is composed by FFT (`small.py`).

Splitting large jumps off is usual for heavy tails (Asmussen & Glynn 2007, "Stochastic simulation",
chapter VI.3); that it gives an upper bound is proven above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.loss_distribution import (
    Step,
    Unsettled,
    above,
    part_on_grid,
)
from nacre.differential_privacy.accounting.powers import UNIT
from nacre.differential_privacy.accounting.small import (
    CUT,
    Curve,
    Small,
    blocks,
    curve_above,
    stacked,
)

JumpSteps = Sequence[tuple[Step, int]]

_EXPECTED = 1.0
"""Jumps that are expected, at most."""

_JUMP_PLACES = 2000

_FAR = 13.0
"""Deviations beyond which lie 6e-39."""

_RARE = 3e-5
"""How likely a step of any kind may be a jump."""

_MOVED = 1e-4
"""Steps that are expected, at most, below the floor where the unit is added."""

_PLACES = 3000
"""Places from 0 to epsilon above which steps are composed in blocks first."""

_ROUNDS = 12
_BISECTIONS = 50


@dataclass(frozen=True)
class _Jumps:
    """The jumps of all steps, by their number k = 1, 2, …"""

    start: float
    width: float
    powers: tuple[Array, ...]  # nu^k / k!, at k * start + i * width
    lost: float


def upper_by_jumps(
    steps: JumpSteps, delta: float, added: bool, gap: float, enough: float = 0.0
) -> float:
    """An upper bound on the epsilon at `delta` of one direction of neighbours.

    The grid gets finer until the bound moves by less than `gap`, relative, is at most `enough`, or
    the grid takes more than a million places.
    Raises `Unsettled` where no bound is found.
    """
    best = _searched(steps, delta, added, gap, enough)
    if math.isinf(best):
        raise Unsettled("the losses of the steps take too many points")
    return best


def _searched(steps: JumpSteps, delta: float, added: bool, gap: float, enough: float) -> float:
    """The least bound that finer and finer grids found; inf for none."""
    threshold = _floor(steps) if added else _threshold(steps)
    epsilon = _guess(steps, threshold, added, delta)
    width, best, before = math.inf, math.inf, math.inf
    for _ in range(_ROUNDS):
        width = min(width, epsilon / 300)
        found = _bound(steps, delta, added, threshold, epsilon, width)
        if found is None:
            break
        best = min(best, found)
        if abs(before - found) <= gap * best:
            break  # the grid before was fine enough
        if found <= enough:
            break
        before = found if abs(found - epsilon) < 0.3 * epsilon else math.inf
        width /= 4
        epsilon = min(max(found, 0.2 * epsilon), 5 * epsilon)
    return best


def _threshold(steps: JumpSteps) -> float:
    """The loss above which `_EXPECTED` steps are expected, and a share `_RARE` of each kind."""

    def few(loss: float) -> bool:
        chances = [(above(kind, loss)[0], times) for kind, times in steps]
        expected = sum(chance * times for chance, times in chances)
        return expected <= _EXPECTED and all(chance <= _RARE for chance, _ in chances)

    return _least(few)


def _floor(steps: JumpSteps) -> float:
    """How far below 0 a loss may lie where the unit is added: what lies below is moved up."""
    return _least(lambda loss: sum(above(kind, loss)[1] * n for kind, n in steps) <= _MOVED)


def _least(holds: Callable[[float], bool]) -> float:
    """The least positive number, to two digits, from which `holds` is true."""
    low, high = math.log(1e-15), math.log(1e4)
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _jumps(steps: JumpSteps, start: float, delta: float, reach: float) -> _Jumps:
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
        near = min(p, q * math.exp(end) * (1 + 1e-12)) if end < 700 else 0.0
        masses[-1] += near
        lost += scale * (p - near + 1e-11 * p)
        expected += scale * masses
    return _exponential(expected, start + shift, width, lost, delta)


def _exponential(expected: Array, start: float, width: float, lost: float, delta: float) -> _Jumps:
    whole = float(expected.sum()) + lost
    powers, missed, power, endless = [expected], 0.0, expected, lost
    missed += lost
    chance, number = whole, 1
    while chance * math.exp(whole) > CUT * delta:
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


def _guess(steps: JumpSteps, threshold: float, added: bool, delta: float) -> float:
    """An epsilon near which to look first; nothing that is certified depends on it."""
    small = _small(steps, threshold / 100, added, threshold)
    mean = float(small.times @ (small.masses @ small.losses))
    spread = float(small.times @ (small.masses @ small.losses**2))
    normal = max(mean - float(ndtri(delta)) * math.sqrt(spread), 1e-12)
    if added:
        return normal
    rare = _least(lambda loss: sum(above(kind, loss)[0] * n for kind, n in steps) <= delta)
    return max(normal, min(rare, 1e3))


def _bound(
    steps: JumpSteps, delta: float, added: bool, threshold: float, epsilon: float, width: float
) -> float | None:
    """The bound on one grid, inf where `epsilon` is much too low; None for a grid too large."""
    try:
        small = _small(steps, width, added, threshold)
        ratio = _ratio(small, epsilon)
        if ratio > 1:
            small = blocks(small, ratio, 4 * ratio**2, delta)
        found = curve_above(small, delta, epsilon)
    except Unsettled:
        return None
    jumps = None if added else _jumps(steps, threshold, delta, 6 * epsilon)
    count = sum(times for _, times in steps)
    return _solved(found, jumps, delta, epsilon, count * float(ndtr(-_FAR)) + small.lost)


def _ratio(small: Small, epsilon: float) -> int:
    """How much coarser the grid of blocks is; 1 for no blocks."""
    if len(small.times) > 1:
        return 1
    coarse = epsilon / _PLACES / small.width
    return max(1, int(min(coarse, math.sqrt(float(small.times[0]) / 64))))


def _small(steps: JumpSteps, width: float, added: bool, threshold: float) -> Small:
    """The losses that are no jumps; where the unit is added, those above the floor."""
    parts: list[tuple[int, Array, int]] = []
    for kind, times in steps:
        far = kind.loss(-_FAR * kind.multiplier)
        furthest = math.log1p(-kind.rate) if kind.rate < 1 else far
        ends = (-threshold, -furthest) if added else (furthest, threshold)
        found = part_on_grid(kind, width, added, *ends)
        parts.append((found.first, found.masses, times))
    return stacked(parts, width)


def _solved(curve: Curve, jumps: _Jumps | None, delta: float, epsilon: float, lost: float) -> float:
    """The least epsilon at which the bound is at most `delta`."""

    def bound(at: float) -> float:
        found = float(curve.at(np.array([at]))[0]) + lost
        if jumps is None:
            return found
        found += jumps.lost
        for k, power in enumerate(jumps.powers, start=1):
            sizes = k * jumps.start + np.arange(len(power)) * jumps.width
            found += float(power @ (curve.at(at - sizes) + lost))
        return found * (1 + 1e-9)

    if bound(0.0) <= delta:
        return 0.0
    high = epsilon
    while not bound(high) <= delta:
        high *= 1.5
        if high > 6 * epsilon:
            return math.inf
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if bound(middle) <= delta else (middle, high)
        if high - low < 1e-6 * high:
            break
    return high
