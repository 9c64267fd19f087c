"""A threat that grows over the first steps of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from nacre.core import require
from nacre.core.parts import Attack, Objective


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A radius, and if wanted a number of attack steps, that grow in a straight line.

    Both are functions of the number of the step, which is public: nothing about a row enters. In a
    federation the local steps of all rounds count, so a round's threat follows from its number. A
    model that starts at random meets a small threat first; at once with all of a large one (as 0.3
    on MNIST) training may stay at a constant answer (Gowal et al. 2018,
    https://arxiv.org/abs/1810.12715, section 4, who let the radius grow likewise).
    """

    share: float = 0.3
    """Share of the run's steps after which the threat is whole; 0 for a whole one at once."""
    radius: float = 0.0
    """What the radius begins at, as a share of itself."""
    steps: int | None = None
    """How many attack steps the first training step takes; None takes all of them throughout."""

    def __post_init__(self) -> None:
        require.within(0, 1, share=self.share, radius=self.radius)
        require.at_least(1, steps=self.steps)

    def sentence(self) -> str:
        """The beginning, and when it ends."""
        steps = "" if self.steps is None else f" and its steps from {self.steps}"
        return (
            f"The radius grows from {self.radius:.0%} of itself{steps} over the first "
            f"{self.share:.0%} of the steps."
        )

    def grown(self, done: float) -> float:
        """How much of the ramp lies behind, 0 to 1, at this share of the run's steps.

        >>> [Ramp(share=0.5).grown(done) for done in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 0.5, 1.0, 1.0]
        """
        return 1.0 if done >= self.share else done / self.share

    def radius_at(self, done: float) -> float:
        """The share of the radius at this share of the run's steps."""
        return self.radius + (1 - self.radius) * self.grown(done)

    def steps_at(self, done: float, steps: int) -> int:
        """How many of `steps` attack steps are taken at this share of the run's steps."""
        if self.steps is None or self.steps >= steps:
            return steps
        return self.steps + round((steps - self.steps) * self.grown(done))


@runtime_checkable
class Weakened(Attack, Protocol):
    """An attack that can be had with a smaller radius and fewer steps."""

    def weakened(self, radius: float, steps: Callable[[int], int]) -> Self:
        """The same attack with this share of the radius and `steps` of its number of steps."""
        ...


@runtime_checkable
class Scheduled(Objective, Protocol):
    """An objective that changes with the number of the step."""

    def at(self, done: float) -> Self:
        """The objective at this share of the run's steps, 0 to 1."""
        ...


def eased(attack: Attack, ramp: Ramp | None, done: float) -> Attack:
    """The attack at this share of the run's steps; itself without a ramp, or after it."""
    if ramp is None or done >= ramp.share or not isinstance(attack, Weakened):
        return attack
    return attack.weakened(ramp.radius_at(done), lambda steps: ramp.steps_at(done, steps))


def at(objective: Objective, done: float) -> Objective:
    """The objective at this share of the run's steps; itself where it does not change."""
    return objective.at(done) if isinstance(objective, Scheduled) else objective
