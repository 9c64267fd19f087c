"""A list of attacks over one batch: each gets the rows that all before it left standing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.inputs import Inputs
from nacre.adversarial_training.evaluation.losses import score_margin
from nacre.adversarial_training.evaluation.stage import Allowed, Stage
from nacre.adversarial_training.evaluation.survivors import hunt
from nacre.core.random import Source

STANDING, WRONG = -1, -2
"""In `AttackOutcome.by`: nothing broke the row; the clean row was broken already."""

Shown = Callable[[int, int], None]
"""(rows that stand, stages done): called after each stage."""


@dataclass(frozen=True)
class StageFacts:
    """One line of the stage table."""

    name: str
    tried: int  # rows that stood before it
    broke: int
    forwards: int  # rows put through the model, the caller's own scoring included
    backwards: int
    seconds: float


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """What a cascade found."""

    rows: Inputs
    points: Tensor  # (R, *shape): the point that broke the row, or the clean input
    by: Tensor  # (R,) int64: which of `stages` broke it, `STANDING` or `WRONG`
    steps: Tensor  # (R,) int64: evaluations of the row in the stage that broke it
    margins: Tensor  # (R,): best other score minus the right one at `points`
    reached: Tensor  # (R,): the best margins that the stages say they have come to; -inf: none did
    stages: tuple[StageFacts, ...] = ()
    unconfirmed: int = 0  # points that a stage called broken and that were not when scored again

    @property
    def standing(self) -> Tensor:
        """(S,) int64: the places of the rows that nothing broke."""
        return (self.by == STANDING).nonzero().squeeze(1)

    @property
    def accuracy(self) -> float:
        """Share of all rows that stand; nan without rows."""
        return len(self.standing) / len(self.by) if len(self.by) else float("nan")


@dataclass(frozen=True)
class Series:
    """Stages of one kind, of which the later ones break less and less: it ends once stages that
    broke nothing, one after another, have tried `patience` rows in all. None ends it never."""

    stages: Sequence[Stage]
    patience: int | None = None


@dataclass(frozen=True)
class Cascade:
    """Attacks in the order in which they are tried, and how many rows a step holds."""

    stages: Sequence[Stage | Series]
    width: int = 256

    def __call__(
        self,
        scorer: Scorer,
        region: Allowed,
        rows: Inputs,
        source: Source,
        shown: Shown | None = None,
    ) -> AttackOutcome:
        """What the stages find. The model has to be `untouched` around the call.

        `source` keys each stage by its place, so the same cascade finds the same.
        """
        found = _begun(scorer, rows, self.width)
        for place, entry in enumerate(self.stages):
            series = entry if isinstance(entry, Series) else Series((entry,))
            idle = 0
            for number, stage in enumerate(series.stages):
                tired = series.patience is not None and idle >= series.patience
                if tired or not len(found.standing):
                    break
                found = self._after(stage, found, scorer, region, source.child(place, number))
                facts = found.stages[-1]
                idle = 0 if facts.broke else idle + facts.tried
                if shown is not None:
                    shown(len(found.standing), place + 1)
        return found

    def _after(
        self, stage: Stage, found: AttackOutcome, scorer: Scorer, region: Allowed, source: Source
    ) -> AttackOutcome:
        """What is found when this stage has tried all that stand."""
        before, started = scorer.queries.copy(), time.perf_counter()
        standing, number = found.standing, len(found.stages)
        rows = replace(found.rows.take(standing), reached=found.reached[standing])
        fallen = hunt(stage, scorer, region, rows, source, self.width)
        points, by, steps = found.points.clone(), found.by.clone(), found.steps.clone()
        margins, reached = found.margins.clone(), found.reached.clone()
        points[fallen.place] = fallen.points
        by[fallen.place], steps[fallen.place] = number, fallen.steps
        margins[fallen.place] = fallen.margins.to(margins)
        reached[standing] = fallen.reached
        spent = scorer.queries.since(before)
        facts = StageFacts(
            stage.name, len(standing), len(fallen.place), spent.forwards, spent.backwards,
            time.perf_counter() - started,
        )  # fmt: skip
        stages = (*found.stages, facts)
        return replace(
            found,
            points=points,
            by=by,
            steps=steps,
            margins=margins,
            reached=reached,
            stages=stages,
            unconfirmed=found.unconfirmed + fallen.unconfirmed,
        )


def _begun(scorer: Scorer, rows: Inputs, width: int) -> AttackOutcome:
    broken, margins = _scored(scorer, rows, rows.clean, width)
    by = torch.where(broken, WRONG, STANDING)
    reached = torch.full_like(margins, -torch.inf)
    return AttackOutcome(rows, rows.clean.clone(), by, torch.zeros_like(by), margins, reached)


def _scored(scorer: Scorer, rows: Inputs, points: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(whether broken, margins) at these points."""
    broken, margins = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0)]
    with torch.no_grad():
        for part in torch.arange(len(rows)).split(width) if len(rows) else ():
            scores = scorer(points[part])
            broken.append(rows.take(part).broken(scores))
            margins.append(score_margin(scores, rows.label[part]))
    return torch.cat(broken), torch.cat(margins)
