"""Averages of a few contributions each, in front of a rule: honest ones become more alike."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.core.random import Source
from nacre.core.types import Tensors
from nacre.federated_learning.aggregates.aggregate import (
    NOTHING_KNOWN,
    Aggregate,
    RoundFacts,
    at_fault,
)
from nacre.federated_learning.aggregates.geometry import (
    smallest,
    squared_distances,
    weighted_sum,
    weighted_sums,
)
from nacre.federated_learning.aggregates.rules import RuleOption


@dataclass(frozen=True, kw_only=True)
class _InFront(Aggregate):
    """What stands in front of a rule has the needs of that rule."""

    before: RuleOption
    """The rule that is given the means; its `bad` counts parties."""

    def __post_init__(self) -> None:
        if not self.before.robust:
            raise BadArgument(
                f"before: averages in front of the {self.before.kind} are withstood by nobody "
                f"({self.kind}); name a robust rule, as `before: {{kind: geometric_median}}`"
            )

    @property
    def faults(self) -> int:
        """Those of the rule."""
        return self.before.faults

    @property
    def centred(self) -> bool:
        """As the rule."""
        return self.before.centred

    @property
    def rooted(self) -> bool:
        """As the rule."""
        return self.before.rooted


@dataclass(frozen=True, kw_only=True)
class Bucketing(_InFront):
    """The means of random buckets of contributions, in front of a rule.

    Honest means of `size` contributions spread by a factor 1 / √size less, and each party at fault
    spoils one bucket at most: the rule sees ⌈n / size⌉ contributions, as many of them at fault as
    before. The buckets follow from a public seed, the round and the order of the parties' names
    alone, so nobody's change decides with whom it is averaged.

    Source: Karimireddy, He and Jaggi 2022, https://arxiv.org/abs/2006.09365, algorithm 1.
    """

    kind: Literal["bucketing"] = "bucketing"
    size: int = 2
    """Contributions of a bucket; the last one has fewer where they do not divide."""
    seed: int = 0
    """Public: from which the buckets follow, with the round."""

    def __post_init__(self) -> None:
        require.at_least(2, size=self.size)
        require.at_least(0, seed=self.seed)
        super().__post_init__()

    @property
    def least(self) -> int:
        """As many as give the rule as many means as it needs."""
        return self.size * (self.before.least - 1) + 1

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """What the rule gives of the means. One that sums takes them for as many parties as there
        are means, so its sum is brought back to `expected`."""
        self.enough(contributions)
        means = self.buckets(contributions, known.round)
        return _of_means(self.before, means, expected, known)

    def buckets(self, contributions: Sequence[Tensors], round_number: int) -> list[Tensors]:
        """The mean of each bucket."""
        count = len(contributions)
        key = hashlib.sha256(f"nacre buckets {self.seed}".encode()).digest()
        order = Source(key).child("round", round_number).stream().permutation(count)
        starts = range(0, count, self.size)
        weights = torch.zeros(len(starts), count, dtype=torch.float64)
        for row, start in zip(weights, starts, strict=True):
            members = order[start : start + self.size]
            row[members] = 1 / len(members)
        return weighted_sums(contributions, weights)

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return f"{self.before.sentence()}, of means over random buckets of {self.size} changes"

    def limits(self) -> str:
        """Those of the rule, in buckets."""
        return (
            f"In buckets of {self.size} honest changes spread less, and each party at fault spoils "
            f"a whole bucket, so the share that is withstood falls by a factor {self.size}. "
            f"{self.before.limits()}"
        )


@dataclass(frozen=True, kw_only=True)
class NearestNeighbourMixing(_InFront):
    """Each contribution replaced by the mean of its n - f nearest ones, in front of a rule.

    Itself is the nearest. A change at fault is averaged with honest ones, and honest ones become
    alike whatever they were before. Where neighbours tie for the last places they share them.

    Source: Allouah et al. 2023, https://arxiv.org/abs/2302.01772, algorithm 2.
    """

    kind: Literal["nearest_neighbour_mixing"] = "nearest_neighbour_mixing"
    before: RuleOption
    """The rule that is given the means; its `bad` is f."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.before.faults < 1:
            raise BadArgument(
                f"before: {self.before.kind} declares no party at fault, so each change would be "
                "averaged with all others, bad ones too; declare how many are reckoned with, as "
                f"`before: {{kind: {self.before.kind}, bad: 1}}`"
            )

    @property
    def least(self) -> int:
        """As the rule, and more than twice those at fault."""
        return max(self.before.least, 2 * self.faults + 1)

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """What the rule gives of the means; of one that sums, brought back to `expected`."""
        self.enough(contributions)
        keep = len(contributions) - self.faults
        shares = smallest(squared_distances(contributions), keep)
        means = weighted_sums(contributions, shares)
        return _of_means(self.before, means, expected, known)

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return (
            f"{self.before.sentence()}, each change first averaged with its nearest neighbours, "
            f"{self.faults} of the parties at fault"
        )

    def limits(self) -> str:
        """Those of the rule, with changes made alike."""
        return (
            f"Nearest-neighbour mixing withstands {at_fault(self.faults)}, and fewer than "
            "half at most; it makes whatever changes there are more alike, so the rule behind it "
            f"needs less, and small groups of honest parties are averaged away. "
            f"{self.before.limits()}"
        )

    def kappa(self, parties: int) -> float:
        """8f / (n - f) · (kappa of the rule + 1): Allouah et al. 2023, lemma 1."""
        kappa = self.before.kappa(parties)
        if not math.isfinite(kappa):
            return math.inf
        return 8 * self.faults / (parties - self.faults) * (kappa + 1)


def _of_means(
    rule: RuleOption, means: Sequence[Tensors], expected: float, known: RoundFacts
) -> Tensors:
    """The rule's direction, times `expected`; for a rule that sums, as many are expected as there
    are means."""
    found = rule.total(means, float(len(means)), known)
    factor = torch.tensor([expected / len(means)], dtype=torch.float64)
    return weighted_sum([found], factor)
