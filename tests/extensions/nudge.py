"""An attack: one step from a random point of the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from nacre.adversarial_training.attacks.ascent import Ascent
from nacre.adversarial_training.threats.ball import Ball
from nacre.core.parts import Attack
from nacre.core.types import FeatureSpace


@dataclass(frozen=True, kw_only=True)
class Nudge:
    """One step of a share of the radius, from a random point."""

    kind: Literal["nudge"] = "nudge"
    ball: Ball
    """How far an input may move."""
    share: float = 0.5
    """Of the radius."""

    def sentence(self) -> str:
        """The attack, its step and its ball."""
        return f"a nudge of {self.share:g} radii inside {self.ball.sentence()}"

    def shortened(self, steps: int) -> tuple[Self, float]:
        """Itself, and 1: it has one step."""
        return self, 1.0

    def build(self, space: FeatureSpace) -> Attack:
        """The attack on inputs of this space."""
        return Ascent(self.ball.region(space), steps=1, step=self.share, random_start=True)
