"""From per-unit gradients to the clipped sum: what every per-unit gradient sum ends with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nacre.core import rows
from nacre.core.errors import UnsupportedLayer
from nacre.core.parts import Clip, Objective
from nacre.core.swapped import swapped
from nacre.core.tensors import buffers_of, parameters_of, summed, trainable
from nacre.core.types import Batch, BoundedSum, LocalMetrics, Tensors
from nacre.gradient_clipping.tape.flow import FIXED, Flow

_STEEPEST = 2.0**100
"""No factor is larger: a factor that float32 cannot hold would turn a gradient of zero into NaN."""

_FLATTEST = 2.0**-126
"""A factor below this counts as 0: float32 holds it with fewer digits than the rounding slack of
the rules allows for, so the product could be longer than the bound."""

_LARGEST = 1e30
"""Norms from here on count as not finite: their factors would near the numbers below 1e-38, which
float32 holds with fewer digits than the rounding slack of the rules allows for."""


def clipped_sum(
    gradients: Tensors,  # name -> (B, *shape), one gradient a unit
    clip: Clip,
) -> BoundedSum:
    """The sum of each unit's gradient times its factors, in float32 (float64 stays float64).

    *Guarantee:* each unit contributes a vector of L2 norm at most `clip.bound`: gradients are
    rounded to float32 first, their norms are summed in float64, and the rule's factors leave room
    for the rounding of the product. A unit with an entry that is not finite, or with a norm of 1e30
    and more, contributes exactly zero (0 * NaN would poison the sum) and is counted in
    `local.dropped`. The rounding of the addition itself is not covered: it is of the order of
    2**-24 of the total.

    >>> from nacre.gradient_clipping import Flat
    >>> units = torch.tensor([[3.0, 4.0], [0.0, float("nan")], [0.5, 0.0]])
    >>> total = clipped_sum({"w": units}, Flat(norm=1.0))
    >>> total.total["w"], total.bound, total.local.dropped
    (tensor([1.1000, 0.8000]), 1.0, 1)
    """
    groups = clip.groups(list(gradients))
    gradients = {name: _single(value) for name, value in gradients.items()}
    norms = torch.stack([_norms([gradients[name] for name in names]) for names in groups], dim=1)
    weighed = factors_of(norms, clip)
    total = {
        name: _weighted(gradients[name], weighed.factors[:, index], weighed.usable)
        for index, names in enumerate(groups)
        for name in names
    }
    metrics = LocalMetrics(as_gradients(norms, gradients), int((~weighed.usable).sum()))
    ordered = {name: total[name] for name in gradients} | weighed.extras
    return BoundedSum(ordered, weighed.bound, metrics)


@dataclass(frozen=True)
class Weighed:
    """What a clip rule makes of the norms of a batch."""

    usable: Tensor  # (B,) bool; the others contribute exactly zero
    factors: Tensor  # (B, G), 0 where not usable
    extras: Tensors  # ":name" entries that ride along, summed over the usable units
    bound: float


def factors_of(norms: Tensor, clip: Clip) -> Weighed:
    """(B, G) norms -> the rule's factors, and what rides along with the gradients.

    A unit with a norm that is not finite, or 1e30 and more, is not usable: it has factors of 0 and
    no part in the extra entries. Factors are judged in float64, and then bounded so that float32
    holds each of them: what is above 2**100 is 2**100, what is below 2**-126 is 0. Both only make
    a unit's contribution shorter.
    """
    norms = norms.double()
    usable = (norms < _LARGEST).all(1)  # a NaN is not below either
    factors = torch.where(usable[:, None], clip.factors(norms), torch.zeros_like(norms))
    factors = factors.clamp(max=_STEEPEST)
    factors = torch.where(factors < _FLATTEST, torch.zeros_like(factors), factors)
    return Weighed(usable, factors, clip.extras(norms[usable]), clip.bound(norms.shape[1]))


def _single(value: Tensor) -> Tensor:
    """float32, or float64 where the model computes in that."""
    return value if value.dtype == torch.float64 else value.float()


def as_gradients(norms: Tensor, gradients: Tensors) -> Tensor:
    """Norms as they are kept: float32, or float64 where any gradient is."""
    exact = any(value.dtype == torch.float64 for value in gradients.values())
    return norms if exact else norms.float()


def empty_sum(model: nn.Module, clip: Clip) -> BoundedSum:
    """The sum over no unit."""
    weights = trainable(model)
    bound = clip.bound(len(clip.groups(list(weights))))
    return BoundedSum.zero(summed(weights, clip), bound)


def held(batch: Batch) -> Batch:
    """The units that are present: padding never reaches the model."""
    present = batch["present"]
    return batch if bool(present.all()) else rows.select(batch, present)


class UnitLosses(nn.Module):
    """A model and its objective as one module, batch in and (B,) losses out.

    An objective takes the model as an argument, so the two are wrapped together.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> Tensor:
        """-> (B,). Raises `ValueError` for any other shape, which would broadcast units."""
        losses = self.objective.losses(self.model, batch)
        if losses.shape != batch["present"].shape:
            shapes = f"{tuple(losses.shape)} for B={len(batch['present'])} units"
            raise ValueError(f"losses returned shape={shapes}: each unit needs one loss")
        return losses

    def at(self, parameters: Tensors, batch: Batch, flow: Flow | None = None) -> Tensor:
        """-> (B,), with these parameters in place of the model's of the same names.

        Buffers are copies: a module that updates its own (a running mean) leaves nothing behind,
        and no unit sees what another wrote. `flow` learns that they come from no batch.
        """
        buffers = {name: buffer.clone() for name, buffer in buffers_of(self.model).items()}
        if flow is not None:
            flow.mark(buffers.values(), FIXED)
        held = parameters_of(self.model) | dict(parameters)
        before = _versions(held)
        with swapped(self.model, {**buffers, **parameters}):
            losses = self(batch)
        after = _versions(held)
        for name, version in before.items():
            if after[name] != version:
                raise UnsupportedLayer(
                    f"the forward pass writes into the weight {name!r}, which would carry what the "
                    "batch holds out of the step without noise; compute a new tensor instead, and "
                    "load the model anew, since this pass has changed it"
                )
        return losses


def _versions(held: Tensors) -> dict[str, int]:
    """How often each weight was written into; nothing where a transform wraps them."""
    if torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
        return {}
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]  # no call of the model's
        return {name: p._version for name, p in held.items()}  # pyright: ignore[reportPrivateUsage]


def _norms(gradients: list[Tensor]) -> Tensor:
    """(B, *shape) each -> (B,) joint L2 norms in float64."""
    return _lengths(torch.stack([_lengths(value) for value in gradients], dim=1))


def _lengths(values: Tensor) -> Tensor:
    """(B, *shape) -> (B,) L2 norms in float64, without a float64 copy of the values."""
    rows = values.unsqueeze(-1).flatten(1)  # a scalar parameter has no axis of its own
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _weighted(
    gradient: Tensor,  # (B, *shape)
    factors: Tensor,  # (B,)
    usable: Tensor,  # (B,) bool
) -> Tensor:  # (*shape) float32
    """The sum over units of factor * gradient, over the usable ones.

    Not a matrix product: PyTorch may be told to round those to fewer bits (TF32, autocast), and
    then a clipped unit would be longer than its bound.
    """
    column = (-1, *[1] * (gradient.dim() - 1))
    if not bool(usable.all()):  # a factor of 0 does not remove NaN: 0 * NaN is NaN
        gradient = gradient.masked_fill(~usable.reshape(column), 0.0)
    return (gradient * factors.reshape(column).to(gradient.dtype)).sum(0)
