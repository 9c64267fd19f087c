"""The grid that changes are rounded to, and the ring that they are added in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nacre.federated_learning.secure.masks import RingVector, ring_type


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Multiples of `step`, added modulo 2**bits.

    `most = floor(largest / step)`, and `step` is the smallest power of two for which
    `parties * most <= 2**(bits - 1) - 1`.

    *Guarantee (no wrap):* an encoded entry is at most `most` in absolute value, so the sum over any
    subset of the parties lies within ± (2**(bits - 1) - 1): its residue modulo 2**bits is that of
    one integer in this range alone, which `decoded` returns. So the sum is exact on the grid.

    *Guarantee (norm):* with `norm`, an encoded vector times `step` is no longer than `norm`,
    exactly, by integer arithmetic: entries are rounded to the nearest multiple and, where that
    makes the vector too long, towards zero, which shortens each entry. So rounding adds nothing to
    the sensitivity of the sum. Rounding follows from the vector alone.

    Raises `ValueError` where `bits` leave no multiple beside zero.
    """

    bits: int  # 16, 24 or 32
    parties: int  # who may enter a sum, at most
    largest: float  # of one entry, in absolute value: beyond it, an entry is clamped
    norm: float | None = None  # L2, that no encoded vector is longer than

    def __post_init__(self) -> None:
        if not (0 < self.largest < math.inf) or self.parties < 1:
            raise ValueError(f"largest={self.largest} and parties={self.parties} must be positive")
        if (2 ** (self.bits - 1) - 1) // self.parties < 1:
            raise ValueError(
                f"{self.bits} bits hold no sum over {self.parties} parties; use more bits"
            )

    @property
    def step(self) -> float:
        """The width of the grid, a power of two."""
        room = (2 ** (self.bits - 1) - 1) // self.parties
        exponent = math.frexp(self.largest)[1] - room.bit_length()  # one too fine at most, twice
        while math.floor(math.ldexp(self.largest, -exponent)) > room:
            exponent += 1
        return math.ldexp(1.0, exponent)

    @property
    def most(self) -> int:
        """The greatest absolute value of an encoded entry, in steps."""
        return math.floor(self.largest / self.step)

    def encoded(
        self,
        values: NDArray[np.float32],  # (d,) finite; no longer than `norm` where there is one
    ) -> RingVector:  # (d,)
        """The values in steps, as elements of the ring. Raises `ValueError` for values that are not
        finite, or clearly longer than `norm`."""
        if not np.isfinite(values).all():
            raise ValueError("a change that is not finite has no place on the grid")
        # Exact: the step is a power of two, and what float32 cannot hold is beyond the largest.
        small = 2.0**-100 < self.step < 2.0**100
        with np.errstate(over="ignore"):
            scaled = values * (np.float32(1 / self.step) if small else np.float64(1 / self.step))
        rounded = self._clamped(np.rint(scaled))
        if self.norm is not None and not no_longer(rounded, self.norm / self.step):
            rounded = self._clamped(np.trunc(scaled))
            if not no_longer(rounded, self.norm / self.step):
                # A float32 vector of the norm may be longer by its own rounding.
                rounded = self._clamped(np.trunc(scaled * (1 - 2.0**-20)))
                if not no_longer(rounded, self.norm / self.step):
                    raise ValueError(f"a change is longer than the norm {self.norm:g}")
        return rounded.view(np.uint32).astype(ring_type(self.bits), copy=False)

    def _clamped(self, whole: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
        """Whole numbers as integers, at most `most` in absolute value."""
        most = self.most
        low, high = float(whole.min(initial=0)), float(whole.max(initial=0))
        if -most <= low and high <= most:
            return whole.astype(np.int32)
        # In float64, where `most` is a number of its own, which it need not be in float32.
        return np.clip(whole.astype(np.float64), -most, most).astype(np.int32)

    def decoded(self, total: RingVector) -> NDArray[np.float64]:  # (d,)
        """The integer in ± 2**(bits - 1) that each residue stands for, times `step`."""
        return in_range(total, self.bits) * np.float64(self.step)


def in_range(total: RingVector, bits: int) -> NDArray[Any]:
    """The integer in ± 2**(bits - 1) that each residue stands for."""
    spare = 8 * total.itemsize - bits
    return (total << spare).view(f"<i{total.itemsize}") >> spare


def no_longer(
    steps: NDArray[Any],  # (d,) whole numbers below 2**31 in absolute value
    most: float,
) -> bool:
    """Whether a vector is no longer than `most`, exactly: float64 decides where its rounding cannot
    matter, integers elsewhere."""
    wide = steps.astype(np.float64)
    squares = float(np.dot(wide, wide))
    if abs(squares - most**2) > 2.0**-50 * max(len(steps), 4) * most**2:
        return squares < most**2
    numerator, denominator = most.as_integer_ratio()  # `squares` is below 2**63: int64 holds it
    whole = steps.astype(np.int64)
    return int(np.dot(whole, whole)) * denominator**2 <= numerator**2


@dataclass(frozen=True, kw_only=True)
class WholeNumbers:
    """Whole numbers, added modulo 2**64.

    *Guarantee (no wrap):* `parties` numbers of at most `most` in absolute value have a sum within
    ± (2**63 - 1), whose residue is that of one integer in this range alone. So the sum is exact.
    """

    parties: int  # who may enter a sum, at most

    bits: ClassVar[int] = 64
    norm: ClassVar[None] = None

    @property
    def most(self) -> int:
        """The greatest absolute value of a number that is encoded."""
        return (2**63 - 1) // self.parties

    def whole(
        self,
        values: NDArray[np.int64],  # (d,)
    ) -> RingVector:  # (d,)
        """The numbers as elements of the ring. Raises `ValueError` for one beyond `most`."""
        if values.size and not (-self.most <= values.min() and values.max() <= self.most):
            raise ValueError(f"a number lies beyond {self.most}, so a sum of all could wrap")
        return values.astype(np.int64).view(ring_type(self.bits))

    def summed(self, total: RingVector) -> list[int]:  # (d,)
        """The integer that each residue stands for."""
        return total.view("<i8").tolist()
