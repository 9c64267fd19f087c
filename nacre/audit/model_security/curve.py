"""Accuracy over radii by a cascade: the whole radius first, smaller ones where it broke a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import QueryCounts, Scorer
from nacre.adversarial_training.evaluation.cascade import (
    STANDING,
    WRONG,
    AttackOutcome,
    Cascade,
    StageFacts,
)
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.adversarial_training.threats.region import Region
from nacre.audit.model_security.search import scaled
from nacre.core.random import Source
from nacre.core.types import FeatureSpace

AttackShown = Callable[[int, str], None]
"""(attacks done, a few words on the rows that stand): called after each attack."""


@dataclass(frozen=True, eq=False)
class RobustRows:
    """What a cascade found for each row at every radius that was tried."""

    rows: Inputs
    points: Tensor  # (R, *shape): the point of the smallest radius that broke it, or the clean one
    broken_at: Tensor  # (R,) float64: share of the radius; 0 wrong from the start, inf standing
    whole: AttackOutcome  # at the whole radius
    smaller: QueryCounts  # spent at the smaller ones
    unconfirmed: int = 0  # points at any radius that were not broken when they were scored again

    @property
    def standing(self) -> Tensor:
        """(S,) int64: the places of the rows that nothing broke."""
        return self.broken_at.isinf().nonzero().squeeze(1)

    def standing_at(self, share: float) -> int:
        """How many rows nothing within this share of the radius broke."""
        return int((self.broken_at > share).sum())


@dataclass(frozen=True)
class RadiusSearch:
    """A cascade at several shares of a ball's radius.

    A row that stands at the whole radius is attacked there alone; of the others the smallest share
    that breaks them is found by halving, so a row costs one attack and at most log2(shares) more.
    A row broken at a smaller share counts as broken at every larger one, since smaller balls lie
    inside larger ones: accuracy never rises with the radius.
    """

    cascade: Cascade
    ball: ThreatOption
    space: FeatureSpace
    shares: Sequence[float]  # rising, the last one 1

    @property
    def attacks(self) -> int:
        """How many attacks `counted` hears of at most."""
        return len(self.shares) * len(self.cascade.stages)

    def region(self, share: float = 1.0) -> Region:
        """The ball with every radius times `share`."""
        return scaled(self.ball, share).region(self.space)

    def __call__(
        self, scorer: Scorer, rows: Inputs, source: Source, counted: AttackShown
    ) -> RobustRows:
        """What is found for `rows`, whose places must be 0, 1, …. The model has to be `untouched`
        around the call. Randomness is keyed by share and unit, so no row depends on another."""
        done = 0

        def shown(standing: int, stages: int) -> None:
            counted(done + stages, f"{standing:,} of {some:,} rows stand")

        some = len(rows)
        last = len(self.shares) - 1
        whole = self.cascade(scorer, self.region(), rows, source.child("share", last), shown)
        done += len(self.cascade.stages)
        counted(done, f"{len(whole.standing):,} of {some:,} rows stand")
        before = scorer.queries.copy()
        points, at = whole.points.clone(), torch.full((len(rows),), torch.inf, dtype=torch.float64)
        at[whole.by == WRONG] = 0
        at[whole.by >= 0] = 1
        unconfirmed = whole.unconfirmed
        spans = [(-1, last, (whole.by >= 0).nonzero().squeeze(1))]
        while spans:
            low, high, index = spans.pop()
            if high - low < 2:
                continue
            middle, some = (low + high) // 2, len(index)
            part = replace(rows.take(index), place=torch.arange(len(index)))
            region = self.region(self.shares[middle])
            found = self.cascade(scorer, region, part, source.child("share", middle), shown)
            done += len(self.cascade.stages)
            counted(done, f"{len(found.standing):,} of {some:,} rows stand at a smaller radius")
            unconfirmed += found.unconfirmed
            fell = found.by != STANDING
            points[index[fell]] = found.points[fell]
            at[index[fell]] = self.shares[middle]
            spans += [(low, middle, index[fell]), (middle, high, index[~fell])]
        spent = scorer.queries.since(before)
        return confirmed(
            RobustRows(rows, points, at, whole, spent, unconfirmed), scorer, self.cascade.width
        )


def both_portions(one: RobustRows | None, other: RobustRows) -> RobustRows:
    """Two portions of rows as one, in this order; their stages are added up by name."""
    if one is None:
        return other
    first, rest = one.rows, other.rows
    rows = Inputs(
        torch.arange(len(first) + len(rest)),
        torch.cat([first.unit, rest.unit]),
        torch.cat([first.clean, rest.clean]),
        torch.cat([first.label, rest.label]),
        first.towards,
    )
    stages, places = _added(one.whole.stages, other.whole.stages)
    # A stage that one portion did not come to stands elsewhere in its list.
    by = [
        torch.tensor([*moved, WRONG, STANDING])[part.whole.by]  # -1 and -2 count from the end
        for moved, part in zip(places, (one, other), strict=True)
    ]
    whole = AttackOutcome(
        rows,
        torch.cat([one.whole.points, other.whole.points]),
        torch.cat(by),
        torch.cat([one.whole.steps, other.whole.steps]),
        torch.cat([one.whole.margins, other.whole.margins]),
        torch.cat([one.whole.reached, other.whole.reached]),
        stages,
        one.whole.unconfirmed + other.whole.unconfirmed,
    )
    smaller = QueryCounts(
        one.smaller.forwards + other.smaller.forwards,
        one.smaller.backwards + other.smaller.backwards,
    )
    points = torch.cat([one.points, other.points])
    at = torch.cat([one.broken_at, other.broken_at])
    return RobustRows(rows, points, at, whole, smaller, one.unconfirmed + other.unconfirmed)


def _added(
    one: Sequence[StageFacts], other: Sequence[StageFacts]
) -> tuple[tuple[StageFacts, ...], tuple[list[int], list[int]]]:
    """(the stages of both, where those of each have gone)."""
    found = list(one)
    places: list[int] = []
    for more in other:
        same = next((i for i, known in enumerate(found) if known.name == more.name), None)
        if same is None:
            places.append(len(found))
            found.append(more)
            continue
        known = found[same]
        places.append(same)
        found[same] = StageFacts(
            known.name,
            known.tried + more.tried,
            known.broke + more.broke,
            known.forwards + more.forwards,
            known.backwards + more.backwards,
            known.seconds + more.seconds,
        )
    return tuple(found), (list(range(len(one))), places)


def confirmed(found: RobustRows, scorer: Scorer, width: int) -> RobustRows:
    """Only what still breaks its row when all are scored once more, together.

    Another batch may round differently: a figure must be reproducible from its examples.
    """
    stays = [torch.zeros(0, dtype=torch.bool)]
    with torch.no_grad():
        for part in torch.arange(len(found.rows)).split(width):
            stays.append(~found.rows.take(part).broken(scorer(found.points[part])))
    lost = torch.cat(stays) & (found.broken_at > 0) & found.broken_at.isfinite()
    whole = replace(found.whole, by=found.whole.by.masked_fill(lost, STANDING))
    return replace(
        found,
        broken_at=found.broken_at.masked_fill(lost, torch.inf),
        whole=whole,
        unconfirmed=found.unconfirmed + int(lost.sum()),
    )
