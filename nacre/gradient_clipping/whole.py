"""Ordinary training: the plain gradient of the sum, and clipping of the mean gradient.

Nothing here bounds a unit, so nothing here is a basis for privacy: `Whole` says inf, and every
noise refuses it. `ByValue` and `ByNorm` are the article's forms of clipping against exploding
gradients. They act after the release, on one vector that belongs to no unit: post-processing,
which costs no privacy and gives none. Bounds come from the rules of `rules.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nacre.core.errors import Incompatible
from nacre.core.parts import Clip, Objective
from nacre.core.random import Source
from nacre.core.tensors import finite, norm, scale, trainable
from nacre.core.types import Batch, BoundedSum, Tensors
from nacre.gradient_clipping.clipped import UnitLosses, empty_sum, held
from nacre.gradient_clipping.looped import one_by_one
from nacre.gradient_clipping.owners import Owners


@dataclass(frozen=True, eq=False)
class Whole:
    """The unclipped sum by one backward pass of the summed losses: as fast as plain PyTorch.

    The bound is inf. Raises `Incompatible` for a rule that bounds units: no unit's own gradient
    exists here. If the sum is not finite it is taken again one unit at a time, which drops and
    counts the units at fault. Padding, frozen parameters, buffers and the empty batch are treated
    as in `Looped`.
    """

    objective: Objective

    def __call__(self, model: nn.Module, units: Batch, clip: Clip, source: Source) -> BoundedSum:
        """The sum over the units that are present; `source` keys the attack's random starts."""
        zero = empty_sum(model, clip)
        if math.isfinite(zero.bound):
            raise Incompatible(
                f"`gradients: whole` cannot bound single units by {zero.bound:g}: use `gradients: "
                "vmapped` or `looped`, or leave out `gradient_clipping: flat`"
            )
        batch = self.objective.perturb(model, held(units), source)
        if not len(batch["unit"]):
            return zero
        losses = UnitLosses(model, self.objective)
        total = _gradient(losses, batch)
        if not finite(total):
            return one_by_one(losses, batch, clip, Owners(), source)
        return BoundedSum(total, zero.bound)


def _gradient(losses: UnitLosses, batch: Batch) -> Tensors:
    """name -> (*shape) float32, the gradient of the sum over units."""
    parameters = trainable(losses.model)
    with torch.enable_grad():
        loss = losses.at(parameters, batch).sum()
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    return {name: g.float() for name, g in zip(parameters, gradients, strict=True)}


@dataclass(frozen=True, kw_only=True)
class ByValue:
    """Clamp each entry of the mean gradient to ±limit.

    An entry that is NaN stays NaN, so a run that diverges is seen to diverge.

    >>> ByValue(limit=1.0).shape({"w": torch.tensor([3.0, -0.5])})
    {'w': tensor([ 1.0000, -0.5000])}
    """

    kind: Literal["by_value"] = "by_value"
    limit: float
    """The largest size of an entry."""

    def __post_init__(self) -> None:
        _positive("limit", self.limit)

    def shape(self, mean: Tensors) -> Tensors:
        """The clamped gradient."""
        return {name: value.clamp(-self.limit, self.limit) for name, value in mean.items()}


@dataclass(frozen=True, kw_only=True)
class ByNorm:
    """Scale the mean gradient down to a joint L2 norm, keeping its direction.

    >>> ByNorm(norm=1.0).shape({"w": torch.tensor([3.0, 4.0])})
    {'w': tensor([0.6000, 0.8000])}

    *Source:* Pascanu, Mikolov & Bengio 2013, "On the Difficulty of Training Recurrent Neural
    Networks", https://arxiv.org/abs/1211.5063, algorithm 1.
    """

    kind: Literal["by_norm"] = "by_norm"
    norm: float
    """The longest that the mean gradient may be."""

    def __post_init__(self) -> None:
        _positive("norm", self.norm)

    def shape(self, mean: Tensors) -> Tensors:
        """The scaled gradient; one that is no longer than `norm` comes back unchanged."""
        length = norm(mean)
        return mean if length <= self.norm else scale(mean, self.norm / length)


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be > 0 and finite")
