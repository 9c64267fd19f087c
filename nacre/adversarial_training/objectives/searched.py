"""What training at the worst input that a search finds has in common, whatever its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import nn

from nacre.adversarial_training.attacks.judged import JudgedLosses
from nacre.adversarial_training.attacks.options import AttackOption
from nacre.adversarial_training.objectives.attacked_units import attacked_units
from nacre.adversarial_training.objectives.guard import Guard
from nacre.adversarial_training.objectives.packing import packing
from nacre.adversarial_training.objectives.ramp import Ramp, eased
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.core import rows
from nacre.core.parts import Attack, Task
from nacre.core.random import Source
from nacre.core.types import Batch


@dataclass(frozen=True, kw_only=True)
class Searching:
    """The keys that `Madry`, `Trades` and `Mart` share."""

    attack: AttackOption
    """How the worst input is searched for."""
    ramp: Ramp | None = None
    """A threat that grows over the first steps; None has all of it from the first step on."""
    guard: Guard | None = None
    """Ends training at catastrophic overfitting; it needs public rows."""

    on_tokens: ClassVar[bool] = False

    @property
    def ball(self) -> ThreatOption:
        """How far an input may move."""
        return self.attack.ball

    def shortened(self, steps: int) -> tuple[Self, float]:
        """Itself with an attack of at most `steps` steps, and how many times as long a step with
        the whole attack takes."""
        attack, longer = self.attack.shortened(steps)
        return replace(self, attack=attack), longer


@dataclass(frozen=True, eq=False, kw_only=True)
class Searched:
    """The parts that they build: an objective without its loss."""

    task: Task
    attack: Attack
    ramp: Ramp | None

    def at(self, done: float) -> Self:
        """The objective at this share of the run's steps."""
        return replace(self, attack=eased(self.attack, self.ramp, done))

    def packed(self) -> Self:
        """The objective whose attack leaves rows that have stopped out of its passes."""
        return replace(self, attack=packing(self.attack))

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch with `adversarial`, shaped as `features`; a group is attacked row by row."""
        return attacked_units(
            model, batch, rows.flatten(batch), self.attack, JudgedLosses(self.task), source
        )
