"""The loss at the worst input that an attack finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor, nn

from nacre.adversarial_training.attacks.judged import JudgedLosses
from nacre.adversarial_training.attacks.options import AttackOption
from nacre.adversarial_training.objectives.attacked_units import attacked_units
from nacre.adversarial_training.objectives.guard import Guard, said
from nacre.adversarial_training.objectives.packing import packing
from nacre.adversarial_training.objectives.ramp import Ramp, eased
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.core import require, rows
from nacre.core.parts import Attack, Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace


@dataclass(frozen=True, kw_only=True)
class Madry:
    """Minimise the loss at the worst input that an attack finds.

    *Source:* Madry et al. 2018, https://arxiv.org/abs/1706.06083, equation 2.1. The share of the
    clean loss is that of Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, section 6.
    """

    kind: Literal["madry"] = "madry"
    attack: AttackOption
    """How the worst input is searched for."""
    clean_share: float = 0.0
    """Weight of the clean loss, in each row alike: 0 trains on attacked inputs only, 1 on clean."""
    ramp: Ramp | None = None
    """A threat that grows over the first steps; None has all of it from the first step on."""
    guard: Guard | None = None
    """Ends training at catastrophic overfitting; it needs public rows."""

    on_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require.within(0, 1, clean_share=self.clean_share)

    @property
    def ball(self) -> ThreatOption:
        """How far an input may move."""
        return self.attack.ball

    def sentence(self) -> str:
        """The objective and its attack."""
        words = f"Madry trains on inputs moved by {self.attack.sentence()}."
        return said(words, self.ramp, self.guard)

    def shortened(self, steps: int) -> tuple[Self, float]:
        """Itself with an attack of at most `steps` steps, and how many times as long a step with
        the whole attack takes."""
        attack, longer = self.attack.shortened(steps)
        return replace(self, attack=attack), longer

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        return WorstCase(task, self.attack.build(space), self.clean_share, self.ramp)


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The part that `Madry` builds: each unit's loss at its attacked rows.

    With a share of clean loss it is that share of the clean loss plus the rest of the attacked
    one, in the same unit: nothing depends on which other units were drawn.
    """

    task: Task
    attack: Attack
    clean_share: float = 0.0
    ramp: Ramp | None = None

    def at(self, done: float) -> Self:
        """The objective at this share of the run's steps."""
        return replace(self, attack=eased(self.attack, self.ramp, done))

    def packed(self) -> Self:
        """The objective whose attack leaves rows that have stopped out of its passes."""
        return replace(self, attack=packing(self.attack))

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch with `adversarial`, shaped as `features`; a group is attacked row by row."""
        if self.clean_share == 1:
            return batch
        return attacked_units(
            model, batch, rows.flatten(batch), self.attack, JudgedLosses(self.task), source
        )

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch that `perturb` returned."""
        share = self.clean_share
        if share == 1:
            return self.task.losses(model, batch)
        moved = self.task.losses(model, {**batch, "features": batch["adversarial"]})
        if share == 0:
            return moved
        return share * self.task.losses(model, batch) + (1 - share) * moved
