"""Looking for inputs that change a number too much: one search for every radius and restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nacre.adversarial_training.attacks.evaluate import attacked
from nacre.adversarial_training.attacks.pgd import PGD
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.audit.answers import right
from nacre.audit.target import AuditProgress, Target
from nacre.core.rows import select
from nacre.core.types import Batch


@dataclass(frozen=True, eq=False)
class AttackSearch:
    """What was found for each row. A row stands only if nothing tried so far broke it."""

    batch: Batch  # the clean rows, one an entry
    features: Tensor  # (R, *shape): the point that broke the row, or the clean input
    broken_at: Tensor  # (R,) float64: share of the radius; 0 wrong from the start, inf standing

    @classmethod
    def begin(cls, target: Target, batch: Batch) -> AttackSearch:
        """Before any attack: only what the model gets wrong by itself is broken."""
        good = right(target.model, target.task, batch)
        start = torch.zeros(len(good), dtype=torch.float64, device=good.device)
        return cls(batch, batch["features"].detach(), start.masked_fill(good, torch.inf))

    @property
    def standing(self) -> Tensor:
        """(S,) int64: the rows that nothing broke yet."""
        return self.broken_at.isinf().nonzero().squeeze(1)

    def standing_at(self, share: float) -> int:
        """How many rows nothing within this share of the radius broke."""
        return int((self.broken_at > share).sum())

    def tried(self, target: Target, index: Tensor, features: Tensor, share: float) -> AttackSearch:
        """The search after `features` were tried on the rows `index`, inside `share`."""
        if not len(index):
            return self
        moved = {**select(self.batch, index), "features": features}
        fallen = ~right(target.model, target.task, moved) & self.broken_at[index].isinf()
        kept, broken_at = self.features.clone(), self.broken_at.clone()
        kept[index[fallen]] = features[fallen]
        broken_at[index[fallen]] = share
        return replace(self, features=kept, broken_at=broken_at)

    def confirmed(self, target: Target) -> AttackSearch:
        """Only what still changes the answer when all rows are scored once more, together.

        Another batch may round differently: a figure must be reproducible from its examples.
        """
        good = right(target.model, target.task, {**self.batch, "features": self.features})
        return replace(
            self, broken_at=self.broken_at.masked_fill(good & (self.broken_at > 0), torch.inf)
        )


def scaled(ball: ThreatOption, share: float) -> ThreatOption:
    """The threat with every radius times `share`; smaller ones lie inside larger ones."""
    return ball.scaled(share)


def search(
    target: Target,
    batch: Batch,
    ball: ThreatOption,
    *,
    shares: Sequence[float],  # of the radius, rising
    steps: int,
    restarts: int,
    advance: AuditProgress,
) -> AttackSearch:
    """PGD from `restarts` starts at each share; a row that fell is not attacked again.

    The first start is the clean input, from where the way to the edge is straight: on a linear
    model it ends at the worst point exactly. The others are random.

    Smaller balls lie inside larger ones, so a row that fell at a smaller share counts as fallen
    at every larger one: accuracy never rises with the radius.
    """
    found = AttackSearch.begin(target, batch)
    for place, share in enumerate(shares):
        part = scaled(ball, share)
        region = part.region(target.space)
        for restart in range(restarts):
            index = found.standing
            if len(index):
                pgd = PGD(ball=part, steps=steps, random_start=restart > 0)
                attack = pgd.build(target.space)
                source = target.source.child("evasion", place, restart)
                losses = target.task.losses
                moved = attacked(target.model, select(batch, index), losses, attack, region, source)
                found = found.tried(target, index, moved["features"], share)
            advance(place * restarts + restart + 1, len(shares) * restarts)
    return found
