"""Rules that go entry by entry: what one entry becomes depends on no other entry."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nacre.core.types import Tensors
from nacre.federated_learning.aggregates.aggregate import (
    NOTHING_KNOWN,
    AgainstFaults,
    RoundFacts,
    at_fault,
)
from nacre.federated_learning.aggregates.geometry import (
    each_name,
    from_the_smallest,
    middle,
    saturated,
)


@dataclass(frozen=True, kw_only=True)
class Median(AgainstFaults):
    """Coordinate by coordinate the middle contribution of those who answered.

    As long as fewer than half of them lie, every coordinate stays within the range of the honest
    ones (breakdown point one half). The middle of an even number is the mean of the middle two.

    Source: Yin et al. 2018, https://arxiv.org/abs/1803.01498, definition 1.
    """

    kind: Literal["median"] = "median"
    bad: int = 0
    """Parties at fault that are reckoned with; the rule itself needs no number."""

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the median."""
        self.enough(contributions)
        return each_name(contributions, lambda some: _times(middle(some), expected))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return "the median of the changes"

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes must be."""
        return (
            "The median withstands fewer than half of the parties at fault, where in each "
            "coordinate the middle of the honest changes is near their mean: changes that are "
            "mostly zero in a coordinate, as of parties that lack a class, are lost."
        )

    def kappa(self, parties: int) -> float:
        """4 (1 + f / (n - 2f))²: Allouah et al. 2023, https://arxiv.org/abs/2302.01772, table 1."""
        return 4 * _outvoted(parties, self.bad) ** 2


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(AgainstFaults):
    """Coordinate by coordinate the mean of what is left without the largest and the smallest.

    Source: Yin et al. 2018, https://arxiv.org/abs/1803.01498, definition 2.
    """

    kind: Literal["trimmed_mean"] = "trimmed_mean"
    bad: int
    """Parties at fault that are reckoned with: as many are left out at either end."""

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the trimmed mean."""
        self.enough(contributions)

        def trimmed(some: Tensor) -> Tensor:
            kept = from_the_smallest(some)[self.bad : len(some) - self.bad]
            return _times(kept.double().mean(0), expected)

        return each_name(contributions, trimmed)

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return (
            f"the trimmed mean of the changes, without the largest and the smallest {self.bad} in "
            "each coordinate"
        )

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes must be."""
        return (
            f"The trimmed mean withstands {at_fault(self.bad)}, and fewer than half of the "
            "parties at most, where the honest changes are alike in each coordinate: what is left "
            "out at either end may be honest."
        )

    def kappa(self, parties: int) -> float:
        """6f / (n - 2f) · (1 + f / (n - 2f)): Allouah et al. 2023, table 1."""
        outvoted = _outvoted(parties, self.bad)
        return 6 * (outvoted - 1) * outvoted if math.isfinite(outvoted) else math.inf


def _outvoted(parties: int, bad: int) -> float:
    """1 + f / (n - 2f); inf from one half on."""
    return 1 + bad / (parties - 2 * bad) if parties > 2 * bad else math.inf


def _times(values: Tensor, expected: float) -> Tensor:
    return saturated(values.double() * expected)
