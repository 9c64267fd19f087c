# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The characteristic functions of the losses of Gaussian steps, by the trapezoid rule.

*Notation.* w(x) = 1 - q + q exp((2x - 1) / (2 z^2)) is A's density over that of B = N(0, z^2), A
the mixture at rate q. A step's loss is L = log w under A, or -log w under B where the unit is
added, and phi(s) = E exp(s L). So phi(order + i t) is the integral of N(0, z^2)(x) w(x)^p exp(± i t
log w(x)), with p = 1 + order or p = -order.

*Error.* For |Im x| = a z^2 < pi z^2 / 2 the argument of w is at most a and |w| lies between cos(a)
w(Re x) and w(Re x), so the integrand there is at most exp(a^2 z^2 / 2 + |t| a) cos(a)^min(p, 0) of
what it is at Re x and t = 0. Hence the error of the rule with steps h is at most
    2 exp(a^2 z^2 / 2 + |t| a) cos(a)^min(p, 0) / (exp(2 pi a z^2 / h) - 1)
of phi(order) (Trefethen & Weideman 2014, "The exponentially convergent trapezoidal rule", theorem
5.1). Beyond the points the integrand at t = 0 falls at least by exp(-h r) from one to the next,
with r = (|x| - |p|) / z^2, since 0 <= (log w)' <= 1 / z^2; where p and x differ in sign, r = |x| /
z^2.

*Higher frequencies.* With the path moved to Im x = ± y, y = b z^2, and A(x) = arg w(x + i y) >= 0,
    |phi(order + i t)| <= exp(b^2 z^2 / 2) times the integral of N(0, z^2) |w(x + i y)|^p
    exp(-|t| A),
which falls as |t| grows: its value at one frequency bounds all that follow. Its integrand is
analytic too, with Re A >= 0 as long as a + b < pi / 2, since arg(1 - q + r exp(i b)) grows with b
up to there; the same error bound holds with cos(a + b), without |t| a and times exp(b^2 z^2 / 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.loss_distribution import Unsettled
from nacre.differential_privacy.accounting.powers import UNIT

_FAR = 9.0
"""Deviations beyond which the points end."""

_EXACT = 40.0
"""How small the error of the rule is to be: exp(-40) = 4e-18."""

_ANGLES = np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.35, 1.5])
"""a: what the strip is chosen among."""

_SHIFTS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
"""b: how far the path is moved for the bound at higher frequencies."""

_WIDEST = 1.4
"""a + b, at most."""

_GROUP = 64
"""Kinds whose points are held in one table."""

_MOST_POINTS = 4096

_LARGE = 30.0
"""Where log w is computed from its larger part."""


@dataclass(frozen=True)
class DifferentSteps:
    """Gaussian steps of many kinds in one direction of neighbours, and how often each is taken."""

    multiplier: Array  # (kinds,)
    rate: Array
    times: Array
    added: bool

    def power(self, order: float) -> float:
        """p: of w, in the integrand."""
        return -order if self.added else 1 + order

    def at(self, index: Any) -> DifferentSteps:
        """Some of the kinds."""
        return replace(
            self, multiplier=self.multiplier[index], rate=self.rate[index], times=self.times[index]
        )


@dataclass(frozen=True)
class Quadrature:
    """The trapezoid rule for some kinds of steps, at one order."""

    kinds: DifferentSteps
    power: float
    x: Array  # (kinds, points)
    step: Array  # (kinds,)
    log_ratio: Array  # (kinds, points) log w
    weights: Array  # (kinds, points) the integrand at t = 0, of sum 1 for each kind
    cumulants: Array  # (kinds,) log phi(order)

    @property
    def losses(self) -> Array:
        """(kinds, points)"""
        return -self.log_ratio if self.kinds.added else self.log_ratio

    def mean(self) -> float:
        """Of the composition, tilted."""
        return float(self.kinds.times @ (self.weights * self.losses).sum(1))

    def variance(self) -> float:
        """The same."""
        away = self.losses - (self.weights * self.losses).sum(1, keepdims=True)
        return float(self.kinds.times @ (self.weights * away**2).sum(1))

    def unsure(self, frequency: float, turns: int = 0) -> Array:
        """(kinds,) how far phi(order + i t) may be wrong after so many multiplications, as a share
        of phi(order): by the rule, by what lies beyond the points and by rounding."""
        z = self.kinds.multiplier[:, None]
        log = _at_the_edge(z, frequency, self.power) - self._sharpness(_ANGLES)
        return 2.002 * np.exp(log.min(1)) + self._ends() + self._rounding(frequency, turns)

    def log_at_most(self, frequency: float) -> Array:
        """(kinds,) bounds on log |phi(order + i t) / phi(order)| at this frequency and above."""
        z, q = self.kinds.multiplier[:, None], self.kinds.rate[:, None]
        found = np.zeros(len(self.kinds.times))
        shifted = (2 * self.x - 1) / (2 * z**2)
        ours = np.where(q == 1, 1.0, np.minimum(q * np.exp(shifted - self.log_ratio), 1.0))
        density = np.log(np.maximum(self.weights, 1e-300))
        rounding = self._rounding(frequency, 1) + self.unsure(0.0)
        for shift in _SHIFTS:
            moved: Any = (1 - ours) + ours * np.exp(1j * shift)  # w(x + i y) / w(x)
            exponents = density + self.power * np.log(np.abs(moved)) - frequency * np.angle(moved)
            exponents += shift**2 * z**2 / 2
            whole = np.exp(exponents).sum(1) + self._unsure_of_shifted(shift)
            found = np.fmin(found, np.log(whole * (1 + rounding) + rounding))
        return found

    def _unsure_of_shifted(self, shift: float) -> Array:
        """(kinds,) by the rule and beyond the points, along the path moved by `shift`."""
        z, less = self.kinds.multiplier, min(self.power, 0.0)
        angles = np.linspace(0.2, 1.0, 5) * (_WIDEST - shift)
        edge = angles**2 * z[:, None] ** 2 / 2 + less * np.log(np.cos(angles + shift))
        grown = np.exp(shift**2 * z**2 / 2)
        rule = 2.002 * np.exp((edge - self._sharpness(angles)).min(1))
        return grown * (rule + self._ends() * math.cos(shift) ** less)

    def _sharpness(self, angles: Array) -> Array:
        """(kinds, angles) log of exp(2 pi a z^2 / h) - 1, rounded down."""
        exponent = 2 * math.pi * angles * (self.kinds.multiplier**2 / self.step)[:, None]
        return np.where(exponent > 8, exponent - 1e-3, -math.inf)

    def _ends(self) -> Array:
        """(kinds,) what lies beyond the points, as a share of phi(order)."""
        square = self.kinds.multiplier**2
        right = (self.x[:, -1] - max(self.power, 0.0)) / square
        left = (-self.x[:, 0] - max(-self.power, 0.0)) / square
        above = self.weights[:, -1] / np.expm1(self.step * right)
        return 1.001 * (above + self.weights[:, 0] / np.expm1(self.step * left))

    def _rounding(self, frequency: float, turns: int) -> Array:
        farthest = np.abs(self.x[:, [0, -1]]).max(1)
        steep = (farthest + 0.5) / self.kinds.multiplier**2  # at least |log w|
        exponents = 16 * (abs(self.power) + frequency) * (1 + steep) + 4 * farthest * steep
        return UNIT * (64 + 8 * turns + self.x.shape[1] + exponents)


def _at_the_edge(z: Array, frequency: float, power: float) -> Array:
    """(kinds, angles) log of how much larger the integrand is at the edge of the strip."""
    return _ANGLES**2 * z**2 / 2 + frequency * _ANGLES + min(power, 0.0) * np.log(np.cos(_ANGLES))


def quadratures(kinds: DifferentSteps, order: float, frequency: float) -> list[Quadrature]:
    """The rule for every kind, exact up to this frequency; kinds that need about as many points
    lie in one table. Raises `Unsettled` where they are too many."""
    power, z = kinds.power(order), kinds.multiplier
    least = -_FAR * z - max(-power, 0.0)
    most = _FAR * z + max(power, 0.0)
    edge = _EXACT + _at_the_edge(z[:, None], frequency, power)
    widest = (2 * math.pi * _ANGLES * z[:, None] ** 2 / edge).max(1)
    needed = np.ceil((most - least) / widest) + 1
    if needed.max() > _MOST_POINTS:
        raise Unsettled(f"{needed.max():.0f} points for one kind of steps are too many")
    ranked = np.argsort(needed, kind="stable")
    return [
        _quadrature(kinds.at(some), power, least[some], most[some], int(needed[some].max()))
        for some in (ranked[start : start + _GROUP] for start in range(0, len(ranked), _GROUP))
    ]


def _quadrature(
    kinds: DifferentSteps, power: float, least: Array, most: Array, number: int
) -> Quadrature:
    z, q = kinds.multiplier[:, None], kinds.rate[:, None]
    step = (most - least) / (number - 1)
    x = least[:, None] + step[:, None] * np.arange(number)
    shifted = (2 * x - 1) / (2 * z**2)
    with np.errstate(divide="ignore"):
        small = np.log1p(q * np.expm1(np.minimum(shifted, _LARGE)))
        large = shifted + np.log(q + (1 - q) * np.exp(-np.maximum(shifted, 0.0)))
    log_ratio = np.where(q == 1, shifted, np.where(shifted > _LARGE, large, small))
    exponents = power * log_ratio - x**2 / (2 * z**2)
    top = exponents.max(1)
    weights = np.exp(exponents - top[:, None])
    total = weights.sum(1)
    cumulants = np.log(total * step / (kinds.multiplier * math.sqrt(2 * math.pi))) + top
    return Quadrature(kinds, power, x, step, log_ratio, weights / total[:, None], cumulants)


def cumulant(parts: Sequence[Quadrature]) -> tuple[float, float]:
    """K, the sum over all steps of log phi(order), and by how much it may be wrong."""
    found = sum(float(part.kinds.times @ part.cumulants) for part in parts)
    unsure = sum(float(part.kinds.times @ part.unsure(0.0)) for part in parts)
    return found, 1.001 * unsure + 1e-12 * (1 + abs(found))
