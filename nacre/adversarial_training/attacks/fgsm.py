"""The fast gradient method: one full step from the clean input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from nacre.adversarial_training.attacks.ascent import Ascent
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.core.parts import Attack
from nacre.core.types import FeatureSpace


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step of the whole radius along the sign of the gradient (or along the gradient, in L2).

    *Source:* Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing Adversarial Examples",
    https://arxiv.org/abs/1412.6572, section 4. Unlike there, a row whose loss the step lowers
    keeps its clean input.
    """

    kind: Literal["fgsm"] = "fgsm"
    ball: ThreatOption
    """How far an input may move."""

    def sentence(self) -> str:
        """The attack and its ball."""
        return f"FGSM inside {self.ball.sentence()}"

    def shortened(self, steps: int) -> tuple[Self, float]:
        """Itself, and 1: it has one step."""
        return self, 1.0

    def build(self, space: FeatureSpace) -> Attack:
        """The attack on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        return Ascent(self.ball.region(space), steps=1, step=1.0)
