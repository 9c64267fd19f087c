"""Whether how long other units are reaches a unit: each is compared with itself in other company.

Where sequences are packed, or filled up to the longest of the batch, that length is a shape, and
the number of sequences that have a step may be a number in Python: nothing says what a model does
with them. A mean over all steps, or a largest value among fillings, hangs on others then. So the
batch is taken once more by plain differentiation, in parts of units of one length each, where there
is nothing to fill up, and each unit's loss and the weighted sum of the gradients are compared with
those of the whole. Every unit takes part, in every such sum.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nacre.core import rows
from nacre.core.random import Source
from nacre.core.tensors import norm, subtract, trainable
from nacre.core.types import Batch, Tensors
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.gradient_clipping.tape.dropout_masks import Masking, Masks
from nacre.gradient_clipping.tape.owners import Owners

_AGREES = 1e-3  # relative, of the weighted sum
_LOSS_AGREES = 1e-4  # relative, of each unit's loss
_ROUNDS = 1e-6  # of the largest loss
_SMALL = 1e-3  # of the longest gradient: what is shorter weighs no more than this


def parts_of_one_length(
    lengths: Sequence[tuple[Tensor, Tensor]],  # (N,) the owner and (N,) the length of sequences
    units: int,
) -> list[Tensor] | None:
    """The places of the units that have sequences of the same lengths, at least two parts where
    there are two units; None where it is unknown whose a sequence is, or none was noted."""
    own: list[list[int]] = [[] for _ in range(units)]
    for line, found in lengths:
        for owner, length in zip(line.tolist(), found.tolist(), strict=True):
            if not 0 <= owner < units:
                return None
            own[owner].append(length)
    if not lengths:
        return None
    parts: dict[tuple[int, ...], list[int]] = {}
    for unit, found in enumerate(own):
        parts.setdefault(tuple(found), []).append(unit)
    kinds = list(parts.values())
    if len(kinds) == 1 and units > 1:  # the number of units is company too
        kinds = [kinds[0][: units // 2], kinds[0][units // 2 :]]
    return [torch.tensor(kind) for kind in kinds]


def alone_as_together(
    losses: UnitLosses,
    batch: Batch,
    norms: Tensor,  # (B, G), all of them finite
    parts: Sequence[Tensor],
    owners: Owners,
    source: Source,
) -> bool:
    """Whether each unit's loss and gradient are in these parts what they are in the whole batch.

    Gradients are weighed by random signs, and by their lengths, so that one unit shows as much as
    another; losses are compared one by one.
    """
    size = norms.double().square().sum(1).sqrt()
    stream = source.child("armed check", "lengths").stream()
    signs = torch.where(stream.uniform(len(size)).to(size) < 0.5, -1.0, 1.0)
    weights = signs / size.clamp(min=_SMALL * float(size.max()) + 1e-30)
    whole, gradient = _weighted(losses, batch, weights, owners, source)
    found, rest = torch.empty_like(whole), gradient
    for part in parts:
        place = part.to(whole.device)
        alone = rows.select(batch, place)
        found[place], more = _weighted(losses, alone, weights[place], owners, source)
        rest = subtract(rest, more)
    apart = (found - whole).abs()
    near = _LOSS_AGREES * found.abs() + _ROUNDS * found.abs().max()
    same = norm(rest) <= _AGREES * norm(gradient) + 1e-30
    return bool((apart <= near).all()) and same


def _weighted(
    losses: UnitLosses, batch: Batch, weights: Tensor, owners: Owners, source: Source
) -> tuple[Tensor, Tensors]:
    """(B,) losses in float64, and the gradient of their weighted sum, by plain autograd."""
    parameters = trainable(losses.model)
    masks = Masks(owners.masks, batch["unit"], source)
    with torch.enable_grad(), Masking(masks):
        values = losses.at(parameters, batch)
    with torch.enable_grad():
        total = (values * weights.to(values)).sum()
    gradients = torch.autograd.grad(
        total, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    dense = [g if g.layout == torch.strided else g.to_dense() for g in gradients]
    return values.detach().double(), dict(zip(parameters, dense, strict=True))
