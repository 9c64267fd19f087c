"""Where epsilon lies, by the saddle point of the cumulant function of the privacy loss.

With K the sum of log E_P[exp(order L)] over the steps, the law of L tilted by exp(order L) has its
mean at K'(order). The order at which that mean is epsilon is found for a guess of epsilon (a
normal law after the tilt, as Daniels 1954); nothing that is certified depends on the guess.
"""

# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import erfcx

from nacre.differential_privacy.accounting.allocation import Allocated
from nacre.differential_privacy.accounting.allocation import points as round_points
from nacre.differential_privacy.accounting.arrays import Array
from nacre.differential_privacy.accounting.loss_distribution import Atoms, LossKind, Replaced

_POINTS = (256, 1 << 15)  # of the quadrature
_FAR = 12.0  # deviations: beyond lie 1e-33
_LEAST, _MOST = 0.05, 1e4  # orders
_HALVINGS = 24  # of their range: a guess needs no more than six digits
_AHEAD = np.geomspace(0.03, 30.0, 13)  # orders above the tilt, in units of order + 1
_SHORTER = (1.0, 0.7, 0.5, 0.35)  # orders to try, in units of the saddle point's


@dataclass(frozen=True)
class _Law:
    """The losses of one step as points with weights (a quadrature), for cumulants."""

    kind: LossKind
    added: bool

    def cumulants(self, order: float) -> tuple[float, float, float]:
        """(K, K', K'') at this order."""
        losses, weights = self._points(order)
        exponents = order * losses + weights
        top = float(exponents.max())
        grown = np.exp(exponents - top)
        total = float(grown.sum())
        mean = float(grown @ losses) / total
        spread = float(grown @ (losses - mean) ** 2) / total
        return math.log(total) + top, mean, spread

    def central(self, order: float) -> tuple[float, float]:
        """The second and third central moments of the tilted law."""
        losses, weights = self._points(order)
        exponents = order * losses + weights
        grown = np.exp(exponents - float(exponents.max()))
        grown /= grown.sum()
        away = losses - float(grown @ losses)
        return float(grown @ away**2), float(grown @ away**3)

    def _points(self, order: float) -> tuple[Array, Array]:
        """Losses and log weights, by the trapezoid rule. The integrand is analytic at least pi z^2
        from the real axis, so with two points a z^2 (and a z) its error is exp(-4 pi^2)."""
        kind = self.kind
        if isinstance(kind, Atoms):
            with np.errstate(divide="ignore"):
                return np.array(kind.losses), np.log(np.array(kind.masses))
        if isinstance(kind, Replaced):
            return _replaced_points(kind, order)
        if isinstance(kind, Allocated):
            return round_points(kind, self.added)
        z, q = kind.multiplier, kind.rate
        least = -_FAR * z - (order if self.added else 0.0)
        most = 1 + _FAR * z + (0.0 if self.added else order)
        points = 2 * (most - least) / min(z, z**2)
        x, step = np.linspace(least, most, int(np.clip(points, *_POINTS)), retstep=True)
        shifted = (2 * x - 1) / (2 * z**2)
        with np.errstate(divide="ignore"):
            loss = np.logaddexp(np.log1p(-q), math.log(q) + shifted)
        log_base = -0.5 * (x / z) ** 2 - math.log(z * math.sqrt(2 * math.pi))
        if self.added:
            return -loss, log_base + math.log(step)
        return loss, log_base + loss + math.log(step)


_NODES = 16  # of a panel
_RULE = np.polynomial.legendre.leggauss(_NODES)


def _replaced_points(kind: Replaced, order: float) -> tuple[Array, Array]:
    """The same for the half lines above and below a loss of 0, by Gauss and Legendre's rule on
    panels as long as z^2 (and z): with 16 nodes each its error is below that of the doubles."""
    z, q = kind.multiplier, kind.rate
    length = 0.5 + _FAR * z + order
    panels = int(np.clip(length / min(z, z**2), 16, _POINTS[1] // _NODES))
    nodes, weights = _RULE
    half = length / panels / 2
    x = (0.5 + half * (2 * np.arange(panels)[:, None] + 1 + nodes)).ravel()
    log_weight = np.tile(np.log(half * weights), panels)
    with np.errstate(divide="ignore"):
        loss = np.logaddexp(np.log1p(-q), math.log(q) + (2 * x - 1) / (2 * z**2))
        still = np.log([kind.still])
    base = log_weight - 0.5 * (x / z) ** 2 - math.log(z * math.sqrt(2 * math.pi))
    return np.concatenate([loss, -loss, [0.0]]), np.concatenate([base + loss, base, still])


@dataclass(frozen=True)
class Tilt:
    """The order of the tilt, and the epsilon that it is made for."""

    order: float
    epsilon: float
    laws: tuple[tuple[_Law, int], ...]

    def moved(self, epsilon: float) -> Tilt:
        """The same for another epsilon: the order whose tilted mean it is."""
        low, high = math.log(_LEAST), math.log(_MOST)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = _sum(self.laws, math.exp(middle))[1] < epsilon
            low, high = (middle, high) if below else (low, middle)
        return replace(self, order=math.exp(high), epsilon=epsilon)

    @property
    def skewness(self) -> float:
        """Of the tilted law: far above 1 where few steps decide, and the saddle point is none."""
        third = spread = 0.0
        for law, times in self.laws:
            one = law.central(self.order)
            spread, third = spread + times * one[0], third + times * one[1]
        return third / spread**1.5 if spread else 0.0

    def window(self, least: float, tiny: float, width: float) -> tuple[Tilt, float]:
        """The tilt that needs the shortest window above `least`, and the window's length.

        What lies below the window wraps around to its end, where scaling back from the tilt makes
        it smaller by exp(-order * length); what lies above it wraps around to its start and grows
        (`_reach`). Either is at most exp(`tiny`).
        """
        options: list[tuple[float, Tilt]] = []
        for share in _SHORTER:
            other = replace(self, order=self.order * share)
            length = max(-tiny / other.order, other._reach(least, tiny, width) - least)
            options.append((length, other))
        length, best = min(options, key=lambda option: option[0])
        return best, length

    def _reach(self, least: float, tiny: float, width: float) -> float:
        """A loss above which the composition on a grid of this width has so little mass that,
        were all of it wrapped around to `least` and scaled back from the tilt, exp(`tiny`) would
        bound it (Chernoff; on the grid K grows by at most (order + order^2) width^2 / 8 a step)."""
        count = sum(times for _, times in self.laws)
        found = math.inf
        for ahead in _AHEAD * (1 + self.order):
            order = self.order + float(ahead)
            cumulant = _sum(self.laws, order)[0] + count * (order + order**2) * width**2 / 8
            if math.isfinite(cumulant):
                needed = (cumulant - self.order * least - tiny) / float(ahead)
                found = min(found, needed)
        return found + width


def tilted(steps: Sequence[tuple[LossKind, int]], delta: float, added: bool) -> Tilt:
    """The tilt for the epsilon at `delta`, one direction of neighbours."""
    laws = tuple((_Law(kind, added), times) for kind, times in steps)
    low, high = math.log(_LEAST), math.log(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = _log_delta(laws, math.exp(middle)) > math.log(delta)
        low, high = (middle, high) if above else (low, middle)
    order = math.exp(high)
    return Tilt(order, max(0.0, _sum(laws, order)[1]), laws)


def _log_delta(laws: tuple[tuple[_Law, int], ...], order: float) -> float:
    """log delta at the tilted mean, were the tilted law normal."""
    cumulant, mean, spread = _sum(laws, order)
    wide = math.sqrt(spread / 2)
    tail = float(erfcx(order * wide) - erfcx((order + 1) * wide)) / 2
    return cumulant - order * mean + math.log(max(tail, 1e-300))


def _sum(laws: tuple[tuple[_Law, int], ...], order: float) -> tuple[float, float, float]:
    parts = [(law.cumulants(order), times) for law, times in laws]
    return (
        sum(times * found[0] for found, times in parts),
        sum(times * found[1] for found, times in parts),
        sum(times * found[2] for found, times in parts),
    )
