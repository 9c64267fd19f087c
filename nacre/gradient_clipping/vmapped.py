"""All units at once: `torch.func.vmap` over the gradient of one unit's loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.tensors import trainable
from nacre.core.types import Batch, BoundedSum, Tensors
from nacre.gradient_clipping.clipped import UnitLosses, clipped_sum, empty_sum, held
from nacre.gradient_clipping.function_mode import Unseen
from nacre.gradient_clipping.masks import Masking


@dataclass(frozen=True, eq=False)
class Vmapped:
    """The clipped sum by one batched backward pass; memory grows as units times parameters.

    *Guarantee:* that of `Looped`, and the same numbers up to rounding. Raises `UnsupportedLayer`
    where the model cannot be traced for all units at once (control flow that looks at values,
    `.item()`, buffers that it updates), and for dropout, whose masks are keyed by the units' own
    numbers.
    """

    objective: Objective

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys the attack's random starts."""
        batch = self.objective.perturb(model, held(units), source)
        if not len(batch["unit"]):
            return empty_sum(model, clip)
        return clipped_sum(_gradients(UnitLosses(model, self.objective), batch), clip)


def _gradients(losses: UnitLosses, batch: Batch) -> Tensors:
    """name -> (B, *shape), the gradient of each unit's own loss."""

    def loss(parameters: Tensors, unit: Batch) -> Tensor:
        alone = {name: value[None] for name, value in unit.items()}
        return losses.at(parameters, alone)[0]

    weights = {name: p.detach() for name, p in trainable(losses.model).items()}
    try:
        with Masking(None):
            return vmap(grad(loss), in_dims=(None, 0), randomness="different")(weights, batch)
    except torch.OutOfMemoryError:
        raise
    except Unseen as dropout:
        raise UnsupportedLayer(
            f"{type(losses.model).__name__} has dropout, whose masks follow each unit's own "
            "number, which `vmap` does not hand on: use `gradients: bookkeeping`"
        ) from dropout
    except RuntimeError as error:
        losses.at(weights, rows.select(batch, slice(1)))  # a model that fails alone says so itself
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedLayer(
            f"{type(losses.model).__name__} cannot be differentiated for all units at once "
            f"({reason}): use `gradients: bookkeeping` or `looped`"
        ) from error
