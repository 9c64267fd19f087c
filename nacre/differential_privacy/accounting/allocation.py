# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The privacy losses of a round of bins that are thrown anew, on a grid, from above.

*The pair* (`binned.py`, which proves it). Q draws x_1 … x_t from N(0, z^2); P / Q is S, the mean of
e_i = exp((2 x_i - 1) / (2 z^2)). Under Q the e_i are independent, lognormal, of mean 1; under P one
of them, the hot one, is weighted by itself (S is symmetric, so which one does not matter).

*Upper bound in both directions.* Each e_i is moved to one of its two neighbours v on a grid, at
random and so that its mean is kept. Given the e_i, the mean S' of the moved ones is then S on
average. E_Q (S - c)_+ and E_Q (1 - c S)_+ are means of convex functions of S, so by Jensen's
inequality neither is larger than with S': the pair of density S' dominates P from Q and Q from P.
It takes t-fold convolutions on a linear grid: of the law q of the moved e_i for Q, and of one
weighted law v q with t - 1 of q for P, whose masses are so computed themselves and not as S' times
tiny ones. The losses log S' (or -log S') then go to the grid of the composition, each between its
two neighbours so that P's and Q's mass are kept (Doroshenko et al. 2022, "Connect the dots").

*What is cut.* An e_i outside the grid stays where it is, which changes nothing above, and its
chance is counted as an infinite loss. Sums beyond the window of the FFT wrap around to smaller
ones: for P their chance (Chernoff's bound) is counted as an infinite loss; for Q from P a smaller
sum is a larger loss. Rounding moves the law by at most its 1-norm, which is counted likewise.

Source of the convolution: Feldman & Shenfeld 2026, arXiv 2602.17284, "Efficient privacy loss
accounting for subsampling and random allocation". They round the terms in one direction on a
geometric grid; keeping the mean makes the error of second order.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft
from scipy.special import ndtr, ndtri

from nacre.differential_privacy.accounting.arrays import Array

_UNIT = 2.0**-53
_SPREAD = 1e-4
"""What moving the terms may add to their variance, as a share of it."""

_MOST = 1 << 21  # places of a sum
_LARGEST = 25.0  # log of the largest term on a grid
_RISES = np.geomspace(1.0, 60.0, 25)  # of Chernoff's bound, over the largest term


@dataclass(frozen=True)
class Allocated:
    """A round of `bins` Gaussian steps of noise `multiplier`, one of which, drawn, has the unit.

    What is cut off has a chance of about `tail` at most.
    """

    bins: int
    multiplier: float
    tail: float


@dataclass(frozen=True)
class Law:
    """Losses, ascending, with masses, and the chance of an infinite loss."""

    losses: Array
    masses: Array
    lost: float


@functools.lru_cache(maxsize=16)
def law(kind: Allocated, added: bool) -> Law | None:
    """The losses of one round from above; None where there is too little noise for a grid."""
    bins, z, drift = kind.bins, kind.multiplier, 1 / (2 * kind.multiplier**2)
    far = -float(ndtri(kind.tail / (4 * bins)))
    if far / z + drift > _LARGEST:
        return None
    least, most = math.exp(-far / z - drift), math.exp(far / z + drift)
    width = math.sqrt(6 * _SPREAD * math.expm1(z**-2))
    width = max(width, 2 * most / _MOST)
    cold, outside, error = _moved(z, least, width, math.ceil((most - least) / width))
    values = least + width * np.arange(len(cold))
    hot = values * cold
    reach = _reach(values, cold, hot, bins, kind.tail)
    places = math.ceil((reach - bins * least) / width) + 2
    if places > _MOST:
        return None
    size: Any = fft.next_fast_len(max(places, len(cold)), real=True)
    one: Any = fft.rfft(cold, size)
    times = bins if added else bins - 1
    other: Any = 1.0 if added else fft.rfft(hot, size)
    spectrum: Any = one**times * other
    raw: Any = fft.irfft(spectrum, size)
    sums = np.maximum(raw, 0.0)
    norms = times * float(np.linalg.norm(cold)) + (0 if added else float(np.linalg.norm(hot)))
    # Higham 2002, theorem 24.2, as in `composition.py`; the 1-norm is at most sqrt(size) times the
    # 2-norm.
    rounded = 8 * _UNIT * math.log2(size) * (norms + times) * math.sqrt(size)
    lost = rounded + times * (outside[0] + error[0])
    if not added:
        lost += outside[1] + error[1] + kind.tail
    losses = np.log((bins * least + width * np.arange(size)) / bins)
    slack = 8 * _UNIT * (1 + np.abs(losses))
    if added:
        return _trimmed(slack[::-1] - losses[::-1], sums[::-1], lost, kind.tail)
    return _trimmed(losses + slack, sums, lost, kind.tail)


@functools.lru_cache(maxsize=16)  # the search for a tilt asks a hundred times
def points(kind: Allocated, added: bool) -> tuple[Array, Array]:
    """Losses and log masses of the same law on a coarse grid, for cumulants: their exponential
    moments of order 0 and above are no smaller."""
    found = law(kind, added)
    if found is None:
        return np.zeros(1), np.zeros(1)
    width = (found.losses[-1] - found.losses[0]) / 2000
    first, masses = on_lattice(found, width)
    with np.errstate(divide="ignore"):
        return (first + np.arange(len(masses))) * width, np.log(masses)


def on_lattice(found: Law, width: float) -> tuple[int, Array]:
    """(first, masses at (first + i) * width): each mass between its two neighbours, so that P's and
    Q's mass are kept."""
    place = np.floor(found.losses / width).astype(np.int64)
    first = int(place[0])
    up = found.masses * np.expm1(place * width - found.losses) / math.expm1(-width)
    up = np.clip(up * (1 + 8 * _UNIT), 0.0, found.masses)
    size = int(place[-1]) - first + 2
    masses = np.bincount(place - first + 1, up, size)
    masses += np.bincount(place - first, found.masses - up, size)
    return first, masses * (1 + 8 * _UNIT)


def _moved(
    z: float, least: float, width: float, cells: int
) -> tuple[Array, tuple[float, float], tuple[float, float]]:
    """Masses of one cold term on the grid; of a cold and a hot term, the chance to lie outside it
    and how far rounding may have moved the law in the 1-norm."""
    edges = least + width * np.arange(cells + 1)
    x = z * (np.log(edges) + 1 / (2 * z**2))  # of a standard normal law
    mass, mass_error = _between(x)
    mean, mean_error = _between(x - 1 / z)  # E of the term within each cell
    low = edges[:-1]
    up = np.clip((mean - low * mass) / width, 0.0, mass)
    error = (mean_error + low * mass_error + 8 * _UNIT * (mean + low * mass)) / width + mass_error
    cold = np.zeros(cells + 1)
    cold[1:] += up
    cold[:-1] += mass - up
    outside = [float(ndtr(ends[0]) + ndtr(-ends[-1])) for ends in (x, x - 1 / z)]
    moved = 2 * float(error.sum()), 2 * float(error @ edges[1:])
    return cold, (outside[0], outside[1]), moved


def _between(x: Array) -> tuple[Array, Array]:
    """(n - 1,) masses of the standard normal between neighbours, and the rounding of each."""
    left, right = ndtr(x), ndtr(-x)
    upper = x[:-1] > 0
    mass = np.where(upper, right[:-1] - right[1:], left[1:] - left[:-1])
    error = 8 * _UNIT * np.where(upper, right[:-1] + right[1:], left[1:] + left[:-1])
    return np.maximum(mass, 0.0), error


def _reach(values: Array, cold: Array, hot: Array, bins: int, tail: float) -> float:
    """A sum that one hot and `bins` - 1 cold terms exceed with a chance of at most `tail`."""
    found = math.inf
    for rise in _RISES / values[-1]:
        grown = np.expm1(rise * values)
        cumulant = (bins - 1) * math.log1p(float(cold @ grown)) + math.log1p(float(hot @ grown))
        found = min(found, (cumulant - math.log(tail)) / rise)
    return found * (1 + 1e-9)


def _trimmed(losses: Array, masses: Array, lost: float, tail: float) -> Law:
    """Without the ends, whose masses are rounding: the upper is lost, the lower moves up."""
    above = masses[::-1].cumsum()[::-1]
    below = masses.cumsum()
    first = int(np.searchsorted(below, tail))
    last = int(np.searchsorted(-above, -tail)) - 1  # the last place with more than `tail` from it
    last = max(last, first)
    kept = masses[first : last + 1].copy()
    kept[0] += below[first] - masses[first]
    beyond = float(above[last + 1]) if last + 1 < len(masses) else 0.0
    return Law(losses[first : last + 1], kept, lost + beyond)
