"""PGD as a stage: steepest steps on a loss of the scores, from the clean input or a random one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import WhiteBox
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.losses import LOSSES
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.threats.region import Region
from nacre.core.random import Source


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Projected gradient ascent with steps of one length.

    *Source:* Madry et al. 2018, https://arxiv.org/abs/1706.06083, section 2.1.
    """

    steps: int = 40
    step: float | None = None  # as a share of the radius; None takes 2.5 / steps
    loss: str = "cross_entropy"
    start: int | None = 0  # number of the random start; None starts at the clean input

    access: ClassVar[type[WhiteBox]] = WhiteBox

    @property
    def name(self) -> str:
        """PGD with its number of steps."""
        return f"PGD-{self.steps}"

    def begin(self, target: WhiteBox, region: Region, rows: Inputs, source: Source) -> RowState:
        """The first points."""
        x = rows.clean
        if self.start is not None:
            uniform = source.child("start", self.start).stream().rows(rows.unit, region.draws)
            x = region.start(rows.clean, uniform)
        return {"x": x, "left": torch.full((len(rows),), self.steps, dtype=torch.int64)}

    def advance(
        self, target: WhiteBox, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """One gradient, one step; the last point is evaluated and not left."""
        x, left = state["x"], state["left"]
        loss = LOSSES[self.loss]

        def raised(scores: Tensor) -> Tensor:
            return loss(scores, rows.label, rows.aimed)

        scores, _, gradient = target.slopes(x, raised)
        step = 2.5 / self.steps if self.step is None else self.step
        moved = region.project(x + region.steepest(gradient, step), rows.clean)
        return Tried(x, rows.broken(scores), {"x": moved, "left": left - 1}, left <= 0)
