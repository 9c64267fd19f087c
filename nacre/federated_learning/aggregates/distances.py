"""Rules that look at whole changes: how far they lie from each other."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nacre.core import require
from nacre.core.types import Tensors
from nacre.federated_learning.aggregates.aggregate import (
    NOTHING_KNOWN,
    AgainstFaults,
    RoundFacts,
    at_fault,
)
from nacre.federated_learning.aggregates.geometry import (
    around_middle,
    smallest,
    squared_distances,
    weighted_sum,
)


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(AgainstFaults):
    """The point whose distances from all changes have the least sum (RFA).

    Found by Weiszfeld's iterations on weights of the contributions, which need their inner products
    alone. They start at the coordinate-wise median, since from the mean a lie of 1e30 would take a
    thousand of them to come back from.

    Source: Pillutla et al. 2022, https://arxiv.org/abs/1912.13445, algorithm 2 (smoothed).
    """

    kind: Literal["geometric_median"] = "geometric_median"
    bad: int = 0
    """Parties at fault that are reckoned with; the rule itself needs no number."""
    smoothing: float = 1e-6
    """Distance, in L2 norm, below which a change counts as one that lies this far."""
    iterations: int = 1000
    """Of which as many are made as still move the weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require.positive(smoothing=self.smoothing)
        require.at_least(1, iterations=self.iterations)

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the geometric median."""
        self.enough(contributions)
        return weighted_sum(contributions, expected * self._weights(around_middle(contributions)))

    def _weights(
        self,
        products: Tensor,  # (n, n) inner products around the coordinate-wise median
    ) -> Tensor:  # (n,) float64, of sum 1
        squares = products.diagonal()
        weights = self._nearness(squares)
        for _ in range(self.iterations):
            reached = products @ weights
            next_weights = self._nearness(squares - 2 * reached + weights @ reached)
            moved = float((next_weights - weights).abs().sum())
            weights = next_weights
            if moved <= _SETTLED:
                break
        return weights

    def _nearness(self, squares: Tensor) -> Tensor:
        """(n,) squared distances -> weights in inverse proportion to the distances, of sum 1."""
        near = 1 / squares.clamp(min=0).sqrt().clamp(min=self.smoothing)
        return near / near.sum()

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return "the geometric median of the changes (RFA)"

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes must be."""
        return (
            "The geometric median withstands fewer than half of the parties at fault, where the "
            "honest changes lie near each other as whole vectors; where they do not, it follows "
            "the majority of alike ones."
        )

    def kappa(self, parties: int) -> float:
        """4 (1 + f / (n - 2f))²: Allouah et al. 2023, https://arxiv.org/abs/2302.01772, table 1; of
        the exact minimum."""
        if parties <= 2 * self.bad:
            return math.inf
        return 4 * (1 + self.bad / (parties - 2 * self.bad)) ** 2


_SETTLED = 1e-9
"""How much weight in sum may still move in the last iteration."""


@dataclass(frozen=True, kw_only=True)
class Krum(AgainstFaults):
    """The change that lies nearest to its n - f - 2 nearest others, by the sum of squares.

    Of several that tie it is the mean.

    Source: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757, section 4.
    """

    kind: Literal["krum"] = "krum"

    @property
    def least(self) -> int:
        """2f + 3: proposition 1 of the paper."""
        return 2 * self.bad + 3

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the chosen change."""
        self.enough(contributions)
        return weighted_sum(contributions, expected * _chosen(contributions, self.bad, 1))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return f"the one change that lies nearest to the others (Krum, {self.bad} at fault)"

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes must be."""
        return (
            f"Krum withstands {at_fault(self.bad)}, of {self.least} or more parties, where "
            "the honest changes are alike: it follows one party, and what only others have learnt "
            "is lost."
        )

    def kappa(self, parties: int) -> float:
        """(1 + √2)² (n - f) / (n - 2f - 2).

        The least score is at most that of the honest on average, 2 (n - f) times their mean squared
        distance V from their mean. Of the chosen one's neighbours m >= n - 2f - 2 are honest, and
        their mean lies within √(2 (n - f) V / m) of it and within √((n - f) V / m) of the mean
        of all honest.
        """
        neighbours = parties - 2 * self.bad - 2
        return (
            (3 + 2 * math.sqrt(2)) * (parties - self.bad) / neighbours
            if neighbours > 0
            else (math.inf)
        )


@dataclass(frozen=True, kw_only=True)
class MultiKrum(AgainstFaults):
    """The mean of the changes that lie nearest to their n - f - 2 nearest others.

    Source: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757, section 5.
    """

    kind: Literal["multi_krum"] = "multi_krum"
    keep: int | None = None
    """Changes whose mean is taken; all but `bad` of those that came where none is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require.at_least(1, keep=self.keep)

    @property
    def least(self) -> int:
        """2f + 3, and no more kept than are honest."""
        return max(2 * self.bad + 3, (self.keep or 0) + self.bad)

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the mean of those kept."""
        self.enough(contributions)
        keep = len(contributions) - self.bad if self.keep is None else self.keep
        return weighted_sum(contributions, expected * _chosen(contributions, self.bad, keep))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        kept = f"all but {self.bad}" if self.keep is None else f"{self.keep}"
        return (
            f"the mean of {kept} of the changes, those that lie nearest to the others "
            f"(multi-Krum, {self.bad} at fault)"
        )

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes must be."""
        return (
            f"Multi-Krum withstands {at_fault(self.bad)}, of {self.least} or more parties, "
            "where the honest changes are alike: the parties that differ most are left out, honest "
            "or not."
        )

    def kappa(self, parties: int) -> float:
        """That of Krum: the scores of those kept are at most those of as many honest ones, and the
        squared distance of a mean is at most the mean of the squared distances."""
        return Krum(bad=self.bad).kappa(parties)


def _chosen(
    contributions: Sequence[Tensors],
    bad: int,
    keep: int,
) -> Tensor:  # (n,) float64, of sum 1
    """Equal weights for the `keep` smallest scores."""
    others = squared_distances(contributions).sort(1).values[:, 1:]  # first: of each to itself
    scores = others[:, : len(contributions) - bad - 2].sum(1)
    return smallest(scores[None], keep)[0]
