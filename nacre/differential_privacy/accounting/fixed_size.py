# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The Rényi curve of a Gaussian step on m of n units drawn without replacement, under replace-one.

Let i be replaced by i', let J be a random set of m - 1 others and k one more of them. With gamma =
m / n the step's laws are P = (1 - gamma) P0 + gamma P1 and Q = (1 - gamma) P0 + gamma Q1, where P1,
Q1 and P0 are the mixtures over J and k of normals around the sums of J + i, J + i' and J + k: any
two of the three are one sensitivity apart at most. As the linear term vanishes,

    E_Q[(P / Q)^a] = 1 + sum over j = 2 … a of (a choose j) gamma^j E_Q[((P1 - Q1) / Q)^j],

and by joint convexity each expectation is at most the largest, T_j, of E_R |(P - Q) / R|^j over
normals P, Q, R that are one sensitivity apart at most. Two bounds on T_j, with e(j) =
j (j - 1) / (2 z^2), are taken, the smaller for each j:

- |P - Q|^j <= P^j + Q^j, so T_j <= 2 exp(e(j)).
- T_j <= 4 B_j, B_j = E |L - 1|^j with L the density ratio of N(1, z^2) to N(0, z^2) under the
  latter: where R lies below or above both densities |P - Q| is at most the distance of R from the
  farther one; where it lies between them, replacing R by the smaller one makes the quotient larger.
  That is |P - R|, |Q - R|, |P - Q| over P, and |P - Q| over Q, each counted once. A smaller shift
  is a post-processing of a larger one.

For odd j, B_j^2 <= B_(j-1) B_(j+1) (Cauchy & Schwarz). Between whole orders the log of the moment
is convex, so the chord lies above it. And no draw costs more than the step on all units.

Source: Wang, Balle & Kasiviswanathan 2019, "Subsampled Rényi differential privacy and analytical
moments accountant", theorem 9 and, for B_j, theorem 27 of its long version.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import gammaln

from nacre.differential_privacy.accounting.arrays import Array

_CENTRED = 256
"""The largest j whose B_j is computed; beyond, twice the plain moment is as good."""

_LEAST_NOISE = 0.5
"""The multiplier below which B_j is as large as the plain moment."""


def fixed_size_curve(
    rate: float,  # m / n, in (0, 1]
    multiplier: float,  # z, in sensitivities under replace-one
    orders: Array,  # > 1
) -> Array:
    """The Rényi divergence at each order, an upper bound."""
    return np.array([_divergence(rate, multiplier, float(order)) for order in orders])


def _divergence(rate: float, multiplier: float, order: float) -> float:
    plain = order / (2 * multiplier**2)
    below = math.floor(order)
    moment = _log_moment(rate, multiplier, below)
    if order > below:
        moment += (order - below) * (_log_moment(rate, multiplier, below + 1) - moment)
    return min(plain, moment / (order - 1))


@functools.lru_cache(maxsize=4096)
def _log_moment(rate: float, multiplier: float, order: int) -> float:
    """log of the bound on E_Q[(P / Q)^order]; 0 at order 1."""
    if order < 2:
        return 0.0
    j = np.arange(2, order + 1)
    terms = math.log(2) + j * (j - 1) / (2 * multiplier**2)
    known = _log_centred(multiplier)[: order - 1]
    terms[: len(known)] = np.minimum(terms[: len(known)], math.log(4) + known)
    choices = gammaln(order + 1) - gammaln(j + 1) - gammaln(order - j + 1)
    return float(np.logaddexp(0.0, np.logaddexp.reduce(terms + choices + j * math.log(rate))))


@functools.lru_cache(maxsize=64)
def _log_centred(multiplier: float) -> Array:
    """log B_j for j = 2, 3 …; B_2 alone where there is too little noise.

    For even j by the trapezoid rule, which converges geometrically: the integrand is entire and
    falls like a normal density.
    """
    second = multiplier**-2 + math.log(-math.expm1(-(multiplier**-2)))  # log(exp(1 / z^2) - 1)
    if multiplier < _LEAST_NOISE:
        return np.array([second])
    step = min(multiplier, multiplier**2) / 8
    x = np.arange(-16 * multiplier, _CENTRED + 2 + 16 * multiplier, step)
    loss = (2 * x - 1) / (2 * multiplier**2)
    with np.errstate(divide="ignore"):  # the loss is zero at a half
        distance = np.maximum(loss, 0.0) + np.log(-np.expm1(-np.abs(loss)))
    weight = -((x / multiplier) ** 2) / 2 - math.log(multiplier * math.sqrt(2 * math.pi) / step)
    even = [float(np.logaddexp.reduce(j * distance + weight)) for j in range(4, _CENTRED + 3, 2)]
    ends = np.array([second, *even])
    found = np.empty(2 * len(ends) - 1)
    found[::2] = ends
    found[1::2] = (ends[1:] + ends[:-1]) / 2
    return found
