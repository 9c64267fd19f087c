"""No adversary: the loss of the clean rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from nacre.core.parts import Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace


@dataclass(frozen=True, kw_only=True)
class StandardTraining:
    """No adversary: the loss of the clean rows."""

    kind: Literal["none"] = "none"

    def sentence(self) -> str:
        """That no attack takes part."""
        return "The model is trained on clean inputs."

    on_tokens: ClassVar[bool] = False

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective; the space plays no part."""
        return Standard(task)


@dataclass(frozen=True, eq=False)
class Standard:
    """The task's own loss."""

    task: Task

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch as it is."""
        return batch

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,)"""
        return self.task.losses(model, batch)
