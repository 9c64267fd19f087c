"""Normals between two ends that surely hold them: what float64 leaves open, one in 1e13 draws.

mpmath's intervals are as narrow as the bits that are asked for. They are slow, and exact.
"""

# mpmath is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from nacre.core.normals.refined import Bits


def rounding(
    part: float,
    spread: float,
    bits: Bits,  # of one normal
    more: Callable[[int], Sequence[int]],  # k -> 64 bits of U and 64 of A in turn, k of each
) -> int:
    """round(part + spread * normal), certainly: from as many bits as it takes."""
    iv, mp = _mpmath()
    word, angle, second = int(bits.words[0]), int(bits.angles[0]), bool(bits.second[0])
    count = 1
    while True:
        with _precision(64 * count + 128):
            # The half is added in intervals too: a rounded sum might lie on the other side.
            t = iv.mpf(part) + iv.mpf(spread) * normal(word, angle, second, more(count))
            t = t + iv.mpf(0.5)
            low, high = (mp.floor(mp.mpf(end)) for end in (t.a, t.b))
        if low == high and mp.isfinite(low):
            return int(low)
        count += 1


def normal(word: int, angle: int, second: bool, fine: Sequence[int]) -> Any:
    """An interval that the normal of these bits lies in, whatever follows them, at the precision
    that is set; without ends where U may still be 0."""
    iv, _ = _mpmath()
    size = 32 + 32 * len(fine)
    for more, turn in zip(fine[::2], fine[1::2], strict=True):
        word, angle = word << 64 | more, angle << 64 | turn
    if word == 0:
        return iv.mpf(["-inf", "inf"])
    a = 2 * iv.pi * iv.mpf([angle, angle + 1]) / 2**size
    radius = iv.sqrt(-2 * iv.log(iv.mpf([word, word + 1]) / 2**size))
    return radius * (iv.sin(a) if second else iv.cos(a))


@contextmanager
def _precision(bits: int) -> Generator[None]:
    """Of mpmath's numbers and intervals, put back afterwards."""
    iv, mp = _mpmath()
    with _ONE_AT_A_TIME:
        before = iv.prec, mp.prec
        iv.prec = mp.prec = bits
        try:
            yield
        finally:
            iv.prec, mp.prec = before


_ONE_AT_A_TIME = threading.Lock()  # mpmath's precision is that of the whole process


def _mpmath() -> tuple[Any, Any]:
    """Its intervals and its numbers. They take a tenth of a second to import, and are needed once
    in many runs."""
    from mpmath import iv, mp

    return iv, mp
