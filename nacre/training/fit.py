"""The loop. The same one trains on rows, inside a party, and over parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nacre.core.random import Source
from nacre.core.types import Release
from nacre.training.step import Parts, State, UnitSource, entering, step


class Journal(Protocol):
    """Where it is written that a step may have been released, before it is."""

    def journal(self, step: int, entered: str) -> None:
        """`entered` is the digest of what enters the step: each step is answered for one only."""
        ...


class NoJournal:
    """For levels that release nothing of their own: an outer level over private parties, or a
    run without differential privacy."""

    def journal(self, step: int, entered: str) -> None:
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

    Each step is journalled durably before its release exists, so a crash over-counts at most; and
    it is journalled with what enters it, so no copy of the run takes it a second time elsewhere.
    """
    while state.done < until:
        before = entering(state, context)
        charge.journal(state.done + 1, before.hex())
        state, release = step(state, units, parts, source, before)
        if observe(state, release):
            break
    return state
