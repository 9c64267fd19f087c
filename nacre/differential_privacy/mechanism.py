"""Everything that can change what is promised, in one value, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nacre.core.errors import BadArgument, Unbounded
from nacre.core.parts import Clip, Sampling
from nacre.core.types import Adjacency, Unit
from nacre.differential_privacy.accounting.price import Accountant, Price, calibrate, epsilon
from nacre.differential_privacy.events import event, require_pair, span
from nacre.differential_privacy.noise.independent import NoNoise
from nacre.differential_privacy.options import BuiltNoise
from nacre.differential_privacy.request import Request

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True)
class Budget:
    """What may be spent: epsilon, and the probability delta with which it may fail."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise BadArgument(f"epsilon={self.epsilon} must be > 0 and finite")
        if not 0 < self.delta < 1:
            raise BadArgument(f"delta={self.delta} must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Who is protected, how units are drawn and bounded, what noise is added, and how often.

    Raises `Unbounded` where noise is to hide a unit that no rule bounds, `UnsupportedEvent` for
    noise that is not proven for this sampling, `ValueError` for no steps.
    """

    unit: Unit
    adjacency: Adjacency = "add_or_remove"
    sampling: Sampling
    clip: Clip
    noise: BuiltNoise | NoNoise
    steps: int
    evaluation: int = 0
    """Draws after the steps, of the same rate, sensitivity and noise: those of a protected figure
    on held-out units."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadArgument(f"steps={self.steps} must be at least 1")
        if self.evaluation < 0 or (self.evaluation and self.span > 1):
            raise BadArgument(
                f"evaluation={self.evaluation} must be at least 0, and 0 where one event covers "
                "several steps, since a further draw is then no event of its own"
            )
        if not isinstance(self.noise, NoNoise) and not math.isfinite(self.clip.bound(1)):
            raise Unbounded(
                "noise was asked for, but the clip rule bounds no unit; use "
                "`gradient_clipping: {kind: flat, norm: 1.0}`"
            )
        require_pair(self.sampling, self.noise)

    @property
    def span(self) -> int:
        """How many steps one event covers."""
        return span(self.sampling, self.noise)

    @property
    def releases(self) -> int:
        """The steps, and the draws of the evaluation."""
        return self.steps + self.evaluation

    @property
    def multiplier(self) -> float:
        """The standard deviation of the noise, in sensitivities.

        Raises `ValueError` where it is not calibrated.
        """
        if self.noise.multiplier is None:
            raise ValueError("noise without a multiplier is not calibrated yet")
        return self.noise.multiplier

    def with_multiplier(self, multiplier: float) -> Mechanism:
        """The same mechanism with this much noise. Raises `ValueError` where it has none."""
        noise = self.noise
        if isinstance(noise, NoNoise):
            raise ValueError("noise=NoNoise has nothing to calibrate")
        return replace(self, noise=replace(noise, multiplier=multiplier))

    def event(self, steps: int | None = None) -> DpEvent:
        """What `steps` releases (all of them by default) reveal at most about one unit.

        The clip rule has no part in it, a moving one neither: a step is Gaussian noise in units of
        the present bound of everything that it releases (an adaptive rule's answers included), and
        that bound is a function of earlier releases, so steps compose as if it had been fixed.
        """
        count = self.releases if steps is None else steps
        return event(self.sampling, self.noise, count, self.adjacency)

    def request(self, run: str, *, rows_per_unit: int | None = None, column: str = "") -> Request:
        """What all its releases ask of an account under the run's name; see `Request.of`."""
        return Request.of(
            run,
            self.event(1),
            steps=self.releases,
            unit=self.unit,
            adjacency=self.adjacency,
            rows_per_unit=rows_per_unit,
            span=self.span,
            column=column,
        )

    def price(self, delta: float, accountant: Accountant = "auto") -> Price:
        """The price of all steps at `delta`."""
        return epsilon(self.event(), delta, accountant, self.adjacency)

    def calibrated(self, budget: Budget, accountant: Accountant = "auto") -> Mechanism:
        """The same mechanism with the least noise that keeps all its steps within `budget`.

        Raises `ValueError` where there is no noise to calibrate, `UnsupportedEvent` where the
        mechanism has no price.
        """

        def event_of(multiplier: float) -> DpEvent:
            return self.with_multiplier(multiplier).event()

        multiplier, _ = calibrate(
            event_of, budget.epsilon, budget.delta, accountant, self.adjacency
        )
        return self.with_multiplier(multiplier)
