"""The plain gradient of the sum, for training without a bound on single units.

Nothing here bounds a unit, so nothing here is a basis for privacy: `Whole` says inf, and every
noise refuses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nacre.core.parts import Clip, Objective, SharedDescent
from nacre.core.random import Source
from nacre.core.tensors import finite, trainable
from nacre.core.types import Batch, BoundedSum, Tensors
from nacre.gradient_clipping.clipped_sum import UnitLosses, empty_sum, held
from nacre.gradient_clipping.looped import one_by_one
from nacre.gradient_clipping.row_sum import RowSum
from nacre.gradient_clipping.tape.owners import Owners


@dataclass(frozen=True, eq=False)
class Whole(RowSum):
    """The unclipped sum by one backward pass of the summed losses: as fast as plain PyTorch.

    The bound is inf. Raises `Incompatible` for a rule that bounds units: no unit's own gradient
    exists here. If the sum is not finite it is taken again one unit at a time, which drops and
    counts the units at fault. Padding, frozen parameters, buffers and the empty batch are treated
    as in `Looped`.
    """

    kind: ClassVar[str] = "whole"
    per_unit: ClassVar[bool] = False

    objective: Objective

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys the attack's random starts."""
        self.require(clip)
        clean = held(units)
        if not len(clean["unit"]):
            return empty_sum(model, clip)
        losses = UnitLosses(model, self.objective)
        shared = self._shared(losses, clean, source)
        if shared is not None and finite(shared):
            return BoundedSum(shared, math.inf)
        batch = self.objective.perturb(model, clean, source)
        total = _gradient(losses, batch)
        if not finite(total):
            return one_by_one(losses, batch, clip, Owners(), source)
        return BoundedSum(total, math.inf)

    def _shared(self, losses: UnitLosses, batch: Batch, source: Source) -> Tensors | None:
        """The gradient where the search for the worst input shares its passes with it."""
        if not isinstance(self.objective, SharedDescent):
            return None
        parameters = trainable(losses.model)

        def at(perturbed: Batch) -> Tensor:
            return losses.at(parameters, perturbed)

        return self.objective.descend(at, losses.model, parameters, batch, source)


def _gradient(losses: UnitLosses, batch: Batch) -> Tensors:
    """name -> (*shape) float32, the gradient of the sum over units."""
    parameters = trainable(losses.model)
    with torch.enable_grad():
        loss = losses.at(parameters, batch).sum()
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    return {name: g.float() for name, g in zip(parameters, gradients, strict=True)}
