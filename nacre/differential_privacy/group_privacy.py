# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""The price of an event for a coarser unit, which holds several of its units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from nacre.differential_privacy.describe import unknown
from nacre.differential_privacy.leaves import (
    NO_PROMISE,
    Leaf,
    either_events,
    is_binned_gaussian,
    is_fixed_size_gaussian,
    is_sampled_gaussian,
    pure_epsilon,
    pure_event,
)

if TYPE_CHECKING:  # dp-accounting takes a second to import: only those who price pay for it
    from dp_accounting import DpEvent


def group_event(event: DpEvent, rows: int) -> DpEvent:
    """A sound price of `event` for a coarser unit that holds at most `rows` of its units.

    A Gaussian's shift grows by `rows`, so its multiplier falls by it. Amplification is dropped:
    whichever of a unit's rows are drawn, they shift the sum by at most `rows` sensitivities, and a
    mixture is no worse than its worst part (quasi-convexity). Pure epsilon grows by `rows`
    (Dwork & Roth 2014, theorem 2.2), a delta of (epsilon, delta) to delta (1 + e**epsilon + … +
    e**((rows - 1) epsilon)), by the same chain of neighbours; rho by its square (Bun & Steinke
    2016, proposition 1.9).
    """
    if rows < 1:
        raise ValueError(f"rows={rows} must be at least 1")
    return event if rows == 1 else _map_leaves(event, lambda leaf: _grouped(leaf, rows))


def _map_leaves(event: DpEvent, change: Callable[[DpEvent], DpEvent]) -> DpEvent:
    import dp_accounting

    if isinstance(event, dp_accounting.NoOpDpEvent | dp_accounting.NonPrivateDpEvent):
        return event
    if isinstance(event, dp_accounting.SelfComposedDpEvent):
        return dp_accounting.SelfComposedDpEvent(_map_leaves(event.event, change), event.count)
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return dp_accounting.ComposedDpEvent([_map_leaves(part, change) for part in event.events])
    return change(event)


def _grouped(leaf: Leaf, rows: int) -> DpEvent:
    import dp_accounting

    from nacre.differential_privacy.event_types import ApproximateDpEvent

    if is_sampled_gaussian(leaf) or is_fixed_size_gaussian(leaf) or is_binned_gaussian(leaf):
        leaf = leaf.event
    if isinstance(leaf, dp_accounting.GaussianDpEvent):
        return dp_accounting.GaussianDpEvent(leaf.noise_multiplier / rows)
    if isinstance(leaf, dp_accounting.RandomizedResponseDpEvent):
        return pure_event(pure_epsilon(leaf) * rows)
    if isinstance(leaf, ApproximateDpEvent):
        grown = rows * leaf.epsilon
        much = grown > NO_PROMISE
        whole = 1.0 if much else leaf.delta * math.expm1(grown) / math.expm1(leaf.epsilon)
        return ApproximateDpEvent(grown, min(1.0, whole))
    if isinstance(leaf, dp_accounting.ZCDpEvent) and leaf.xi == 0:
        return dp_accounting.ZCDpEvent(leaf.rho * rows**2)
    if isinstance(leaf, dp_accounting.dp_event.RepeatAndSelectDpEvent):
        # The theorem holds for any two data sets, so for two that differ by a coarser unit.
        trial = group_event(leaf.event, rows)
        return dp_accounting.dp_event.RepeatAndSelectDpEvent(trial, leaf.mean, leaf.shape)
    if parts := either_events(leaf):
        return replace(leaf, events=tuple(group_event(part, rows) for part in parts))
    raise unknown(leaf, "the group price", "charge it to the unit it was made for")
