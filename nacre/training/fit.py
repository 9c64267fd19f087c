"""The loop. The same one trains on rows, inside a party, and over parties."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from nacre.core.errors import RunError
from nacre.core.parts import Noise, NoiseState
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Adjacency, BoundedSum, Noised, Release, Tensors
from nacre.ledger import Charge
from nacre.training.devices.group import Group
from nacre.training.memory import PAGES
from nacre.training.planned import HeldToPlan, Planned
from nacre.training.step import Parts, State, UnitSource, entering, step
from nacre.training.still import Still
from nacre.training.unmoved import Unmoved


class Journal(Protocol):
    """Where it is written that a step may have been released, before it is."""

    def journal(self, step: int, entered: str) -> None:
        """`entered` is the digest of what the release is computed from: each step is answered
        for one only."""
        ...


class NoJournal:
    """For levels that release nothing of their own: an outer level over private parties, or a
    run without differential privacy."""

    def journal(self, step: int, entered: str) -> None:
        """Writes nothing."""


class Agreed:
    """The journal of several processes: the first writes, and only then all of them go on.

    Raises `RunError` where what the release is computed from is not the same in all processes.
    """

    def __init__(self, group: Group, charge: Journal) -> None:
        self._group, self._charge = group, charge

    def journal(self, step: int, entered: str) -> None:
        """See `Journal.journal`."""
        what = "the weights that enter a step, or its sum"
        self._group.require_equal(what, bytes.fromhex(entered))
        self._group.on_rank_zero(lambda: self._charge.journal(step, entered), None)


@dataclass(frozen=True)
class Journalled:
    """A noise that is written into a journal before it is added.

    *Guarantee:* the entry is a keyed digest of everything that the release is computed from, the
    private sum included, and is durable before `add` returns the release. So a step that is taken
    again is answered by the same numbers, and one whose rows, weights, loss or rounding have
    changed is refused. Who lacks the run's key learns nothing from an entry.

    The noise is drawn while the disk writes: a noised sum that dies with this process, or because
    the entry is refused, was seen by nobody.
    """

    noise: Noise
    charge: Journal
    step: int  # counted from 1
    held: HeldToPlan  # against the plan, before and after

    @property
    def multiplier(self) -> float | None:
        """Of the noise."""
        return self.noise.multiplier

    def init(self, like: Tensors) -> NoiseState:
        """Of the noise."""
        return self.noise.init(like)

    def add(
        self,
        total: BoundedSum,
        state: NoiseState,
        source: Source,  # keyed by the sum and by what entered it: see `step`
        adjacency: Adjacency,
        *,
        consume: bool = False,
    ) -> tuple[Release, NoiseState]:
        """The noised sum. Raises as the journal and the noise do, `LedgerError` among them, and
        `NotAsPlanned` where the noise is not what plan.json says: before the entry is written
        where that shows in the sum or the parts, in any case before the release is returned."""
        self.held.before(self.step, total, self.noise, adjacency)
        with _journalling(self.charge, self.step, source.digest("journal").hex()):
            release, after = self.noise.add(total, state, source, adjacency, consume=consume)
            self.held.after(self.step, release)
        return release, after


def _journalling(charge: Journal, step: int, entered: str) -> AbstractContextManager[None]:
    """The entry, written while the block runs where one process alone has a say in it."""
    if isinstance(charge, Charge):
        return charge.journalling(step, entered)
    charge.journal(step, entered)
    return nullcontext()


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
    planned: Planned,
    observe: Observe = lambda state, release: False,
    context: bytes = b"",
) -> State:
    """Steps from `state.done` to `until`, or until `observe` returns True.

    Each step is journalled durably before its release is handed on, so a crash over-counts at
    most; and with what it is computed from, its sum included, so it is never answered a second
    time.

    Raises `RunError` where the first noised update leaves a trainable tensor as it was,
    `NotAsPlanned` for a release that is not what the plan says (it is held back), and
    `Incompatible` where a frozen weight or buffer was written into, seen after the first step and
    after the last.
    """
    held = HeldToPlan(planned, parts.sampling, state.clip, state.done)
    unmoved, first_step = Unmoved(state.model), True
    marks: Tensors | None = None
    checked = False
    while state.done < until:
        parts.devices.gather()
        if marks is not None:
            _moved(marks, state)
            marks, checked = None, True
        still = Still.of(state.model, state.optimizer, source)
        before = entering(state, source, context, still)
        first = None if checked else _marks(state)
        noise = Journalled(parts.noise, charge, state.done + 1, held)
        state, release = step(state, units, replace(parts, noise=noise), source, before, still)
        if isinstance(release.how, Noised) and first is not None:
            # Rounded to a grid, the noised sum of a single number may be 0, and moves nothing.
            marks = {
                name: mark
                for name, mark in first.items()
                if name not in release.total or release.total[name].reshape(-1)[:_MARKED].any()
            }
        PAGES.after_step()
        if first_step:
            parts.devices.gather()
            unmoved.require(state.model)
            first_step = False
        if observe(state, release):
            break
    parts.devices.gather()
    unmoved.require(state.model)
    return state
