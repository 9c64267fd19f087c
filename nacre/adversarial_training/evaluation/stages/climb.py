"""PGD as a stage: steepest steps on a loss of the scores, from the clean input or a random one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, WhiteBox
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import LOSSES
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.threats.region import Region, chosen_rows
from nacre.core.random import Source


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Projected gradient ascent with steps of one length.

    *Rule:* a step depends on the point alone, so a row that comes back to a point goes round for
    ever and has nothing new to find: it has ended, and the result is the same. `cycles: False`
    goes round. A loss that comes back raises the suspicion; the point is then kept, and the row
    ends if it is there again, bit for bit, as many steps later.

    *Source:* Madry et al. 2018, https://arxiv.org/abs/1706.06083, section 2.1; cycles as in
    https://arxiv.org/abs/2503.19347.
    """

    steps: int = 40
    step: float | None = None  # as a share of the radius; None takes 2.5 / steps
    loss: str = "cross_entropy"
    start: int | None = 0  # number of the random start; None starts at the clean input
    cycles: bool = True  # whether rows that go round end

    access: ClassVar[AccessType] = WhiteBox

    @property
    def name(self) -> str:
        """PGD with its number of steps."""
        return f"PGD-{self.steps}"

    def begin(self, target: WhiteBox, region: Region, rows: Inputs, source: Source) -> RowState:
        """The first points."""
        x, count = rows.clean, len(rows)
        if self.start is not None:
            uniform = source.child("start", self.start).stream().rows(rows.unit, region.draws)
            x = region.start(rows.clean, uniform)
        state = {"x": x, "left": torch.full((count,), self.steps, dtype=torch.int64)}
        if self.cycles:
            state["losses"] = torch.full((count, self.steps + 1), torch.nan, dtype=x.dtype)
            state["kept"] = x
            state["due"] = torch.full((count,), -1, dtype=torch.int64)
        return {**state, **region.limits(rows.clean)}

    def advance(
        self, target: WhiteBox, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """One gradient, one step; the last point is evaluated and not left."""
        x, left = state["x"], state["left"]
        loss = LOSSES[self.loss]
        if bool((left <= 0).all()):
            scores = target.scores(x)
            return Tried(x, rows.broken(scores), state, torch.ones_like(left, dtype=torch.bool))

        def raised(scores: Tensor) -> Tensor:
            return loss(scores, rows.label, rows.aimed)

        scores, losses, gradient = target.slopes(x, raised)
        step = 2.5 / self.steps if self.step is None else self.step
        moved = region.stepped(x, gradient, step, rows.clean, state)
        after, ended = {**state, "x": moved, "left": left - 1}, left <= 0
        if self.cycles:
            ended = ended | self._came_back(state, after, losses)
        return Tried(x, rows.broken(scores), after, ended)

    def _came_back(self, state: RowState, after: RowState, losses: Tensor) -> Tensor:
        """(R,) whether a row goes round; notes the losses, and the points under suspicion."""
        x, left, seen = state["x"], state["left"], state["losses"]
        due = state["due"] == left
        back = due & (x == state["kept"]).flatten(1).all(1) if bool(due.any()) else due
        # The latest equal loss gives the shortest way round.
        ago = self.steps - left[:, None] - torch.arange(self.steps + 1)
        equal = seen == losses[:, None]
        shortest = torch.where(equal, ago, self.steps + 1).amin(1)
        free = (state["due"] < 0) | due
        suspected = free & ~back & (shortest <= left)
        after["losses"] = seen.scatter(
            1, (self.steps - left)[:, None].clamp(min=0), losses[:, None]
        )
        after["due"] = torch.where(suspected, left - shortest, torch.where(due, -1, state["due"]))
        after["kept"] = chosen_rows(suspected, x, state["kept"])
        return back
