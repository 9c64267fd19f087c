"""Private steps on a model and an optimizer that belong to somebody else's loop."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from nacre.core.errors import Incompatible, RunError
from nacre.core.parts import GradientSum
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Release
from nacre.differential_privacy.accounting.price import epsilon
from nacre.differential_privacy.mechanism import Mechanism
from nacre.integrations.account import Standing
from nacre.integrations.declaration import Promise
from nacre.integrations.examples import Collate, Examples, Owned, OwnedRows
from nacre.integrations.mixing import Alone
from nacre.runs.released import Log
from nacre.training.devices.portions import threads
from nacre.training.fit import Journalled
from nacre.training.holders import fixed
from nacre.training.planned import HeldToPlan
from nacre.training.step import Parts, State, entering, step
from nacre.training.still import Still
from nacre.training.unmoved import Unmoved

_Mark = tuple[Still, tuple[tuple[str, int], ...], frozenset[str]]


class PrivateSteps:
    """The steps of one run. Each is the product's own `training.step`, also where several processes
    take it together."""

    def __init__(
        self,
        model: nn.Module,
        rows: Alone,
        collate: Collate,
        sums: GradientSum,
        promise: Promise,
        mechanism: Mechanism,
        standing: Standing,
        microbatch: int | None,
        owners: tuple[str, ...] | None = None,  # of the rows; None where each is a unit
    ) -> None:
        """Raises `NotAsPlanned` where the units are not those that plan.json protects."""
        self.standing = standing
        self._owned = None
        if owners is not None:
            cap, key = promise.privacy.rows_per_unit, standing.source.child("run", "rows")
            self._owned = Owned.of(owners, cap or 1, key)
        rows_held = len(rows.fetcher.dataset)
        units = rows_held if self._owned is None else len(self._owned.names)
        standing.planned.require_units(units, rows_held, owners)
        self._model = model
        self._rows, self._collate = rows, collate
        self._promise, self._mechanism = promise, mechanism
        self._parts = Parts(
            sampling=mechanism.sampling,
            sums=lambda number: sums,
            noise=mechanism.noise,
            adjacency=mechanism.adjacency,
            microbatch=microbatch,
            devices=standing.devices,
        )
        self._group = standing.devices.group
        self._context: bytes | None = None
        self._unmoved: Unmoved | None = None  # from the first step on
        # It follows the norm of an adaptive rule from step to step.
        self._held: HeldToPlan | None = None
        self._log: Log | None = None  # from the first step on, where the run has a folder
        self._mark: _Mark | None = None  # None: the weights that the first step finds are taken
        self.clip = mechanism.clip
        """The rule of the next step; adaptive ones move, by what is released."""

    def take(self, optimizer: torch.optim.Optimizer, done: int) -> None:
        """Step `done + 1`: draw, clip, add up, journal, noise, `optimizer.step()`. For all
        processes at once: what fails in one of them is raised in all.

        Raises `RunError` where all steps are taken or the run has ended, `Incompatible` where
        something else than this method has moved the weights, `LedgerError` where the step was
        taken before from another state.
        """
        self._group.all_or_raise(lambda: self._require_ready(done))
        number = done + 1
        if self._held is None:
            self._held = HeldToPlan(self.standing.planned, self._parts.sampling, self.clip, done)
        noise = Journalled(self._parts.noise, self.standing.journal, number, self._held)
        source = self.standing.source.child("run")
        first = self._unmoved is None
        if self._unmoved is None:
            self._unmoved = Unmoved(self._model)
        device = next(iter(trainable(self._model).values())).device
        units = self._units(device, source.child("rows", number))
        state = State(self._model.train(), optimizer, self.clip, done=done)
        before = entering(state, source, self._fixed())
        try:
            parts = replace(self._parts, noise=noise)
            since = None if self._mark is None else self._mark[0]
            with threads(self.standing.threads):
                after, release = step(state, units, parts, source, before, since)
        except BaseException:
            self._held = None  # it may have followed a release that did not leave
            raise
        self.clip = after.clip
        self._group.on_rank_zero(lambda: self._record(number, release), None)
        self.guard(optimizer)
        if first:
            self._group.all_or_raise(self.require_unmoved)

    def _require_ready(self, done: int) -> None:
        """Raises where no further step may be taken, or not from these weights."""
        if self.standing.charge is not None and self.standing.charge.end is not None:
            raise RunError("the run has ended, so it takes no further step; start a new one")
        if done >= self._mechanism.steps:
            raise RunError(
                f"all {self._mechanism.steps} steps that were reserved are taken, and another one "
                "would cost more than was promised; start a new run for more"
            )
        self.require_untouched()

    def _units(self, device: torch.device, source: Source) -> Examples:
        if self._owned is None:
            return Examples(self._rows, self._collate, device, source)
        return OwnedRows(self._rows, self._collate, device, source, self._owned)

    def _record(self, number: int, release: Release) -> None:
        """One more line of released.jsonl, durable when this returns."""
        if self._log is None:
            self._log = self.standing.log()
        if self._log is not None:
            self._log.add(number, release)
            self._log.sync()

    def require_untouched(self) -> None:
        """Raises `Incompatible` where the weights are not those that the last step left, or carry
        gradients that nothing protects."""
        if any(p.grad is not None for p in self._model.parameters()):
            raise Incompatible(
                "something else has put gradients on the model (`loss.backward()`), and nothing "
                "protects them: leave it out, a private step computes its own, and "
                "`optimizer.zero_grad()` removes those that stand"
            )
        moving = frozenset(trainable(self._model))
        if self._mark is not None and moving != self._mark[2]:
            name = sorted(moving ^ self._mark[2])[0]
            what = "thawed" if name in moving else "frozen"
            raise Incompatible(
                f"{name!r} was {what} (its `requires_grad` was set) while the run is open, and a "
                "step clips, noises and pays for the weights that were trainable when it was "
                "planned: set `requires_grad` before a run, and start a new one for each stage"
            )
        if self._mark is not None and self._moved(self._mark):
            raise Incompatible(
                "something else than a private step has moved the model's weights "
                "(`optimizer.step()`, or a checkpoint that was loaded), and no epsilon covers what "
                "it did: leave it out, and start again from weights that are covered"
            )

    def require_unmoved(self) -> None:
        """Raises `Incompatible` where a frozen weight or buffer is not as the first step found it.

        It reads them all, so it is asked after the first step, and before the model is saved or
        the run ends.
        """
        if self._unmoved is not None:
            self._unmoved.require(self._model)

    def require_same(self) -> None:
        """Raises `RunError` where the weights that are about to be handed over are not the same in
        all processes; for all of them at once."""
        if self._group.size > 1:
            found = self.standing.source.digest("same", trainable(self._model), fixed(self._model))
            self._group.require_equal("the weights that the steps have left", found)

    def guard(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on the weights may be moved by steps only, the first one's included."""
        still = Still.of(self._model, optimizer, self.standing.source.child("mark"))
        self._mark = still, self._frozen(), frozenset(trainable(self._model))

    def epsilon(self, done: int) -> float:
        """What the steps that may have been released cost, at the promise's delta; 0 for none."""
        steps = max(done, self.standing.journal.journalled)
        if not steps:
            return 0.0
        event, delta = self._mechanism.event(steps), self._promise.privacy.delta
        return epsilon(event, delta, self._promise.accountant, self._mechanism.adjacency).epsilon

    def _fixed(self) -> bytes:
        """Digest of frozen weights and buffers, at the first step."""
        if self._context is None:
            self._context = fixed(self._model)
        return self._context

    def _moved(self, mark: _Mark) -> bool:
        """Whether weights are not what they were: the trainable ones by content, frozen ones (which
        may be billions) by the counter that every write in place turns on."""
        return self._frozen() != mark[1] or mark[0].written(self._model) is not None

    def _frozen(self) -> tuple[tuple[str, int], ...]:
        moved = trainable(self._model)
        named = self._model.named_parameters()
        return tuple((n, p._version) for n, p in named if n not in moved)  # pyright: ignore[reportPrivateUsage]
