"""Transfer as a stage: points that broke another model, tried on this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.access import AccessType, LabelOnly
from nacre.adversarial_training.evaluation.inputs import Inputs, RowState
from nacre.adversarial_training.evaluation.stage import Tried
from nacre.adversarial_training.threats.region import Region
from nacre.core.random import Source


@dataclass(frozen=True, eq=False)
class Transfer:
    """One query a row, at the point that an attack on a surrogate ended with: an attacker who has
    trained a model of its own needs no more (Papernot et al. 2016,
    https://arxiv.org/abs/1605.07277). It is no part of `STAGES`, for it has points to be given.
    """

    points: Tensor  # (S, *shape): `AttackOutcome.points` of the surrogate, by place

    access: ClassVar[AccessType] = LabelOnly
    name: ClassVar[str] = "transfer"

    def begin(self, target: LabelOnly, region: Region, rows: Inputs, source: Source) -> RowState:
        """The surrogate's points, projected into this region."""
        given = self.points[rows.place].to(rows.clean.dtype)
        return {"x": region.project(given, rows.clean)}

    def advance(
        self, target: LabelOnly, region: Region, rows: Inputs, state: RowState, source: Source
    ) -> Tried:
        """The only query."""
        answered = target.labels(state["x"])
        wanted = answered != rows.label if rows.towards is None else answered == rows.towards
        return Tried(
            state["x"], wanted | (answered < 0), state, torch.ones_like(wanted, dtype=torch.bool)
        )
