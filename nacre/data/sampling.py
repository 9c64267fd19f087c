"""Which units enter a step: Poisson, shuffled, or all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.core.errors import DataError
from nacre.core.random import Source


@dataclass(frozen=True)
class Poisson:
    """Each unit enters each step by its own coin, with the same declared rate.

    The rate is a public fact; the number drawn is private. It is computed from the declared size
    and never from the units at hand, so a wrong declaration moves the average batch and not the
    privacy of a unit.
    """

    expected: float  # units a step
    size: int  # units, declared

    @property
    def rate(self) -> float:
        """The probability with which a unit enters a step."""
        return self.expected / self.size

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) increasing int64 indices; the same step and `entered` draw the same units."""
        coins = source.child("poisson", step, entered).stream().uniform(units)
        return torch.nonzero(coins < self.rate)[:, 0]


@dataclass(frozen=True)
class Shuffled:
    """Passes over the units, each in a new random order; for runs without a guarantee.

    An epoch has `units // batch` steps (at least one). The units left over at its end sit that
    epoch out, so every step of an epoch has the same number of units; where there are fewer units
    than `batch`, each step takes all of them.
    """

    batch: int  # units a step
    size: int  # units, declared

    @property
    def expected(self) -> float:
        """Units a step."""
        return float(self.batch)

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) int64 indices of step `step`, counted from 0; the order is keyed by the epoch."""
        epoch, place = divmod(step, max(1, units // self.batch))
        order = source.child("epoch", epoch).stream().permutation(units)
        return order[place * self.batch : (place + 1) * self.batch]


@dataclass(frozen=True)
class Full:
    """Every unit, every step."""

    size: int  # units, declared

    @property
    def expected(self) -> float:
        """Units a step."""
        return float(self.size)

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(units,) int64: 0 … units - 1."""
        return torch.arange(units)


def _fits(batch: int, size: int) -> None:
    if batch < 1 or size < 1:
        raise ValueError(f"batch={batch} and size={size} must be at least 1")
    if batch > size:
        raise DataError(
            f"batch={batch} is larger than the declared size={size}, so no draw can hold it; "
            "lower `batch` or use `sampling: {kind: full}`"
        )


@dataclass(frozen=True, kw_only=True)
class PoissonSampling:
    """Every unit enters a step independently; the draw that differential privacy can amplify."""

    kind: Literal["poisson"] = "poisson"

    def build(self, batch: int, size: int) -> Poisson:
        """`batch` of `size` declared units expected a step. Raises `DataError` if it is larger."""
        _fits(batch, size)
        return Poisson(float(batch), size)


@dataclass(frozen=True, kw_only=True)
class ShuffledSampling:
    """Passes over the data in random order; without amplification."""

    kind: Literal["shuffled"] = "shuffled"

    def build(self, batch: int, size: int) -> Shuffled:
        """`batch` of `size` declared units a step. Raises `DataError` if it is larger."""
        _fits(batch, size)
        return Shuffled(batch, size)


@dataclass(frozen=True, kw_only=True)
class FullBatch:
    """Every unit in every step; `batch` is not read."""

    kind: Literal["full"] = "full"

    def build(self, batch: int, size: int) -> Full:
        """All of `size` declared units."""
        _fits(size, size)
        return Full(size)


SamplingOption = PoissonSampling | ShuffledSampling | FullBatch
