"""The queue: rows that are broken leave, those that wait take their places.

So no evaluation is spent on what is already decided, and a step is always as wide as it may be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import Scorer
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState, both_states
from nacre.adversarial_training.evaluation.losses import score_margin
from nacre.adversarial_training.evaluation.stage import Allowed, Stage
from nacre.core.random import Source

VACANT = 0.125
"""Share of the width that has to be vacant before rows are moved up: moving copies the rest."""


@dataclass(frozen=True, eq=False)
class Fallen:
    """What a stage broke."""

    place: Tensor  # (F,) int64: of the row in the whole batch
    points: Tensor  # (F, *shape)
    steps: Tensor  # (F,) int64: evaluations of the row in this stage, the last one included
    margins: Tensor  # (F,): best other score minus the right one at `points`
    reached: Tensor  # (R,) the best margins of all rows, in this stage and before
    unconfirmed: int = 0  # points that the stage called broken and that are not when we score them


def hunt(
    stage: Stage,
    scorer: Scorer,
    region: Allowed,
    rows: Inputs,  # that stand
    source: Source,
    width: int,  # rows a step, at most
) -> Fallen:
    """Runs one stage over all rows and returns those that it broke, as the caller scores them.

    *Guarantee:* an attack is not believed. Each point that it calls broken is projected into the
    region and scored again here, all together; one that does not break the row then is left out,
    and the row stands; how many those are is said.
    """
    target = stage.access(scorer)
    waiting = 0
    work, state, steps = rows.take(torch.arange(0)), RowState(), torch.zeros(0, dtype=torch.int64)
    reached = _before(rows)
    order = _order(rows)
    places: list[Tensor] = []
    points: list[Tensor] = []
    counts: list[Tensor] = []
    while True:
        vacant = width - len(work)
        left = len(rows) - waiting
        if left and (not len(work) or vacant >= min(left, VACANT * width)):
            more = rows.take(torch.arange(waiting, waiting + min(vacant, left)))
            waiting += len(more)
            state = both_states(state, stage.begin(target, region, more, source))
            work = _joined(work, more)
            steps = torch.cat([steps, torch.zeros(len(more), dtype=torch.int64)])
        if not len(work):
            break
        tried = stage.advance(target, region, work, state, source)
        steps, state = steps + tried.evaluations, tried.state
        if bool(tried.broken.any()):
            places.append(work.place[tried.broken])
            points.append(tried.points[tried.broken])
            counts.append(steps[tried.broken])
        over = tried.broken | tried.ended
        if bool(over.any()):
            if tried.best is not None:
                left = order[work.place[over]]
                reached[left] = torch.maximum(reached[left], tried.best[over].to(reached))
            stays = (~over).nonzero().squeeze(1)
            work, steps = work.take(stays), steps[stays]
            state = {name: value.index_select(0, stays) for name, value in state.items()}
    if not places:
        none = torch.zeros(0, dtype=torch.int64)
        return Fallen(none, rows.clean[:0], none, torch.zeros(0), reached)
    place = torch.cat(places)
    found = torch.cat(points), torch.cat(counts), reached
    return _judged(place, *found, scorer, region, rows, width)


def _before(rows: Inputs) -> Tensor:
    """(R,) the best margins that are known when a stage begins; -inf where none is."""
    if rows.reached is not None:
        return rows.reached.clone()
    return torch.full((len(rows),), -torch.inf)


def _order(rows: Inputs) -> Tensor:
    """Which of `rows` stands at each place of the whole batch; -1 where none does."""
    order = torch.full((int(rows.place.max()) + 1 if len(rows) else 0,), -1, dtype=torch.int64)
    order[rows.place] = torch.arange(len(rows))
    return order


def _judged(
    place: Tensor, points: Tensor, steps: Tensor, reached: Tensor, scorer: Scorer, region: Allowed,
    rows: Inputs, width: int,
) -> Fallen:  # fmt: skip
    """Those that are broken when we project and score them."""
    asked = rows.take(_order(rows)[place])
    points = region.project(points, asked.clean)
    broken: list[Tensor] = []
    margins: list[Tensor] = []
    with torch.no_grad():
        for part in torch.arange(len(points)).split(width):
            scores, some = scorer(points[part]), asked.take(part)
            broken.append(some.broken(scores))
            margins.append(score_margin(scores, some.label))
    stands = torch.cat(broken)
    lost = len(stands) - int(stands.sum())
    kept = torch.cat(margins)[stands]
    return Fallen(place[stands], points[stands], steps[stands], kept, reached, lost)


def _joined(one: Inputs, other: Inputs) -> Inputs:
    return Inputs(
        torch.cat([one.place, other.place]),
        torch.cat([one.unit, other.unit]),
        torch.cat([one.clean, other.clean]),
        torch.cat([one.label, other.label]),
        other.towards,
        None if other.reached is None else torch.cat([_before(one), other.reached]),
    )
