"""Membership attacks as thresholds on a score: fixed on one half of the rows, counted on the other.

A row is called a member where its score exceeds the threshold. Whatever is chosen (threshold,
attack, direction) is chosen on the first half alone, so the second half's counts are those of a
rule fixed beforehand, which is what every function of `bounds` asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nacre.audit.bounds import Counts
from nacre.core.random import Source

_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Scores:
    """The score of each row; a higher one speaks for a member. Broken scores speak for none."""

    members: Tensor  # (M,) float64
    outsiders: Tensor  # (O,) float64

    @classmethod
    def of(cls, members: Tensor, outsiders: Tensor) -> Scores:
        """Scores with every number that is not finite put lowest."""
        return cls(*(torch.where(s.isfinite(), s, _LOWEST) for s in (members, outsiders)))

    def halves(self, source: Source) -> tuple[Scores, Scores]:
        """(fixing, measuring): a random half of each cohort; one source always gives the same."""
        members = _halved(self.members, source.child("members"))
        outsiders = _halved(self.outsiders, source.child("outsiders"))
        return Scores(members[0], outsiders[0]), Scores(members[1], outsiders[1])

    def balanced(self) -> Scores:
        """As many members as outsiders: the first of each. Halves are in random order already."""
        count = min(len(self.members), len(self.outsiders))
        return Scores(self.members[:count], self.outsiders[:count])

    def counts(self, threshold: float) -> Counts:
        """What the threshold calls members."""
        return Counts(
            true_positives=int((self.members > threshold).sum()),
            members=len(self.members),
            false_positives=int((self.outsiders > threshold).sum()),
            outsiders=len(self.outsiders),
        )


def _halved(scores: Tensor, source: Source) -> tuple[Tensor, Tensor]:
    order = source.stream().permutation(len(scores)).to(scores.device)
    middle = len(scores) // 2
    return scores[order[:middle]], scores[order[middle:]]


class FixedThreshold(NamedTuple):
    """A threshold, and the advantage it had on the rows that fixed it (optimistic: never shown)."""

    threshold: float
    advantage: float


def fix(scores: Scores) -> FixedThreshold:
    """The threshold of largest advantage on `scores`; of equals the one that calls fewest members.

    Its advantage is never negative: above the highest score nobody is called a member.
    """
    candidates = torch.cat([scores.members, scores.outsiders]).sort(descending=True).values
    advantages = _above(scores.members, candidates) - _above(scores.outsiders, candidates)
    best = int(advantages.argmax())  # the first of equals, and candidates fall
    return FixedThreshold(float(candidates[best]), float(advantages[best]))


def _above(scores: Tensor, thresholds: Tensor) -> Tensor:
    """(T,) float64: the share of `scores` above each threshold."""
    below = torch.searchsorted(scores.sort().values, thresholds, right=True)
    return 1 - below.double() / len(scores)


def strongest(attacks: Mapping[str, Scores]) -> tuple[str, FixedThreshold]:
    """The attack of largest advantage on these rows, by name; the first of equals."""
    fixed = {name: fix(scores) for name, scores in attacks.items()}
    name = max(fixed, key=lambda key: fixed[key].advantage)
    return name, fixed[name]


def at_false_positives(scores: Scores, rate: float) -> float | None:
    """The threshold that calls at most `rate` of these outsiders members.

    None where there are too few outsiders to see such a rate: fewer than 1 / rate.
    """
    allowed = int(rate * len(scores.outsiders))
    if not allowed:
        return None
    return float(scores.outsiders.sort(descending=True).values[allowed])
