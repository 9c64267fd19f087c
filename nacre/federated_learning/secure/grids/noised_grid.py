"""The grid of sums that the parties noise themselves: rounding at random, within the norm, and each
party's share of the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.core.parts import NoiseShare
from nacre.core.random import Source
from nacre.federated_learning.secure.grids.grid import in_range, no_longer
from nacre.federated_learning.secure.masks import RingVector, ring_type

_TRIES = 64
"""Roundings that are tried; all of them fail once in 10**13 vectors at worst."""


@dataclass(frozen=True, kw_only=True)
class NoisedGrid:
    """Multiples of `step`, added modulo 2**bits, with noise in each party's vector.

    An entry is rounded up or down at random, so that it is right on average: rounded to the
    nearest, the small entries of a long vector would all be lost. A vector is first made no longer
    than `inner`, and is rounded anew until it is no longer than `norm`.

    *Guarantee (norm):* before the noise, an encoded vector times `step` is no longer than `norm`,
    exactly, by integer arithmetic, whatever the vector was. So rounding adds nothing to the
    sensitivity of the sum: one party moves it by `norm`, or by twice that where it is exchanged.

    *Why `inner`:* with c and the norm C in steps and d entries, a vector no longer than c is
    rounded to one no longer than the root of c**2 + d/4 + c + sqrt(d)/2 with a chance of at least
    1 - exp(-1/2) = 0.39 (Kairouz, Liu & Steinke 2021, https://arxiv.org/abs/2102.06387, section 4:
    rounding conditioned on the norm, beta = exp(-1/2)). `inner` is the c that makes this C, so some
    tries are enough; the chance is no part of the guarantee.

    *Guarantee (wrap):* the sum is taken modulo 2**bits after the noise, which is post-processing.
    It leaves the range with the chance that the step was chosen for, and costs accuracy alone.

    Raises `ValueError` where rounding could double a vector of the norm.
    """

    bits: int  # 16, 24 or 32
    parties: int  # who may enter a sum, at most
    step: float  # a power of two
    norm: float  # L2, that no vector is longer than
    noise: NoiseShare  # in steps

    def __post_init__(self) -> None:
        if not 0 < self.norm < math.inf or math.frexp(self.step)[0] != 0.5:
            raise ValueError(f"norm={self.norm} must be positive and step={self.step} a power of 2")
        if self.parties * self.most > 2 ** (self.bits - 1) - 1:
            raise ValueError(f"{self.bits} bits hold no sum over {self.parties} parties")
        if not self.inner > self.norm / 2:
            raise ValueError(
                f"a grid of {self.step:.3g} is too coarse for {self.noise.dimension} entries of a "
                f"change that is no longer than {self.norm:g}: rounding alone may be as long; use "
                "`bits: 32`, or let a smaller part be trained"
            )

    @property
    def most(self) -> int:
        """The greatest absolute value of an entry before its noise, in steps."""
        return math.floor(self.norm / self.step)

    @property
    def inner(self) -> float:
        """What a vector is shortened to before it is rounded, in L2; 0 where there is no room."""
        wide = self.noise.dimension
        whole = (self.norm / self.step) ** 2 - wide / 4 - math.sqrt(wide) / 2 + 0.25
        return max(0.0, math.sqrt(max(0.0, whole)) - 0.5) * self.step

    @property
    def deviation(self) -> float:
        """Of the shares of noise that are unknown to those who see the sum, at least."""
        return self.noise.deviation * self.step

    def encoded(
        self,
        values: NDArray[np.float32],  # (d,) finite
        source: Source,  # of this party and round, and of what is asked
    ) -> RingVector:  # (d,)
        """The values in steps with this party's share of the noise, as elements of the ring.

        Rounding and noise are keyed by the values as well: a round that is taken again with the
        same ones gives the same vector, and one with others has other noise. Raises `ValueError`
        for values that are not finite, or of another number than the noise.
        """
        if not np.isfinite(values).all():
            raise ValueError("a change that is not finite has no place on the grid")
        if len(values) != self.noise.dimension:
            raise ValueError(
                f"the change has {len(values)} entries and noise was planned for "
                f"{self.noise.dimension}"
            )
        keyed = source.child("share", source.digest("values", torch.from_numpy(values)))
        whole = self.rounded(values, keyed.child("rounding")).astype(np.int64)
        whole += self.noise.drawn(keyed.child("noise"))
        low = (whole & (2**self.bits - 1)).astype(np.uint32)
        return low.astype(ring_type(self.bits), copy=False)

    def rounded(self, values: NDArray[np.float32], source: Source) -> NDArray[np.int32]:
        """The values in steps, rounded at random; no longer than `norm`."""
        scaled = values.astype(np.float64) / self.step
        length = math.sqrt(float(np.dot(scaled, scaled)))
        if length > self.inner / self.step:
            scaled *= self.inner / self.step / length
        down, stream = np.floor(scaled), source.stream()
        rest, most = scaled - down, self.norm / self.step
        for _ in range(_TRIES):
            words = stream.words((len(values) + 1) // 2).view(np.uint32)[: len(values)]
            found = down + (words < rest * 2.0**32)
            if no_longer(found, most):
                return found.astype(np.int32)
        return np.trunc(scaled).astype(np.int32)

    def decoded(self, total: RingVector) -> NDArray[np.float64]:  # (d,)
        """The integer in ± 2**(bits - 1) that each residue stands for, times `step`."""
        return in_range(total, self.bits) * np.float64(self.step)
