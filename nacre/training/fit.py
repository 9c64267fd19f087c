"""The loop. The same one trains on rows, inside a party, and over parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nacre.core.random import Source
from nacre.core.types import Release
from nacre.training.step import Parts, State, UnitSource, step


class Journal(Protocol):
    """Where it is written that a step may have been released, before it is."""

    def journal(self, step: int) -> None: ...


class NoJournal:
    """For levels that release nothing of their own: an outer level over private parties, or a
    run without differential privacy."""

    def journal(self, step: int) -> None:
        """Writes nothing."""


Observe = Callable[[State, Release], bool]
"""Sees released things only; True ends the loop."""


def fit(
    state: State,
    units: UnitSource,
    parts: Parts,
    *,
    until: int,  # steps in all, counted from the start of the run
    source: Source,
    charge: Journal,
    observe: Observe = lambda state, release: False,
    context: bytes = b"",
) -> State:
    """Steps from `state.done` to `until`, or until `observe` returns True.

    Each step is journalled durably before its release exists, so a crash over-counts at most.
    """
    while state.done < until:
        charge.journal(state.done + 1)
        state, release = step(state, units, parts, source, context)
        if observe(state, release):
            break
    return state
