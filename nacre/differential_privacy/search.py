# pyright: reportMissingTypeStubs=false
"""A private search as one mechanism: random trials of declared alternatives, of which one leaves.

*Guarantee:* `Search.event` bounds what the winner gives away, once the conditions of `selection.py`
hold: the number of trials is drawn from `trials` and shown to nobody; each trial draws one of the
mechanisms, uniformly and by itself; the score is computed from its output and from public rows, or
is a count of private units with the discrete Gaussian noise of `count_deviation`, which is part of
the trial's output and of its event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nacre.differential_privacy.discrete import discrete_gaussian_event
from nacre.differential_privacy.mechanism import Budget, Mechanism
from nacre.differential_privacy.noise import NoNoise
from nacre.differential_privacy.price import calibrate
from nacre.differential_privacy.selection import Trials

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent


@dataclass(frozen=True, kw_only=True)
class Search:
    """How many trials there are, and what a score costs."""

    trials: Trials
    count_deviation: float | None = None
    """The deviation of the noise on a count of private units by which trials are compared, whose
    sensitivity is 1; None where the score looks at public rows alone."""

    def event(self, mechanisms: Sequence[Mechanism]) -> DpEvent:
        """What the winner reveals at most about one unit. Raises as `Mechanism.event` does."""
        from nacre.differential_privacy.event_types import EitherDpEvent

        found = {repr(trial): trial for trial in map(self._trial, mechanisms)}
        parts = tuple(found.values())
        return self.trials.event(parts[0] if len(parts) == 1 else EitherDpEvent(parts))

    def _trial(self, mechanism: Mechanism) -> DpEvent:
        import dp_accounting

        if self.count_deviation is None:
            return mechanism.event()
        score = discrete_gaussian_event(self.count_deviation**2, 1)
        return dp_accounting.ComposedDpEvent([mechanism.event(), score])

    def calibrated(self, mechanisms: Sequence[Mechanism], budget: Budget) -> list[Mechanism]:
        """The mechanisms with so much noise that the search as a whole keeps within `budget`.

        Each alone gets what a search of it alone would need; where they differ, all of it grows by
        one factor until the search over all of them fits. Raises `Incompatible` where no amount of
        noise on the steps does, as for a score that costs too much by itself.
        """
        alone = [self._scaled(mechanism, budget) for mechanism in mechanisms]

        def grown(factor: float) -> list[Mechanism]:
            return [_with_noise(m, factor * _multiplier(m)) for m in alone]

        def event_of(factor: float) -> DpEvent:
            return self.event(grown(factor))

        adjacency = mechanisms[0].adjacency
        if len({repr(m.event()) for m in alone}) == 1:
            return alone
        factor, _ = calibrate(event_of, budget.epsilon, budget.delta, "rdp", adjacency)
        return grown(factor)

    def _scaled(self, mechanism: Mechanism, budget: Budget) -> Mechanism:
        def event_of(multiplier: float) -> DpEvent:
            return self.event([_with_noise(mechanism, multiplier)])

        found, _ = calibrate(event_of, budget.epsilon, budget.delta, "rdp", mechanism.adjacency)
        return _with_noise(mechanism, found)


def _with_noise(mechanism: Mechanism, multiplier: float) -> Mechanism:
    noise = mechanism.noise
    if isinstance(noise, NoNoise):
        raise ValueError("noise=NoNoise has nothing to calibrate")
    return replace(mechanism, noise=replace(noise, multiplier=multiplier))


def _multiplier(mechanism: Mechanism) -> float:
    assert mechanism.noise.multiplier is not None  # it was calibrated
    return mechanism.noise.multiplier
