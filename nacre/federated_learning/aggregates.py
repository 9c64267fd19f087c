"""Aggregates: from the parties' contributions to the one that the server follows.

An aggregate gives a *total*: what divided by the expected number of parties is the direction. So
the update (`total / expected`) is the same line for every aggregate, and the mean is a plain sum
whose bound is that of one party.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nacre.core.types import Tensors


@dataclass(frozen=True, kw_only=True)
class MeanAggregate:
    """The arithmetic mean, each party counting the same.

    A party that is absent counts as a change of zero, because the divisor is declared and not
    counted: under privacy of whole parties the count is private too. Equal weights keep the
    parties' sizes private.

    Source: McMahan et al. 2017, https://arxiv.org/abs/1602.05629, algorithm 1 (equal weights).
    """

    kind: Literal["mean"] = "mean"

    robust: ClassVar[bool] = False
    """One party can move it anywhere, so a party at fault ends the run."""

    def total(
        self,
        contributions: Sequence[Tensors],  # at least one; equal names and shapes
        expected: float,  # parties a round, declared
    ) -> Tensors:
        """Their sum; `expected` divides it later."""
        return _each(contributions, lambda stacked: stacked.sum(0))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return "the mean of the changes"

    def bound(self, each: float) -> float:
        """The share of one party in the total: `each`, the bound of its contribution."""
        return each


@dataclass(frozen=True, kw_only=True)
class Median:
    """Coordinate by coordinate the middle contribution of those who answered.

    As long as fewer than half of them lie, every coordinate stays within the range of the honest
    ones (breakdown point one half). The middle of an even number is the mean of the middle two.

    Source: Yin et al. 2018, https://arxiv.org/abs/1803.01498, definition 1.
    """

    kind: Literal["median"] = "median"

    robust: ClassVar[bool] = True
    """Made for parties at fault: their replies are left out and the run continues."""

    def total(
        self,
        contributions: Sequence[Tensors],  # at least one; equal names and shapes
        expected: float,  # parties a round, declared
    ) -> Tensors:
        """`expected` times the median."""
        return _each(contributions, lambda stacked: expected * _median(stacked))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return "the median of the changes"

    def bound(self, each: float) -> float:
        """inf, so every noise refuses it: a median is no sum with one bounded share a party.

        One party more or less can move each coordinate to its neighbour in order, and how far
        that lies depends on the others.
        """
        return math.inf


AggregateOption = MeanAggregate | Median

AGGREGATES = (MeanAggregate, Median)
"""Every aggregate; the laws run over them."""


def _each(contributions: Sequence[Tensors], combine: Callable[[Tensor], Tensor]) -> Tensors:
    """`combine` on (parties, *shape), name by name."""
    names = contributions[0]
    return {name: combine(torch.stack([c[name] for c in contributions])) for name in names}


def _median(values: Tensor) -> Tensor:
    """(parties, *shape) -> (*shape). Halves are added, since two large numbers may overflow."""
    ordered = values.sort(0).values
    count = len(values)
    return ordered[(count - 1) // 2] / 2 + ordered[count // 2] / 2
