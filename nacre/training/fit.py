"""The loop. The same one trains on rows, inside a party, and over parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nacre.core.random import Source
from nacre.core.types import Release
from nacre.training.group import Group
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


class Agreed:
    """The journal of several processes: the first writes, and only then all of them go on.

    Raises `RunError` where what enters the step is not the same in all processes.
    """

    def __init__(self, group: Group, charge: Journal) -> None:
        self._group, self._charge = group, charge

    def journal(self, step: int, entered: str) -> None:
        """See `Journal.journal`."""
        self._group.same("the weights that enter a step", bytes.fromhex(entered))
        self._group.only_first(lambda: self._charge.journal(step, entered), None)


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
        parts.devices.gather()
        before = entering(state, source, context)
        charge.journal(state.done + 1, before.hex())
        state, release = step(state, units, parts, source, before)
        if observe(state, release):
            break
    return state
