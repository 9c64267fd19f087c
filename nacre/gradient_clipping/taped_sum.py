"""What the gradient sums of the tape share: the forward pass, dropped units, the armed check."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.tensors import parameters_of, trainable
from nacre.core.types import Batch, BoundedSum, LocalMetrics, Tensors
from nacre.gradient_clipping.clipped_sum import (
    UnitLosses,
    as_gradients,
    empty_sum,
    factors_of,
    held,
)
from nacre.gradient_clipping.looped import one_by_one
from nacre.gradient_clipping.row_sum import RowSum
from nacre.gradient_clipping.spot_check import Armed
from nacre.gradient_clipping.tape.carried_rows.equal_lengths import (
    alone_as_together,
    parts_of_one_length,
)
from nacre.gradient_clipping.tape.carried_rows.moves import own_losses
from nacre.gradient_clipping.tape.dropout_masks import Masks
from nacre.gradient_clipping.tape.flow import FIXED
from nacre.gradient_clipping.tape.function_mode import Unseen
from nacre.gradient_clipping.tape.owners import Owners
from nacre.gradient_clipping.tape.precision import eager, exact
from nacre.gradient_clipping.tape.tape import Tape
from nacre.gradient_clipping.tape.verified import Verification, begin_verification


@dataclass(frozen=True, eq=False)
class Forward:
    """A forward pass on the tape."""

    tape: Tape
    losses: Tensor  # (B,), with its graph
    units: int


@dataclass(frozen=True, eq=False)
class Taped(RowSum, ABC):
    """A clipped sum by the tape of operations.

    *Guarantee:* that of `Looped`, and the same numbers up to rounding, dropout included (masks are
    keyed by unit). The norm that a factor is computed from is an upper bound of the unit's norm up
    to the rounding of a sum; see `contributions`. Units whose norm is not finite, alone too, are
    left out and the rest is computed again. Raises `UnsupportedLayer` for what the tape cannot
    follow.
    """

    half_precision: ClassVar[bool] = True

    objective: Objective
    verify: Literal["first", "always", "never"] = "first"
    precision: Literal["float32", "bfloat16"] = "float32"
    owners: Owners = field(default_factory=Owners, repr=False)
    armed: Armed = field(default_factory=Armed, repr=False)

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys attacks and dropout."""
        self.require(clip, self.precision)
        with eager(model):
            batch = self.objective.perturb(model, held(units), source)
            if not len(batch["unit"]):
                return empty_sum(model, clip)
            return self._of(UnitLosses(model, self.objective), batch, clip, source)

    def learn(self, model: nn.Module, sample: Batch, source: Source) -> None:
        """Tries the model on made-up units, so that no private row decides how it is read."""
        with eager(model):
            batch = self.objective.perturb(model, held(sample), source)
            self.owners.learn(UnitLosses(model, self.objective), batch)

    def kept(self, model: nn.Module, sample: Batch, source: Source) -> int:
        """Bytes of output gradients that one unit's tape holds."""
        with eager(model):
            batch = self.objective.perturb(model, held(sample), source)
            forward = self._forward(UnitLosses(model, self.objective), batch, source)
            return sum(use.bytes for use in forward.tape.uses) // max(1, forward.units)

    def _of(self, losses: UnitLosses, batch: Batch, clip: Clip, source: Source) -> BoundedSum:
        groups = clip.groups(list(trainable(losses.model)))
        forward = self._forward(losses, batch, source)
        if forward.tape.handed_otherwise:
            del forward
            return one_by_one(losses, batch, clip, self.owners, source)
        with exact(losses.model):
            due = self.armed.due(self.verify, source)
            shown = self._shown(forward, source, due=due)
            norms, finish = self.passes(forward, groups)
            if shown is not None:
                shown.compare()
            weighed = factors_of(norms, clip)
            if bool(weighed.usable.all()) and self._others_reach(
                losses, batch, forward, norms, source
            ):
                self.armed.reached += 1
                return one_by_one(losses, batch, clip, self.owners, source)
            if due:
                self.armed.check(losses, batch, norms, groups, self.owners, source, self.precision)
            if bool(weighed.usable.all()):
                total = finish(weighed.factors * self._slack()) | weighed.extras
                return BoundedSum(total, weighed.bound, LocalMetrics(as_gradients(norms, total), 0))
        del forward, finish
        return self._without(losses, batch, clip, source, weighed.usable, norms)

    def _shown(self, forward: Forward, source: Source, *, due: bool) -> Verification | None:
        """A backward pass that shows whose each gradient is, where the model leaves a doubt or a
        check is due."""
        tape = forward.tape
        adopted = tape.carried is not None and tape.carried.adopted
        doubt = tape.doubtful and (self.verify != "never" or adopted)
        if forward.units < 2 or not (due or doubt):
            return None
        stream = source.child("armed check", "powers").stream()
        return begin_verification(forward.tape, forward.losses, stream)

    def _others_reach(
        self, losses: UnitLosses, batch: Batch, forward: Forward, norms: Tensor, source: Source
    ) -> bool:
        """Whether the lengths of other sequences in the batch may be in a unit's loss or gradient;
        then no sum over the batch is right, but that over single units is."""
        tape = forward.tape
        if not tape.filled:
            return False
        lengths = [] if tape.carried is None else tape.carried.lengths
        parts = parts_of_one_length(lengths, forward.units)
        return parts is None or not alone_as_together(
            losses, batch, norms, parts, self.owners, source
        )

    def _without(
        self, losses: UnitLosses, batch: Batch, clip: Clip, source: Source,
        usable: Tensor, norms: Tensor,
    ) -> BoundedSum:  # fmt: skip
        """Once more without the units that are not finite: 0 * NaN would poison the sum.

        Those are judged one by one: a rule that maps an operation over the units multiplies one
        unit's NaN by the others' zeros, and who is left out must not depend on the company.
        """
        total = empty_sum(losses.model, clip)
        if len(usable) == 1:
            return BoundedSum(
                total.total, total.bound, LocalMetrics(as_gradients(norms, total.total), 1)
            )
        if bool(usable.any()):
            total = self._of(losses, rows.select(batch, usable), clip, source)
        for unit in (~usable).nonzero().squeeze(1).tolist():
            alone = rows.select(batch, slice(unit, unit + 1))
            one = self._of(losses, alone, clip, source)
            norms[unit] = one.local.norms[0]
            total = total + one
        metrics = LocalMetrics(as_gradients(norms, total.total), total.local.dropped)
        return BoundedSum(total.total, total.bound, metrics)

    def _forward(self, losses: UnitLosses, batch: Batch, source: Source) -> Forward:
        """The forward pass on the tape; what was not seen on trial is tried on this batch."""
        units = len(batch["unit"])
        held = parameters_of(losses.model)
        parameters = {name: p for name, p in held.items() if p.requires_grad}
        frozen = [p for name, p in held.items() if name not in parameters]
        for tried in (False, True):
            if self.owners.unfollowed is not None and units > 1:
                raise UnsupportedLayer(
                    f"{self.owners.unfollowed}, so the tape cannot tell whose a row is; use "
                    "`gradients: looped`"
                )
            masks = Masks(self.owners.masks, batch["unit"], source)
            tape = Tape(parameters, self.owners, units, masks)
            tape.flow.mark(frozen, FIXED)
            tape.carry(batch)
            try:
                with torch.enable_grad(), self._cast(losses.model), tape:
                    found = losses.at(parameters, batch, tape.flow)
                    if tape.carried is not None:
                        own_losses(tape.carried, found)
                    return Forward(tape, found, units)
            except Unseen as unseen:
                if tried:
                    raise UnsupportedLayer(
                        f"{unseen} takes another way each time it is tried, so it is unknown who "
                        "owns its rows; use `gradients: looped`"
                    ) from unseen
                self.owners.learn(losses, batch, units=8)
        raise AssertionError("two tries")

    def _slack(self) -> float:
        """Halves round a product by up to 2**-8, and a second pass rounds otherwise."""
        return 1.0 if self.precision == "float32" else 1 - 2.0**-7

    def _cast(self, model: nn.Module) -> Any:
        if self.precision == "float32":
            return nullcontext()
        device = next(model.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16)

    @abstractmethod
    def passes(self, forward: Forward, groups: list[list[str]]) -> tuple[Tensor, Finish]:
        """(B, G) float64 norms of a forward pass, and how to get the sum once factors are known."""


Finish = Callable[[Tensor], Tensors]
"""(B, G) factors -> name -> the weighted sum."""
