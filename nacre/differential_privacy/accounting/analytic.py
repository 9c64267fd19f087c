# pyright: reportUnknownVariableType=false
"""The Gaussian mechanism in closed form: epsilon, delta and multiplier, each from the other two.

T adaptive steps with multipliers z_1 … z_T have exactly the privacy loss of one step with
multiplier (sum of z_t**-2)**-0.5, so this is the exact price of every full-batch run.

Source: Balle & Wang 2018, "Improving the Gaussian mechanism for differential privacy", theorem 8;
Dong, Roth & Su 2022, "Gaussian differential privacy", corollary 2, for the composition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy.optimize import brentq
from scipy.special import log_ndtr

ROUNDING = 1e-9
"""Relative width that covers the root search and the rounding of `log_ndtr`."""


def gaussian_delta(epsilon: float, multiplier: float) -> float:
    """The smallest delta at `epsilon` of one Gaussian step; `multiplier` in sensitivities.

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    return math.exp(_log_delta(epsilon, 1 / multiplier))


def gaussian_epsilon(multiplier: float, delta: float) -> float:
    """The smallest epsilon at `delta` of one Gaussian step, rounded up by a relative 1e-9.

    >>> round(gaussian_epsilon(5 / 1000**0.5, 1e-5), 4)
    46.2112
    """
    shift = 1 / multiplier
    target = math.log(delta)
    if _log_delta(0.0, shift) <= target:
        return 0.0
    # P(loss > epsilon) bounds delta, and the loss is normal with mean shift**2 / 2.
    highest = shift**2 / 2 + shift * math.sqrt(-2 * target)
    return root(lambda x: _log_delta(x, shift) - target, 0.0, highest) * (1 + ROUNDING)


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """The smallest multiplier whose `gaussian_epsilon` is at most `epsilon` > 0."""
    target = math.log(delta)

    def excess(log_shift: float) -> float:
        return _log_delta(epsilon, math.exp(log_shift)) - target

    low = high = 0.0
    while excess(low) > 0:
        low -= 2.0
    while excess(high) < 0:
        high += 2.0
    return math.exp(-root(excess, low, high)) * (1 + 10 * ROUNDING)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where `function` is 0 between two arguments at which its sign differs, to 1e-13."""
    search: Any = brentq  # SciPy has no types
    return float(search(function, low, high, xtol=1e-300, rtol=1e-13))


def _log_delta(epsilon: float, shift: float) -> float:
    """log of Phi(shift/2 - epsilon/shift) - exp(epsilon) * Phi(-shift/2 - epsilon/shift)."""
    first = float(log_ndtr(shift / 2 - epsilon / shift))
    second = epsilon + float(log_ndtr(-shift / 2 - epsilon / shift))
    ratio = second - first  # below 0; it rounds to 0 where delta is far below the smallest double
    return first + math.log(-math.expm1(ratio)) if ratio < 0 else -math.inf
