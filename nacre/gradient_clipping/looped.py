"""One unit at a time: slow, plain, and what every other per-unit sum is measured against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from nacre.core import rows
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Batch, BoundedSum, Tensors
from nacre.gradient_clipping.clipped_sum import UnitLosses, clipped_sum, empty_sum, held
from nacre.gradient_clipping.row_sum import RowSum
from nacre.gradient_clipping.tape.composite_functions import Packed
from nacre.gradient_clipping.tape.dropout_masks import Masking, Masks
from nacre.gradient_clipping.tape.owners import Owners
from nacre.gradient_clipping.tape.precision import eager


@dataclass(frozen=True, eq=False)
class Looped(RowSum):
    """The clipped sum by one backward pass a unit; works wherever autograd does.

    *Guarantee:* that of `clipped_sum`. Padding and frozen parameters take no part; a tensor used
    in several places is one parameter, with its whole gradient. The model is as it was, `.grad`
    and buffers included. An empty batch gives the zero sum.
    """

    kind: ClassVar[str] = "looped"

    objective: Objective
    owners: Owners = field(default_factory=Owners, repr=False)

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys attacks and dropout."""
        with eager(model):
            batch = self.objective.perturb(model, held(units), source)
            losses = UnitLosses(model, self.objective)
            return one_by_one(losses, batch, clip, self.owners, source)

    def learn(self, model: nn.Module, sample: Batch, source: Source) -> None:
        """Finds out whose the entries of each dropout are, on made-up units.

        Packed sequences hide that, and a unit that stands alone owns all of its own: a dropout
        beside the packed layer is the unit's, and one inside is refused where it would draw.
        """
        with eager(model):
            batch = self.objective.perturb(model, held(sample), source)
            losses = UnitLosses(model, self.objective)
            try:
                self.owners.learn(losses, batch)
            except Packed:
                gradient_of(losses, rows.select(batch, slice(1)), self.owners, source)


def one_by_one(
    losses: UnitLosses, batch: Batch, clip: Clip, owners: Owners, source: Source
) -> BoundedSum:
    """The clipped sum over a perturbed batch without padding; dropout masks are the units' own."""
    total = empty_sum(losses.model, clip)
    for index in range(len(batch["unit"])):
        alone = rows.select(batch, slice(index, index + 1))
        gradient = gradient_of(losses, alone, owners, source)
        total = total + clipped_sum({name: g[None] for name, g in gradient.items()}, clip)
    return total


def gradient_of(losses: UnitLosses, alone: Batch, owners: Owners, source: Source) -> Tensors:
    """name -> (*shape): the gradient of one unit's loss by plain autograd, under its own masks."""
    parameters = trainable(losses.model)
    masks = Masks(owners.masks, alone["unit"], source)
    with torch.enable_grad(), Masking(masks):
        loss = losses.at(parameters, alone).sum()
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    dense = [g if g.layout == torch.strided else g.to_dense() for g in gradients]
    return dict(zip(parameters, dense, strict=True))
