# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""Events in words, and the refusal of an event without a price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacre.core.errors import UnsupportedEvent
from nacre.differential_privacy.leaves import (
    Leaf,
    either_events,
    is_binned_gaussian,
    is_fixed_size_gaussian,
    is_sampled_gaussian,
    leaves,
    pure_epsilon,
)
from nacre.differential_privacy.upward import rounded_up

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent


def describe_event(event: DpEvent) -> str:
    """The event in words, for a plan and a ledger's summary."""
    parts = [f"{count} x {_words(leaf)}" for leaf, count in leaves(event)]
    return "; ".join(parts) or "nothing"


def _words(leaf: Leaf) -> str:
    import dp_accounting

    from nacre.differential_privacy.event_types import ApproximateDpEvent

    if is_sampled_gaussian(leaf):
        rate = f"each unit drawn with probability {leaf.sampling_probability:.4g}"
        return f"{_words(leaf.event)}, {rate}"
    if is_binned_gaussian(leaf):
        return f"{_words(leaf.event)} on each of {leaf.bins} bins, each unit in one at random"
    if is_fixed_size_gaussian(leaf):
        drawn = f"{leaf.sample_size} of {leaf.source_dataset_size} units drawn each time"
        return f"{_words(leaf.event)}, {drawn}"
    if isinstance(leaf, dp_accounting.GaussianDpEvent):
        return f"Gaussian noise of {leaf.noise_multiplier:.4g} sensitivities"
    if isinstance(leaf, dp_accounting.RandomizedResponseDpEvent):
        return f"a query with epsilon {rounded_up(pure_epsilon(leaf))} and delta 0"
    if isinstance(leaf, ApproximateDpEvent):
        return f"a query with epsilon {rounded_up(leaf.epsilon)} and delta {leaf.delta:.4g}"
    if isinstance(leaf, dp_accounting.ZCDpEvent):
        return f"a sum with rho {leaf.rho:.4g} (zCDP)"
    if isinstance(leaf, dp_accounting.dp_event.RepeatAndSelectDpEvent):
        return f"the best of about {leaf.mean:.4g} trials, each of {describe_event(leaf.event)}"
    if parts := either_events(leaf):
        return "one of: " + "; or ".join(describe_event(part) for part in parts)
    if isinstance(leaf, dp_accounting.NonPrivateDpEvent):
        return "a release without protection"
    return str(leaf)


def unknown(leaf: Leaf, pricer: str, remedy: str) -> UnsupportedEvent:
    """The refusal of an event that a pricer has no rule for."""
    what = describe_event(leaf).removeprefix("1 x ")
    return UnsupportedEvent(f"{pricer} cannot price {what}, so it is not priced at all; {remedy}")
