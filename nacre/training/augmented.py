"""An objective over copies of each unit's rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor, nn

from nacre.adversarial_training.objectives import at
from nacre.core.parts import Objective
from nacre.core.random import Source
from nacre.core.types import Batch
from nacre.data.augment import Copies


@dataclass(frozen=True)
class Augmented:
    """`objective` on copies: the copies of a unit's rows are more rows of that unit.

    So attacks move each copy by itself, the loss of a unit is the mean over its copies, and every
    gradient sum clips the gradient of that mean.
    """

    objective: Objective
    copies: Copies

    def at(self, done: float) -> Self:
        """The objective at this share of the run's steps, on the same copies."""
        return replace(self, objective=at(self.objective, done))

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The copies as `objective` wants them."""
        copied = self.copies.apply(batch, source.child("copies"))
        return self.objective.perturb(model, copied, source)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,)"""
        return self.objective.losses(model, batch)
