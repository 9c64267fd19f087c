"""Random bits to normals, and sums with noise rounded to a grid: one array operation at a time.

The compiled `_normals` gives the same bits in a tenth of the time, as a test demands: both use
nothing but operations that IEEE 754 rounds correctly, in the same order and in float32. So numbers
depend on no processor, library or compiler. Where there was no compiler at installation, this
module does the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
KeystreamWords = NDArray[np.uint32]

LEAST, MOST = 1 << 18, (1 << 32) - (1 << 12)
"""Words below and from these on (6.2 in 100,000) say too little of a radius with their 32 bits."""

_F = np.float32
_ROOT_HALF = 0x3F3504F3  # the bits of sqrt(1 / 2)
_ONE = 0x3F800000  # the bits of 1
_LN_2 = _F(0.693147180559945)
_ANGLE = _F(1.46291807926716e-9)  # pi / 2**31


def _series(z: NDArray[np.floating[Any]], *coefficients: int) -> NDArray[np.floating[Any]]:
    """a_0 + z (a_1 + z (a_2 + …)), each a the inverse of a whole number."""
    total = np.zeros_like(z)
    for number, inverse in enumerate(reversed(coefficients)):
        term = _F(1) / _F(inverse)
        total = z * total + term if number else total + term
    return total


def rare(words: KeystreamWords) -> NDArray[np.bool_]:
    """Which words say too little."""
    return (words < LEAST) | (words >= MOST)


def normals(words: KeystreamWords, angles: KeystreamWords, out: Floats) -> None:
    """`out` (2 h,) becomes the normals of h pairs (Box and Muller 1958), all cosines first.

    A pair is R cos A, R sin A with R = sqrt(-2 ln U), U = word / 2**32 and A = 2 pi angle / 2**32;
    NaN where the word is not in `LEAST` … `MOST` - 1. At most `box_muller.ERROR` from the exact
    ones, whatever the bits beyond these 32 would be.
    """
    # -ln U, for U = 2**(k - 32) (1 + f) with f between sqrt(1/2) - 1 and sqrt(2) - 1.
    odd = words | np.uint32(1)
    bits = odd.astype(np.float32).view(np.int32)
    k = ((bits + np.int32(_ONE - _ROOT_HALF)) >> 23) - 127
    power = np.where(k < 32, np.uint32(1) << (k & 31).astype(np.uint32), np.uint32(0))
    scale = ((127 - k) << 23).astype(np.int32).view(np.float32)
    f = (odd - power).view(np.int32).astype(np.float32) * scale
    s = f / (_F(2) + f)
    z = s * s
    tail = z * _series(z, 3, 5, 7, 9)  # artanh(s) = s (1 + z / 3 + z² / 5 + …)
    twice = s + s
    minus_log = (32 - k).astype(np.float32) * _LN_2 - (twice + twice * tail)
    radius = np.sqrt(minus_log + minus_log)
    radius[rare(words)] = np.nan
    # A as quarters of a turn and an angle of at most an eighth of one.
    turned = angles + np.uint32(1 << 29)
    quarter = turned >> np.uint32(30)
    rest = (turned & np.uint32((1 << 30) - 1)).view(np.int32) - np.int32(1 << 29)
    x = rest.astype(np.float32) * _ANGLE
    y = x * x
    sine = x + x * (y * _series(y, -6, 120, -5040, 362_880))
    cosine = _F(1) + y * _series(y, -2, 24, -720, 40_320)
    odd_quarter = (quarter & 1).astype(np.bool_)
    first, second = np.where(odd_quarter, sine, cosine), np.where(odd_quarter, cosine, sine)
    h = len(words)
    out[:h] = radius * np.where((quarter + 1) & 2, -first, first)
    out[h : 2 * h] = radius * np.where(quarter & 2, -second, second)


def rounded(
    noise: Floats,
    value: Floats,
    spread: float,
    step: float,
    margin: float,
    out: Floats,
    uncertain: NDArray[np.int32],
) -> int:
    """`out` = step * round(value / step + spread * noise); how many places were left open.

    A place is left open where the number to be rounded lies within `margin` of the middle between
    two whole ones, or is none: `out` is `value` there, and the place is written into `uncertain`.
    What is not finite in `value` stays as it is.
    """
    with np.errstate(all="ignore"):
        x = value * (_F(1) / _F(step))
        whole = np.rint(x)
        t = (x - whole) + _F(spread) * noise[: len(value)]
        nearest = np.rint(t)
        finite = value - value == 0
        certain = np.abs(t - nearest) < _F(0.5) - _F(margin)
        result = (whole + nearest + _F(0)) * _F(step)  # never -0, which tells of the sum
    places = np.flatnonzero(~certain & finite)
    uncertain[: len(places)] = places
    out[:] = np.where(certain & finite, result, value)
    return len(places)
