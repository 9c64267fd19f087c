# SciPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Convolution powers of laws on one grid by one FFT, with a bound on the rounding of each mass.

With g the masses of a law, 1 in all, and m its most likely place, its characteristic function is
1 + z with z(w) = sum over j of g_j (exp(i w (j - m)) - 1): of rounding, z takes a share of what g
has outside m alone, which is little where most steps hardly lose anything. The componentwise error
of an FFT is at most a multiple of log2(N) roundings times the 1-norm (Higham 2002, "Accuracy and
stability of numerical algorithms", section 24.1, with absolute values in place of norms: each of
the log2(N) factors has a row of absolute values of at most the radix). With x a bound on the error
of the sum over the laws of times * log(1 + z), exp(x) - 1 is the relative error of the product at
this frequency; the mean of these errors over the frequencies bounds that of every mass.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import fft

from nacre.differential_privacy.accounting.arrays import Array

UNIT = 2.0**-53
"""The rounding of a double."""


class Power(NamedTuple):
    """The composition on the places (first + j) modulo the number of places."""

    first: int
    masses: Array  # (N,)
    error: float  # of each mass, absolute


def by_one_fft(rows: list[tuple[int, Array, int]], size: int) -> tuple[int, Array, float]:
    """The composition of laws, each as (first place, masses, how often): (its first place, (size,)
    masses, their error in the 2-norm)."""
    base, error, spectrum = 0, 1.0, np.ones(1, dtype=complex)
    for first, masses, times in rows:
        folded = np.bincount(np.arange(len(masses)) % size, masses, minlength=size)
        transformed: Any = fft.rfft(folded)
        spectrum = spectrum * transformed**times
        base += first * times
        error += times * float(np.linalg.norm(folded))
    inverse: Any = fft.irfft(spectrum, size)
    # Higham 2002, theorem 24.2
    return base, np.maximum(inverse, 0.0), 8 * UNIT * math.log2(size) * error


def power(first: int, masses: Array, times: Array, size: int) -> Power:
    """The composition of laws on the places from `first` on, (laws, places), each of mass 1 and
    taken `times` (laws,) over."""
    half = size // 2 + 1
    share = 16 * UNIT * math.log2(size)
    exponent: Any = np.zeros(half, dtype=complex)
    doubt, most, start = np.zeros(half), np.zeros(half), 0
    for row, number in zip(masses, times, strict=True):
        mode = int(row.argmax())
        logs, wrong, largest = _transformed(row, mode, size, share)
        exponent += number * logs
        doubt += number * wrong
        most += number * largest
        start += int(number) * (first + mode)
    spectrum: Any = np.exp(exponent)
    modulus = np.abs(spectrum)
    error = float((_unsure(modulus, doubt, most) + share * modulus).sum()) * 2 / size
    inverse: Any = fft.irfft(spectrum, size)
    return Power(start, np.maximum(inverse, 0.0), error)


def _transformed(row: Array, mode: int, size: int, share: float) -> tuple[Any, Array, Array]:
    """`_log1p` of one law's z at all frequencies."""
    others = row.copy()
    others[mode] = 0.0
    moved = float(others.sum())
    places = (np.arange(len(others)) - mode) % size
    raised: Any = fft.rfft(np.bincount(places, others, size))
    return _log1p(raised - moved, 2 * share * moved)


def _unsure(modulus: Array, doubt: Array, most: Array) -> Array:
    """How far a product may be wrong at each frequency."""
    close = modulus * np.expm1(np.minimum(doubt, 1.0))
    return np.where(doubt < 1, close, modulus + np.exp(np.minimum(most, 0.0)))


def _log1p(z: Any, error: float | Array) -> tuple[Any, Array, Array]:
    """log(1 + z) of complex z, known up to `error`; by how much it may be wrong, and the largest
    log |1 + z| that is possible."""
    size = np.abs(z)
    square = np.maximum(z.real * (2 + z.real) + z.imag**2, -1 + 1e-15)
    modulus = np.sqrt(1 + square)
    logs = 0.5 * np.log1p(square)
    found = logs + 1j * np.arctan2(z.imag, 1 + z.real)
    share = (error + 8 * UNIT * (2 * size + size**2) / modulus) / modulus
    wrong = np.where(share < 0.5, 2 * share, 1e300) + 8 * UNIT * np.abs(found)
    return found, wrong, logs + np.log1p(share)
