# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The Rényi curve of a round of Gaussian steps, one a bin, where a unit is in a random bin of b.

*The pair.* Given the bins of all others, step t shows the unit's share, of length r_t <= 1 in
sensitivities, if t is its bin, beside normal noise; r_t and the direction may follow from the steps
before. Turned into that direction it is made from x_t, which is N(1, z^2) in the unit's bin and
N(0, z^2) elsewhere: r_t x_t plus normal noise of variance z^2 (1 - r_t^2); across it there is noise
alone. So the round is a post-processing of x_1 … x_b, and no two neighbours by add-or-remove or
zero-out are told apart better than P, the mixture over the bins, from Q, all zero: P / Q is L, the
mean of e_1 … e_b with e_t = exp((2 x_t - 1) / (2 z^2)) (Chua et al. 2024, "Balls-and-bins sampling
for DP-SGD", theorem on the dominating pair). Both directions are computed, and the larger is taken
(on every setting tried the first; that it always is, we have not proven):

- P from Q at a whole order a: E_Q L^a = a! b^-a times the coefficient of u^a in the b-th power of
  the sum over k of u^k / k! exp(k (k - 1) / (2 z^2)), as the e_t are independent under Q and
  E e_t^k = exp(k (k - 1) / (2 z^2)). Between whole orders its log is convex: the chord lies above.
- Q from P at order a = 1 + s: E_Q L^-s = 1 / Gamma(s) times the integral over t > 0 of t^(s - 1)
  phi(t / b)^b, with phi the Laplace transform of one e_t: Gamma(s) L^-s is the integral of
  t^(s - 1) exp(-t L).

And no round costs more than one Gaussian step: a mixture is no worse than its worst part.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import gammaln, lambertw

from nacre.differential_privacy.accounting.arrays import Array

_HIGHEST = 256
"""The order above which one Gaussian step bounds the round."""

_STEP = 0.1  # of log t: the integrand is analytic within pi / 2 of the real line
_LOW = -40.0  # log t below which phi is taken for 1, which it is at most
_BENT = 50.0  # how far phi's integrand may be bent by exp(-t e): beyond, it is too narrow for us
_FAR = 12.0  # deviations


def binned_curve(
    bins: int,
    multiplier: float,  # z, in sensitivities
    orders: Array,  # > 1
) -> Array:
    """The Rényi divergence at each order, the larger of both directions, for one round."""
    return np.array([_divergence(bins, multiplier, float(order)) for order in orders])


def _divergence(bins: int, multiplier: float, order: float) -> float:
    plain = order / (2 * multiplier**2)
    if bins == 1 or order > _HIGHEST:
        return plain
    moments, below = _log_moments(bins, multiplier), math.floor(order)
    there = float(moments[below])
    if order > below:
        there += (order - below) * float(moments[below + 1] - moments[below])
    away = _log_away(bins, multiplier, order - 1)
    return min(plain, max(there, away, 0.0) / (order - 1))


@functools.lru_cache(maxsize=256)
def _log_moments(bins: int, multiplier: float) -> Array:
    """log E_Q L^a for a = 0 … `_HIGHEST` + 1; all terms are positive, so no digit is lost."""
    k = np.arange(_HIGHEST + 2)
    square = k * (k - 1) / (2 * multiplier**2) - gammaln(k + 1) - k * math.log(bins)
    power = np.full(len(k), -math.inf)
    power[0] = 0.0
    left = bins
    while left:
        if left & 1:
            power = _product(power, square)
        left >>= 1
        if left:
            square = _product(square, square)
    return power + gammaln(k + 1)


def _product(one: Array, other: Array) -> Array:
    """Logs of the coefficients of a product of two series, as many as they have."""
    return np.array(
        [np.logaddexp.reduce(one[: n + 1] + other[: n + 1][::-1]) for n in range(len(one))]
    )


def _log_away(bins: int, multiplier: float, s: float) -> float:
    """log E_Q L^-s; inf where the integrand reaches beyond what is computed of phi."""
    log_t, log_phi = _transform(multiplier)
    terms = s * (log_t + math.log(bins)) + bins * log_phi
    if terms[-1] > terms.max() - 40:
        return math.inf
    start = s * (_LOW + math.log(bins)) - math.log(s)  # the integral below `_LOW`, phi <= 1
    terms[0] -= math.log(2)  # the trapezoid rule, which there lies above: the terms grow as t^s
    whole = np.logaddexp(np.logaddexp.reduce(terms) + math.log(_STEP), start)
    return float(whole - gammaln(s))


@functools.lru_cache(maxsize=256)
def _transform(multiplier: float) -> tuple[Array, Array]:
    """log t, and log phi(t) = log E exp(-t e) there, for e = exp(x / z - 1 / (2 z^2)), x normal.

    The trapezoid rule about the largest value of the integrand, at x = -z w with w the Lambert
    function of t exp(-1 / (2 z^2)) / z^2; around it the integrand falls at least as a normal
    density does.
    """
    drift = 1 / (2 * multiplier**2)
    high = math.log(_BENT) + _BENT + 2 * math.log(multiplier) + drift
    log_t = np.arange(_LOW, min(high, 600.0), _STEP)
    w = np.real(lambertw(np.exp(np.minimum(log_t - drift, 690.0)) / multiplier**2))
    step = 0.25 / math.sqrt(1 + _BENT)
    x = (-multiplier * w)[:, None] + np.arange(-_FAR, _FAR, step)
    bent = np.exp(np.minimum(log_t[:, None] + x / multiplier - drift, 690.0))
    weight = -(x**2) / 2 - 0.5 * math.log(2 * math.pi) + math.log(step)
    far = np.logaddexp.reduce(weight - bent, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log1p((np.exp(weight) * np.expm1(-bent)).sum(1))  # where phi is about 1
    return log_t, np.where(w < 0.1, near, far)
