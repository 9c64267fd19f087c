"""Projected gradient descent on minus the loss: many small steps, from random starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from nacre.adversarial_training.attacks.ascent import WIDTH, Ascent
from nacre.adversarial_training.threats.options import ThreatOption
from nacre.core import require
from nacre.core.errors import BadArgument
from nacre.core.parts import Attack
from nacre.core.types import FeatureSpace


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Small steepest steps, each projected back into the ball; the worst point seen counts, or the
    last one.

    A climb of steps of 2.5 / steps goes 2.5 radii in all. In an L2 ball that turns a random start
    most of the way towards the gradient, not all of it: on a linear model in nine dimensions it
    gains at least nine tenths of what is possible (`tests/oracles/test_pgd_linear.py`). More
    restarts or a longer step come closer.

    *Source:* Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks",
    https://arxiv.org/abs/1706.06083, section 2.1.
    """

    kind: Literal["pgd"] = "pgd"
    ball: ThreatOption
    """How far an input may move."""
    steps: int = 10
    """Gradient steps of each start."""
    step_size: float | None = None
    """Length of a step as a share of the radius; None takes 2.5 / steps, which lets a climb cross
    the ball and turn back (Madry et al. 2018, section 5)."""
    restarts: int = 1
    """Random starts; the worst point of all of them counts."""
    random_start: bool = True
    """Whether a climb starts at a random point of the ball, or at the clean input."""
    keep: Literal["worst", "last"] = "worst"
    """Which point is trained on: the worst that was seen, whose loss is never below the clean one,
    or the last one, as the papers do; `last` saves two passes through the model a climb."""
    early_stop: int | None = None
    """Friendly adversarial training: steps that a climb still takes from points that are answered
    wrongly (tau of Zhang et al. 2020, https://arxiv.org/abs/2002.11242, algorithm 1). With 0 it
    ends at the first such point; None lets every climb go to its end."""

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps, restarts=self.restarts)
        require.up_to(2, WIDTH, step_size=self.step_size)
        require.at_least(0, early_stop=self.early_stop)
        if self.restarts > 1 and not self.random_start:
            raise BadArgument(
                f"restarts={self.restarts} from the clean input would all be the same climb: set "
                "`random_start: true`"
            )
        if self.restarts > 1 and self.keep == "last":
            raise BadArgument(
                f"restarts={self.restarts} are of no use where the last point is kept whatever its "
                "loss: set `keep: worst`"
            )
        if self.early_stop is not None and self.early_stop >= self.steps:
            raise BadArgument(
                f"early_stop={self.early_stop} must be below the steps={self.steps} of a climb, "
                "which it would never shorten otherwise; leave it out for whole climbs"
            )

    def sentence(self) -> str:
        """The attack, its ball and where it stops."""
        words = f"PGD inside {self.ball.sentence()}"
        if self.early_stop is None:
            return words
        return f"{words}, stopped {self.early_stop} steps after a row is first answered wrongly"

    def shortened(self, steps: int) -> tuple[Self, float]:
        """One climb of at most `steps` steps, and how many times as long a step of training with
        the whole attack takes at most: each step of an attack is a pass through the model, and so
        is the loss that follows it."""
        fewer = min(self.steps, steps)
        stop = None if self.early_stop is None else min(self.early_stop, fewer - 1)
        short = replace(self, steps=fewer, restarts=1, early_stop=stop)
        return short, (1 + self.steps * self.restarts) / (1 + short.steps)

    def build(self, space: FeatureSpace) -> Attack:
        """The attack on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        step = 2.5 / self.steps if self.step_size is None else self.step_size
        region = self.ball.region(space)
        return Ascent(
            region,
            self.steps,
            step,
            self.restarts,
            self.random_start,
            last=self.keep == "last",
            early_stop=self.early_stop,
        )
