"""The armed check: norms of the tape against plain differentiation of single units' losses, and
whether every weight that is to move has a gradient at all. A sum that takes units one by one is
compared with itself, in another order."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn

from nacre.core import rows
from nacre.core.errors import Incompatible, UnsupportedLayer
from nacre.core.parts import Objective
from nacre.core.random import Source, Stream
from nacre.core.tensors import norm, subtract, trainable
from nacre.core.types import Batch, Tensors
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.gradient_clipping.tape.dropout_masks import Masking, Masks
from nacre.gradient_clipping.tape.owners import Owners

_STEPS = 3  # sums that are checked where only the first are
_SHARE = 0.01  # of the later sums
_UNITS = 2  # units of each
_MANY = 256  # units, where a few reach not all weights
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Relative: a unit alone rounds differently than in a batch."""


def all_answer(model: nn.Module, objective: Objective, sample: Batch) -> None:
    """Raises `Incompatible` where the losses of made-up units do not depend on a trainable tensor.

    Under privacy such a tensor would be moved by noise alone, while epsilon is paid for it. A
    gradient of zeros is one: an adapter that starts at zero hides nothing. A weight that no unit
    of the sample reaches (an expert that none was sent to) is looked for among more units first.
    """
    idle = _idle(model, objective, sample)
    more = _more(sample)
    if idle and more is not None:
        try:
            idle &= _idle(model, objective, more)
        except Exception:
            more = None  # what is put together anew may be no input of the model
    if idle:
        names = [name for name in trainable(model) if name in idle]
        rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
        tried = len((sample if more is None else more)["unit"])
        raise Incompatible(
            f"the losses of {tried} made-up rows do not depend on the trainable weight "
            f"{names[0]!r}{rest}, and noise alone would move it: use it in `forward`, fix it by "
            "`requires_grad_(False)`, or, where only some rows reach it (experts), give a larger "
            "`sample`"
        )


def _idle(model: nn.Module, objective: Objective, sample: Batch) -> set[str]:
    """The trainable weights that the losses of these units do not depend on."""
    weights = trainable(model)
    with torch.enable_grad():
        batch = objective.perturb(model, sample, Source(bytes(32)))
        loss = objective.losses(model, batch).sum()
    if not loss.requires_grad:
        raise Incompatible(
            "the losses depend on no trainable weight, so nothing could be learnt; use the weights "
            "in `forward`, without `torch.no_grad`"
        )
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    found = cast("Iterable[Tensor | None]", gradients)  # typed as if all were used
    return {name for name, gradient in zip(weights, found, strict=True) if gradient is None}


def _more(sample: Batch) -> Batch | None:
    """Many more made-up units: entries of the sample, each place drawn from another unit, and
    normals of the sample's own scale added to what is no whole number. None for groups of rows."""
    if rows.grouped(sample):
        return None
    draw = torch.Generator().manual_seed(0)
    made: Batch = {}
    for name, value in sample.items():
        if name == "unit":
            made[name] = torch.arange(_MANY, device=value.device)
            continue
        flat = value.reshape(len(value), -1)
        which = torch.randint(len(value), (_MANY, flat.shape[1]), generator=draw)
        found = flat.gather(0, which.to(value.device))
        if value.is_floating_point():
            noise = torch.randn(found.shape, generator=draw).to(found)
            found = found + noise * flat.std().nan_to_num(1.0).clamp(min=1e-3)
        made[name] = found.reshape(_MANY, *value.shape[1:])
    return made


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


def _draw(source: Source, what: str) -> Stream:
    """Random numbers for the check alone, so that no other draw moves."""
    return source.child("armed check", what).stream()


@dataclass(eq=False)
class Armed:
    """Compares a few units of the first sums and of some later ones, or of all, and raises where
    the tape is wrong. Which later sums, and which units, follow from the step's key."""

    done: int = 0
    reached: int = 0  # sums in which others' lengths reached a unit, so units were taken one by one

    def due(self, verify: Literal["first", "always", "never"], source: Source) -> bool:
        """Whether this sum is to be checked."""
        self.done += 1
        if verify == "first" and self.done > _STEPS:
            return float(_draw(source, "sum").uniform(1)) < _SHARE
        return verify != "never"

    def again(
        self, verify: Literal["first", "always", "never"], units: int, source: Source
    ) -> Again | None:
        """Which unit of a sum over single units is differentiated twice; None where none is."""
        if not units or not self.due(verify, source):
            return None
        first, then = _draw(source, "units").uniform(2).tolist()
        unit = int(first * units)
        before = (unit - 1) % units  # after which it was differentiated
        others = [other for other in range(units) if other != before] or [unit]
        return Again(unit, others[int(then * len(others))])

    def check(
        self,
        losses: UnitLosses,
        batch: Batch,
        norms: Tensor,  # (B, G) of the tape
        groups: list[list[str]],
        owners: Owners,
        source: Source,
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        """Raises `UnsupportedLayer` where a unit's norm is not that of its own loss's gradient,
        differentiated alone under the same masks."""
        drawn = (_draw(source, "units").uniform(_UNITS) * len(norms)).long()
        for unit in sorted(set(drawn.tolist())):
            if not bool(torch.isfinite(norms[unit]).all()):
                continue
            alone = rows.select(batch, slice(unit, unit + 1))
            gradient = gradient_of(losses, alone, owners, source)
            for group, names in enumerate(groups):
                true = sum(float(gradient[n].double().square().sum()) for n in names) ** 0.5
                seen = float(norms[unit, group])
                if not abs(seen - true) <= _TOLERANCE[precision] * max(true, 1e-12) + 1e-30:
                    raise UnsupportedLayer(
                        f"the tape finds a gradient of norm {seen:.6g} for a unit whose own loss "
                        f"has one of {true:.6g}, so its bound would not hold; nothing of this step "
                        "was released: use `gradients: looped`, and report the model"
                    )


@dataclass(eq=False)
class Again:
    """A unit's gradient as it was among the others, and once more after another unit."""

    unit: int
    after: int
    found: Tensors = field(default_factory=dict[str, Tensor])

    def seen(self, unit: int, gradient: Tensors) -> None:
        """Keeps the gradient of the unit that was drawn."""
        if unit == self.unit:
            self.found = gradient

    def check(self, losses: UnitLosses, batch: Batch, owners: Owners, source: Source) -> None:
        """Raises `UnsupportedLayer` where the unit's gradient is another after another unit."""
        for unit in (self.after, self.unit):
            alone = rows.select(batch, slice(unit, unit + 1))
            gradient = gradient_of(losses, alone, owners, source)
        apart, size = norm(subtract(gradient, self.found)), norm(self.found)
        if math.isfinite(size) and not apart <= _TOLERANCE["float32"] * size + 1e-30:
            raise UnsupportedLayer(
                "a unit has another gradient when other units come before it, so the model or the "
                "loss keeps what it saw from one pass to the next, and no bound on one unit's "
                "share holds; nothing of this step was released: keep nothing between passes"
            )
