"""The loss at the worst input that an attack finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from nacre.adversarial_training.objectives.guard import said
from nacre.adversarial_training.objectives.searched import Searched, Searching
from nacre.core import require
from nacre.core.parts import Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace


@dataclass(frozen=True, kw_only=True)
class Madry(Searching):
    """Minimise the loss at the worst input that an attack finds.

    *Source:* Madry et al. 2018, https://arxiv.org/abs/1706.06083, equation 2.1. The share of the
    clean loss is that of Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, section 6.
    """

    kind: Literal["madry"] = "madry"
    clean_share: float = 0.0
    """Weight of the clean loss, in each row alike: 0 trains on attacked inputs only, 1 on clean."""

    def __post_init__(self) -> None:
        require.within(0, 1, clean_share=self.clean_share)

    def sentence(self) -> str:
        """The objective and its attack."""
        words = f"Madry trains on inputs moved by {self.attack.sentence()}."
        return said(words, self.ramp, self.guard)

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        attack = self.attack.build(space)
        return WorstCase(task=task, attack=attack, ramp=self.ramp, clean_share=self.clean_share)


@dataclass(frozen=True, eq=False, kw_only=True)
class WorstCase(Searched):
    """The part that `Madry` builds: each unit's loss at its attacked rows.

    With a share of clean loss it is that share of the clean loss plus the rest of the attacked
    one, in the same unit: nothing depends on which other units were drawn.
    """

    clean_share: float = 0.0

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch with `adversarial`; as it is where the clean loss alone counts."""
        return batch if self.clean_share == 1 else super().perturb(model, batch, source)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch that `perturb` returned."""
        share = self.clean_share
        if share == 1:
            return self.task.losses(model, batch)
        moved = self.task.losses(model, {**batch, "features": batch["adversarial"]})
        if share == 0:
            return moved
        return share * self.task.losses(model, batch) + (1 - share) * moved
