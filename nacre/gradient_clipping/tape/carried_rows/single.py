"""Rows handed to a call one unit at a time: what each call gives, side by side for all units.

A loop over the rows of a batch calls an operation once for each unit, and such a call sees no row
of any other. What it adds is that unit's alone, so nothing is kept for the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nacre.gradient_clipping.tape.contributions import (
    Contribution,
    Instances,
    Lookups,
    Products,
    joined,
    wide,
)
from nacre.gradient_clipping.tape.layout import Layout, over_broadcast


@dataclass(frozen=True, eq=False)
class Single:
    """What one unit adds, by a call that took rows of no other."""

    part: Contribution  # of that unit, as if it were the batch
    unit: int
    units: int  # of the batch

    def weighted(self, factors: Tensor) -> Tensor:
        """(B,) -> (*shape)"""
        return self.part.weighted(factors[self.unit : self.unit + 1])


@dataclass(frozen=True, eq=False)
class OwnRows:
    """What units add to a tensor of the output's own shape, each unit to its own rows alone: types
    of tokens are looked up once for each unit, and then added to rows of the batch."""

    grads: Tensor  # (B, positions, …), the units first
    layout: Layout
    shape: torch.Size  # of the tensor
    what: str  # for messages

    def weighted(self, factors: Tensor) -> Tensor:
        """(B,) -> (*shape)"""
        rows = wide(self.grads)
        column = factors.to(rows.dtype).reshape(-1, *[1] * (rows.dim() - 1))
        return self.layout.back(rows * column, self.shape, self.what)

    def instances(self) -> Instances:
        """The same with all rows of all units: the square of the batch."""
        alone = self.grads.new_zeros(len(self.grads), *self.grads.shape)
        units = torch.arange(len(alone), device=alone.device)
        alone[units, units] = self.grads
        return Instances(torch.stack([self.layout.back(a, self.shape, self.what) for a in alone]))

    def gathered(self, shape: tuple[int, ...]) -> Contribution | None:
        """In a tensor of this shape, which was broadcast to the tensor; None where it has rows of
        units itself."""
        full = (1,) * (len(self.shape) - len(shape)) + shape
        axis = self.layout.axis
        return None if full[axis] != 1 else Instances(over_broadcast(self.grads, axis, shape))

    def lookups(self, ids: Tensor, shape: tuple[int, ...]) -> Lookups:
        """In the (V, D) table of which the tensor holds row ids[…]."""
        units = len(self.grads)
        places = self.layout.units_first(ids, units, self.what).reshape(units, -1)
        return Lookups(places, self.grads.reshape(units, -1, shape[1]), shape)


def side_by_side(parts: Iterable[Contribution | Single | OwnRows]) -> list[Contribution]:
    """The same contributions with a row for each unit, zeros where a unit added nothing."""
    whole: list[Contribution] = []
    single: dict[int, list[Contribution]] = {}
    units = 0
    for part in parts:
        if isinstance(part, Single):
            single.setdefault(part.unit, []).append(part.part)
            units = part.units
        elif isinstance(part, OwnRows):
            whole.append(part.instances())
        else:
            whole.append(part)
    forms: dict[object, dict[int, Contribution]] = {}
    for unit, own in single.items():
        for part in joined(own):
            forms.setdefault(_form(part), {})[unit] = part
    return whole + [_stacked(found, units) for found in forms.values()]


def _form(part: Contribution) -> object:
    """Contributions of one form can lie side by side."""
    if isinstance(part, Instances):
        return Instances, part.gradients.dtype, part.axes
    if isinstance(part, Products):
        return Products, part.grads.dtype, part.flipped, part.axes
    return Lookups, part.grads.dtype


def _stacked(found: dict[int, Contribution], units: int) -> Contribution:
    parts, places = list(found.values()), list(found)
    first = parts[0]
    if isinstance(first, Instances):
        rows = [p.gradients[0] for p in parts if isinstance(p, Instances)]
        return Instances(_placed(rows, places, units, 0), first.axes)
    if isinstance(first, Products):
        products = [p for p in parts if isinstance(p, Products)]
        inputs = _placed([p.inputs[0] for p in products], places, units, 0)
        grads = _placed([p.grads[0] for p in products], places, units, 0)
        return Products(inputs, grads, first.shape, first.flipped, axes=first.axes)
    lookups = [p for p in parts if isinstance(p, Lookups)]
    ids = _placed([p.ids[0] for p in lookups], places, units, -1)
    return Lookups(ids, _placed([p.grads[0] for p in lookups], places, units, 0), first.shape)


def _placed(
    rows: list[Tensor],  # of as many units, (positions, …) each, or (…) where all are as large
    places: list[int],  # the unit of each
    units: int,
    nothing: int,  # what fills up
) -> Tensor:  # (B, …)
    same = all(row.shape == rows[0].shape for row in rows)
    found = torch.stack(rows) if same else pad_sequence(rows, True, float(nothing))
    if places == list(range(units)):
        return found
    filled = found.new_full((units, *found.shape[1:]), nothing)
    return filled.index_copy(0, torch.tensor(places, device=found.device), found)
