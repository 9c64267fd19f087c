# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""The parts of an event: what it is composed of, and of which kind each part is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent


Leaf = Any
"""A `DpEvent` that is no composition; dp-accounting's attrs classes have no types to look into."""


NO_PROMISE = 700.0
"""Above this epsilon e**epsilon leaves the doubles; it is priced as no protection."""


def leaves(event: DpEvent) -> list[tuple[Leaf, int]]:
    """The events that an event is composed of, with how often each is; none for `NoOpDpEvent`."""
    import dp_accounting

    if isinstance(event, dp_accounting.NoOpDpEvent):
        return []
    if isinstance(event, dp_accounting.SelfComposedDpEvent):
        return [(leaf, count * event.count) for leaf, count in leaves(event.event)]
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return [pair for part in event.events for pair in leaves(part)]
    return [(event, 1)]


def pure_event(epsilon: float) -> DpEvent:
    """Any mechanism that is `epsilon`-private with delta = 0.

    Randomised response over two answers has the largest privacy loss of them all, also under
    composition (Kairouz, Oh & Viswanath 2015, "The composition theorem for differential privacy",
    theorem 3.4). `LaplaceDpEvent` would be too small for noise on integers: a discrete Laplace of
    scale 1 / epsilon on a count *is* randomised response.
    """
    import dp_accounting

    if epsilon > NO_PROMISE:
        return dp_accounting.NonPrivateDpEvent()
    return dp_accounting.RandomizedResponseDpEvent(2 / (1 + math.exp(epsilon)), num_buckets=2)


def pure_epsilon(leaf: Leaf) -> float:
    """The epsilon at delta = 0 of a `RandomizedResponseDpEvent`."""
    return math.log(leaf.num_buckets / leaf.noise_parameter - leaf.num_buckets + 1)


def is_sampled_gaussian(leaf: Leaf) -> bool:
    """Whether this is a Gaussian step on a Poisson draw."""
    import dp_accounting

    return isinstance(leaf, dp_accounting.PoissonSampledDpEvent) and isinstance(
        leaf.event, dp_accounting.GaussianDpEvent
    )


def is_fixed_size_gaussian(leaf: Leaf) -> bool:
    """Whether this is a Gaussian step on a draw of a fixed size without replacement."""
    import dp_accounting

    return isinstance(leaf, dp_accounting.SampledWithoutReplacementDpEvent) and isinstance(
        leaf.event, dp_accounting.GaussianDpEvent
    )


def is_binned_gaussian(leaf: Leaf) -> bool:
    """Whether this is a round of Gaussian steps, one of which, drawn at random, has the unit."""
    import dp_accounting

    from nacre.differential_privacy.event_types import BinnedDpEvent

    return isinstance(leaf, BinnedDpEvent) and isinstance(leaf.event, dp_accounting.GaussianDpEvent)


def is_amplified(event: DpEvent) -> bool:
    """Whether a part of this event is Gaussian steps on a random draw, which counts for less."""
    drawn = (is_sampled_gaussian, is_fixed_size_gaussian, is_binned_gaussian)
    return any(is_one(leaf) for leaf, _ in leaves(event) for is_one in drawn)


def is_unprotected(event: DpEvent) -> bool:
    """Whether a part of this event is not private."""
    import dp_accounting

    return any(isinstance(leaf, dp_accounting.NonPrivateDpEvent) for leaf, _ in leaves(event))


def failing_chance(event: DpEvent) -> float:
    """The chance, at most, that some part of the event fails to keep its epsilon."""
    from nacre.differential_privacy.event_types import ApproximateDpEvent

    return sum(
        count * leaf.delta for leaf, count in leaves(event) if isinstance(leaf, ApproximateDpEvent)
    )


def either_events(leaf: Leaf) -> tuple[DpEvent, ...]:
    """The events of which one happens; () for an event of another kind."""
    from nacre.differential_privacy.event_types import EitherDpEvent

    return leaf.events if isinstance(leaf, EitherDpEvent) else ()
