"""Training on one gradient step from a random point: two passes a row in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import nn

from nacre.adversarial_training.attacks.ascent import WIDTH, evaluating, slopes
from nacre.adversarial_training.objectives.guard import Guard, said
from nacre.adversarial_training.objectives.madry import WorstCase
from nacre.adversarial_training.objectives.ramp import Ramp
from nacre.adversarial_training.threats.ball import Ball
from nacre.adversarial_training.threats.region import Region
from nacre.core import require
from nacre.core.parts import Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace, Losses

_STEP = {"uniform": 1.25, "noise": 1.0}  # the step sizes of the two papers, as shares of the radius
_NOISE = 2.0  # what the noise of N-FGSM reaches, as a share of the radius (section 4)


@dataclass(frozen=True, kw_only=True)
class Fast:
    """Minimise the loss at one gradient step from a random point: a step of training takes two
    passes through the model, with no search and no second look.

    `start: uniform` begins in the ball and comes back into it (FGSM-RS). `start: noise` begins in a
    ball of twice the radius and is not brought back (N-FGSM): inputs of the training move up to
    three radii, which holds off catastrophic overfitting; the threat that the model is to
    withstand, and is measured against, stays the ball.

    Such training may collapse: the model withstands one step and no other attack. Declare public
    rows and a `guard`, or train by `madry` with PGD.

    *Source:* Wong et al. 2020, "Fast is better than free", https://arxiv.org/abs/2001.03994,
    algorithm 3; de Jorge et al. 2022, "Make Some Noise", https://arxiv.org/abs/2202.01181,
    equation 5. Both are stated for linf; in other balls the step goes along the steepest direction.
    """

    kind: Literal["fast"] = "fast"
    ball: Ball
    """How far an input may move."""
    start: Literal["uniform", "noise"] = "noise"
    """Where the step begins: in the ball (FGSM-RS), or beyond it (N-FGSM)."""
    step_size: float | None = None
    """Length of the step as a share of the radius; None takes 1.25 from `uniform`, 1 from `noise`,
    as the papers do."""
    ramp: Ramp | None = None
    """A threat that grows over the first steps; None has all of it from the first step on."""
    guard: Guard | None = None
    """Ends training at catastrophic overfitting; it needs public rows."""

    on_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require.up_to(2, WIDTH, step_size=self.step_size)

    def sentence(self) -> str:
        """The objective, its start and its ball."""
        name = "N-FGSM" if self.start == "noise" else "FGSM from a random start"
        words = f"Fast trains on inputs moved by {name} around {self.ball.sentence()}."
        return said(words, self.ramp, self.guard)

    def shortened(self, steps: int) -> tuple[Self, float]:
        """Itself, and 1: it has one step."""
        return self, 1.0

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        step = _STEP[self.start] if self.step_size is None else self.step_size
        region = self.ball.region(space)
        if self.start == "noise":
            moving = RandomStep(region.scaled(_NOISE), region.scaled(_NOISE + step), step / _NOISE)
        else:
            moving = RandomStep(region, region, step)
        return WorstCase(task=task, attack=moving, ramp=self.ramp)


@dataclass(frozen=True, eq=False)
class RandomStep:
    """One steepest step from a random point of a region, taken whether the loss rose or not.

    *Guarantee:* row i of the result lies in `within` and depends on row i, its unit's number and
    `source` alone; nothing of the model changes. A gradient that is not finite moves nothing.
    """

    start: Region  # where the random point lies
    within: Region  # where the result lies
    step: float  # length of the step, as a share of the radius of `start`

    def __call__(self, model: nn.Module, batch: Batch, losses: Losses, source: Source) -> Batch:
        """The batch with moved features; one row an entry. One pass forward and one back."""
        clean = batch["features"].detach()
        if not len(clean):
            return batch
        stream = source.child("start", 0).stream()
        x = self.start.start(clean, stream.rows(batch["unit"], self.start.draws))
        with evaluating(model):
            _, gradient = slopes(model, {**batch, "features": x}, losses)
        x = x + self.start.steepest(gradient, self.step)
        return {**batch, "features": self.within.project(x, clean)}

    def weakened(self, radius: float, steps: Callable[[int], int]) -> Self:
        """The same step with this share of the radius; it has one step in any case."""
        return replace(self, start=self.start.scaled(radius), within=self.within.scaled(radius))
