"""Sums with normal noise, rounded to a grid *exactly*: as if noise and sum were real numbers.

A Gaussian mechanism that is computed in floating point is not the one of the proof: which floats
can come out, and how often, depends on the sum, and that tells of it (Mironov 2012; Jin et al.
2022; Holohan & Braghin 2021, who add several draws to make it harder). Here what is released is

    step * round(sum / step + spread * normal),    step = a power of two, spread * step = deviation

and the rounding is that of the *exact* real number under the rounding bracket, for a normal made of
infinitely many random bits. So a release is the real mechanism's answer, rounded by a public rule:
post-processing, which the proof covers. Nothing of the float arithmetic is left in its law.

*How.* A normal in float32 is at most `box_muller.ERROR` from the exact one. Unless the number to be
rounded lies that close to the middle between two whole ones, all real numbers it could be round
alike, and the result is certain. The rest, one in 5,000, is computed in float64 from 96 bits of
the same normal, to 1e-10; and what is open even then, one in 1e13, in intervals of as many bits as
it takes (Ziv 1991 does so for elementary functions). So the result is fixed by key and sum alone,
on any processor, with any library.

*Price.* The step is a 16th to a 32nd of the deviation, so rounding adds at most 0.04 % to the
variance of the noise, and no privacy is claimed for that.

*Limits.* The sum itself was added up in float32, and how it rounds may depend on one unit by some
2**-24 of the total (Casacuberta et al. 2022): that is not covered. The bits are pseudo-random.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nacre.core.normals import box_muller, intervals, refined
from nacre.core.normals.plain import Floats
from nacre.core.random import Source

try:
    from nacre.core.normals._normals import doubles as _compiled
except ImportError:  # not built when Nacre was installed
    _compiled = None

LEAST, MOST = 2.0**-100, 2.0**100
"""Deviations between which a step and its inverse are numbers of float32."""

_FINE = 1e-10  # what float64 may be off by: a spread below 32, times 1e-12
_UNIT = 2.0**-24  # half of the distance between 1 and the next float32


def grid(deviation: float) -> tuple[float, float]:
    """(spread, step): the deviation in steps, 16 to 32, and the step, a power of two.

    Raises `ValueError` for a deviation that is not between `LEAST` and `MOST`.

    >>> grid(1.5)
    (24.0, 0.0625)
    """
    if not LEAST <= deviation <= MOST:
        raise ValueError(
            f"deviation={deviation} must lie between {LEAST:.0e} and {MOST:.0e}: noise of it "
            "cannot be rounded exactly in float32; choose a clipping norm nearer to 1"
        )
    step = 2.0 ** (math.frexp(deviation)[1] - 5)
    return deviation / step, step


def add_rounded_noise(
    source: Source, deviation: float, values: Sequence[Tensor], outs: Sequence[Tensor]
) -> None:
    """Each of `outs` becomes its value plus noise of `deviation`, rounded to multiples of the step.

    Both are flat float32 tensors on the processor, of one length each; an out may be its value.
    Whole multiples beyond 2**24 are rounded to float32 once more, and 0 is never -0: so a result
    is a function of the whole multiple alone. Entries that are not finite stay as they are. Raises
    `ValueError` as `grid` does, and for numbers of another type.
    """
    if any(given.dtype != torch.float32 for given in (*values, *outs)):
        raise ValueError("sums and results must be float32")
    spread, step = grid(deviation)
    margin = spread * box_muller.ERROR + _slack(spread)
    blocks = box_muller.Blocks(source, sum(value.numel() for value in values))
    left = _Open(spread, step, refined.Fine(source))
    room = np.empty(2 * box_muller.PAIRS, np.int32)
    block, used = None, 0
    for value, out in zip(values, outs, strict=True):
        given, into, start = value.numpy(), out.numpy(), 0
        while start < len(given):
            if block is None or used == len(block.normals):
                block, used = blocks.next(), 0
            end = min(len(given), start + len(block.normals) - used)
            noise, result = block.normals[used : used + end - start], into[start:end]
            count = box_muller.rounded(noise, given[start:end], spread, step, margin, result, room)
            if count:
                places = room[:count].astype(np.int64)
                left.note(block.bits(used + places), result, places)
            used, start = used + end - start, end
    left.close()


def _slack(spread: float) -> float:
    """What float32 may lose of frac + spread * normal: the spread's own rounding, the product's
    and the sum's. A normal that is not rare is below sqrt(2 * 14 ln 2) = 4.41."""
    return _UNIT * (3 * 4.41 * spread + 2)


class _Open:
    """Places whose rounding is not certain yet; there the result is still the sum."""

    def __init__(self, spread: float, step: float, fine: refined.Fine) -> None:
        self._grid = spread, step
        self._fine = fine
        self._bits: list[refined.Bits] = []
        self._where: list[tuple[Floats, NDArray[np.int64]]] = []

    def note(self, bits: refined.Bits, result: Floats, places: NDArray[np.int64]) -> None:
        """These places of a result, and what their normals are made from."""
        self._bits.append(bits)
        self._where.append((result, places))

    def close(self) -> None:
        """Makes all of them certain, together."""
        if not self._bits:
            return
        sums = np.concatenate([result[places] for result, places in self._where])
        found = settled(refined.joined_words(self._bits), sums, *self._grid, self._fine)
        ends = np.cumsum([len(places) for _, places in self._where])
        for (result, places), some in zip(self._where, np.split(found, ends[:-1]), strict=True):
            result[places] = some


def settled(
    bits: refined.Bits,
    sums: Floats,  # (n,)
    spread: float,
    step: float,
    fine: refined.Fine,
) -> Floats:
    """(n,) step * round(sum / step + spread * normal), certainly."""
    x = sums.astype(np.float64) / step  # exact: a power of two
    whole = np.rint(x)
    words = fine.words(bits.pairs)
    t = (x - whole) + spread * _doubles(bits, words)
    nearest = np.rint(t)
    certain = (np.abs(t - nearest) < 0.5 - _FINE) & ~refined.vague(bits, words)
    for i in np.flatnonzero(~certain):
        one = bits.one(int(i))
        more = partial(_more, fine, one)
        nearest[i] = intervals.rounding(float(x[i] - whole[i]), spread, one, more)
    return ((whole + nearest + 0.0) * step).astype(np.float32)  # never -0, as in `plain`


def _doubles(bits: refined.Bits, fine: NDArray[np.uint64]) -> NDArray[np.float64]:
    """`refined.doubles`, by its compiled twin where there is one: last places may differ, which
    `_FINE` leaves room for, so no result does."""
    if _compiled is None:
        return refined.doubles(bits, fine)
    out = np.empty(len(bits.words))
    plain = np.ascontiguousarray
    _compiled(plain(bits.words), plain(bits.angles), plain(bits.second), plain(fine), out)
    return out


def _more(fine: refined.Fine, bits: refined.Bits, count: int) -> list[int]:
    return [int(word) for word in fine.words(bits.pairs, count)[0]]
