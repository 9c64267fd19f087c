"""One unit at a time: slow, plain, and what every other per-unit sum is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nacre.core import rows
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Batch, BoundedSum
from nacre.gradient_clipping.clipped import UnitLosses, clipped_sum, empty_sum, held


@dataclass(frozen=True, eq=False)
class Looped:
    """The clipped sum by one backward pass a unit; works wherever autograd does.

    *Guarantee:* that of `clipped_sum`. Padding and frozen parameters take no part; a tensor used
    in several places is one parameter, with its whole gradient. The model is as it was, `.grad`
    and buffers included. An empty batch gives the zero sum.
    """

    objective: Objective

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys the attack's random starts."""
        batch = self.objective.perturb(model, held(units), source)
        return one_by_one(UnitLosses(model, self.objective), batch, clip)


def one_by_one(losses: UnitLosses, batch: Batch, clip: Clip) -> BoundedSum:
    """The clipped sum over a perturbed batch without padding."""
    parameters = trainable(losses.model)
    total = empty_sum(losses.model, clip)
    for index in range(len(batch["unit"])):
        with torch.enable_grad():
            loss = losses.at(parameters, rows.select(batch, slice(index, index + 1))).sum()
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        single = {name: g[None] for name, g in zip(parameters, gradients, strict=True)}
        total = total + clipped_sum(single, clip)
    return total
