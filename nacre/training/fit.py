"""The loop. The same one trains on rows, inside a party, and over parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from nacre.core.errors import RunError
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Noised, Release, Tensors
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


def _marks(state: State) -> Tensors:
    """The first few entries of each trainable tensor."""
    found = trainable(state.model).items()
    return {name: weights.detach().reshape(-1)[:_MARKED].clone() for name, weights in found}


def _moved(before: Tensors, state: State) -> None:
    after = _marks(state)
    still = [name for name, mark in before.items() if torch.equal(mark, after[name])]
    if still:
        more = f" and {len(still) - 1} more" if len(still) > 1 else ""
        raise RunError(
            f"a noised update left the trainable weight {still[0]!r}{more} as it was, so nothing "
            "is learnt and epsilon is paid all the same: the optimizer does not hold it, or its "
            "step size is lost in rounding; raise `lr`, and end this run (`nacre abandon`)"
        )


_MARKED = 64

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

    Raises `RunError` where the first noised update leaves a trainable tensor as it was.
    """
    marks: Tensors | None = None
    checked = False
    while state.done < until:
        parts.devices.gather()
        if marks is not None:
            _moved(marks, state)
            marks, checked = None, True
        before = entering(state, source, context)
        charge.journal(state.done + 1, before.hex())
        first = None if checked else _marks(state)
        state, release = step(state, units, parts, source, before)
        if isinstance(release.how, Noised):
            marks = first
        if observe(state, release):
            break
    return state
