"""PGD as a stage: steepest steps on a loss of the scores, from the clean input or a random one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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
    goes round. One point of each row is kept, a later one each time the steps have grown by a half,
    and a row ends when it is there again, bit for bit (Brent 1980); only rows whose loss is that of
    the point kept are compared with it.

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
            state["kept"] = x
            state["level"] = torch.full((count,), torch.nan, dtype=x.dtype)  # the loss there
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
            ended = ended | self._came_back(x, state, after, losses)
        return Tried(x, rows.broken(scores), after, ended)

    def _came_back(self, x: Tensor, state: RowState, after: RowState, losses: Tensor) -> Tensor:
        """(R,) whether a row goes round; keeps the points at which it is looked for next."""
        back = losses == state["level"]
        if bool(back.any()):
            some = back.nonzero().squeeze(1)
            back[some] = (x[some] == state["kept"][some]).flatten(1).all(1)
        keeps = _keeps(self.steps)[self.steps - state["left"]]
        if bool(keeps.any()):
            after["kept"] = chosen_rows(keeps, x, state["kept"])
            after["level"] = torch.where(keeps, losses.to(x.dtype), state["level"])
        return back


@lru_cache(maxsize=64)
def _keeps(steps: int) -> Tensor:
    """(steps + 1,) bool: after 1, 2, 3, 4, 6, 8, 12, 16, … steps. A way round that is not longer
    than from one of them to the next is found from there."""
    places = {1} | {ends << k for k in range(steps.bit_length()) for ends in (2, 3)}
    return torch.tensor([place in places for place in range(steps + 1)])
