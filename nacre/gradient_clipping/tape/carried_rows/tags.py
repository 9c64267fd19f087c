"""Whose a row is where values of the batch decide it: owners travel with the call's own indices.

Tokens that are sorted by their expert lie along no fixed axis. From the first such call on, each
tensor has an *owner tensor* beside it: of the same axes, of size 1 where the owner is one and the
same, with the unit's place in the batch at each entry. A call moves it by the very indices by which
it moves the rows. What has no rule is refused, and so is what would let one unit decide about the
rows of another: an index either takes every row equally often, whatever order it was made by, or
is itself the unit's own.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.flow import DATA, Flow
from nacre.gradient_clipping.tape.layout import Layout, Ragged

NOBODY, MIXED = -1, -2
"""The owner of constants, and of numbers that several units make together."""


class Unknown(Exception):
    """A tensor of the batch entered of which nothing says whose its entries are."""


@dataclass(eq=False)
class Carried:
    """The owner tensors of one forward pass over `units` units."""

    flow: Flow
    units: int
    tags: dict[int, tuple[Tensor, int, Tensor, bool]] = field(default_factory=dict)
    """By id: the tensor, its version, its owners, whether they lie otherwise than on any trial."""
    keys: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Sorted numbers, and their owners: by them the rows of experts lie side by side."""
    picks: dict[int, tuple[Tensor, int, int, list[int]]] = field(default_factory=dict)
    """Masks that were read at numbers which several units made: version, axis, the numbers."""
    lengths: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Of what was packed or filled up: the owner of each sequence, and how long it is."""
    open: dict[int, Tensor] = field(default_factory=dict)
    """Owners of rows that weights made, some of them of constants, by where they lie in memory."""
    adopted: bool = False  # whether any such row was counted to the unit whose row it then met
    lines: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """Owners along an axis, by its size and by how many entries of a unit lie side by side."""

    def seed(self, tensor: Tensor, layout: Layout) -> None:
        """Notes the owners of a tensor that lies as it did on trial."""
        size = tensor.shape[layout.axis]
        _, inner = layout.split(size, self.units, "a tensor that is moved by values")
        line = self.lines.get((size, inner))
        if line is None:
            line = torch.arange(size, device=tensor.device) // inner % self.units
            self.lines[size, inner] = line
        shape = [1] * tensor.dim()
        shape[layout.axis] = size
        self.tags[id(tensor)] = (tensor, tensor._version, line.reshape(shape), False)

    def clear(self) -> None:
        """Lets go of all tensors but the lengths."""
        for held in (self.tags, self.keys, self.picks, self.open, self.lines):
            held.clear()

    def adopt(self, owners: Tensor, total: Tensor) -> None:
        """Counts rows that a weight made of constants (the first state of a sequence that begins
        late) to the unit whose rows they meet entry by entry. Owners are views of each other along
        a model's way, so what is a part of such rows, or what they are a part of, follows. That no
        other unit answers to them is verified in each sum."""
        if owners.untyped_storage().data_ptr() in self.open and owners.shape == total.shape:
            free = (owners == NOBODY) & (total >= 0)
            if bool(free.any()):
                owners.copy_(torch.where(free, total, owners))
                self.adopted = True

    def seen(self, tensor: Any) -> Tensor | None:
        """The owners of a tensor; None where nothing is noted."""
        found = self.tags.get(id(tensor))
        return None if found is None or found[1] != tensor._version else found[2]

    def owners(self, value: Any) -> Tensor:
        """The owners of an argument, for the rules. Raises `Unknown`."""
        if not isinstance(value, Tensor):
            return torch.tensor(NOBODY)
        found = self.seen(value)
        if found is not None:
            return found
        if self.flow.level(value) < DATA:
            return torch.full([1] * value.dim(), NOBODY, device=value.device)
        raise Unknown

    def full(self, value: Any) -> Tensor:
        """The owners of each entry, without memory of their own where they are the same."""
        return self.owners(value).expand(value.shape)

    def entered(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether something entered of which the owners are noted."""
        return any(self.seen(t) is not None for t in tensors_in((args, kwargs)))

    def holds_rows(self, args: tuple[Any, ...], kwargs: Any) -> bool:
        """Whether rows entered in an order of their own."""
        for t in tensors_in((args, kwargs)):
            found = self.tags.get(id(t))
            # What was written into by way of a view lies in no order that is known.
            if found is not None and (found[3] or found[1] != t._version):
                return True
        return False

    def one_units(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        """(): the unit that owns whatever entered, where it is one; so it owns the result."""
        found: Tensor | None = None
        for t in tensors_in((args, kwargs)):
            owners = self.seen(t)
            if owners is None and self.flow.level(t) < DATA:
                continue
            if owners is None or owners.numel() != 1 or int(owners) == MIXED:
                return None
            if int(owners) != NOBODY and found is not None and int(found) != int(owners):
                return None
            found = owners if int(owners) != NOBODY else found
        return None if found is None else found.reshape(())

    def note(self, result: Any, owners: Any) -> None:
        """Keeps the owners of a result."""
        if isinstance(result, tuple | list):
            each = owners if isinstance(owners, tuple | list) else [owners] * len(result)
            for one, own in zip(result, each, strict=True):
                self.note(one, own)
        elif isinstance(result, Tensor) and isinstance(owners, Tensor):
            single = not owners.dim() and int(owners) != NOBODY
            small = compressed(owners) if owners.dim() else owners.reshape([1] * result.dim())
            rows = single or not self.regular(small)
            self.tags[id(result)] = (result, result._version, small, rows)

    def regular(self, owners: Tensor) -> bool:
        """Whether owners lie as a trial finds them too: along one axis, in the batch's order."""
        axes = [d for d, size in enumerate(owners.shape) if size > 1]
        if len(axes) != 1 or owners.shape[axes[0]] % self.units:
            return not axes and (owners.numel() == 0 or int(owners.reshape(-1)[0]) == NOBODY)
        line = owners.reshape(-1)
        place = torch.arange(len(line), device=line.device)
        blocks = place // (len(line) // self.units)
        return any(
            bool(((line == order) | (line == NOBODY)).all())
            for order in (blocks, place % self.units)
        )

    def follows(self, owners: Tensor, learnt: Layout) -> bool:
        """Whether owners lie as the trial found them, and not in another regular order."""
        return self.regular(owners) and self._lies(owners, learnt)

    def lies_as(self, tensor: Tensor, learnt: Any) -> bool:
        """False where a tensor's owners are known to lie otherwise than the trial found."""
        owners = self.seen(tensor)
        return owners is None or not isinstance(learnt, Layout) or self._lies(owners, learnt)

    def _lies(self, owners: Tensor, learnt: Layout) -> bool:
        size = owners.shape[learnt.axis] if learnt.axis < owners.dim() else 1
        if size == 1 or size % self.units:
            return bool((owners == NOBODY).all()) or (size == 1 and self.regular(owners))
        _, inner = learnt.split(size, self.units, "a call")
        line = torch.arange(size, device=owners.device) // inner % self.units
        shape = [1] * owners.dim()
        shape[learnt.axis] = -1
        return bool(((owners == line.reshape(shape)) | (owners == NOBODY)).all())

    def layout(self, owners: Tensor, shape: torch.Size) -> Ragged | None:
        """How the rows of a result lie, for what reads its gradient; None along several axes."""
        small = compressed(owners)
        axes = [d for d, size in enumerate(small.shape) if size > 1]
        line = small.reshape(-1)
        if not axes:
            return Ragged(0, line, only=int(line))
        if bool((line == NOBODY).any()):
            self.open[line.untyped_storage().data_ptr()] = line
        return None if len(axes) > 1 else Ragged(axes[0], line)


@dataclass(frozen=True, eq=False)
class CarriedStep:
    """What is known of a call before it runs."""

    owners: Any  # of its result: a tensor, a tuple of them, or None
    rows: bool  # whether rows in an order of their own entered


CarryRule = Callable[[Carried, Any, tuple[Any, ...], Mapping[str, Any]], Any]


def compressed(owners: Tensor) -> Tensor:
    """The same owners, with size 1 along each axis on which nothing depends."""
    for axis, size in enumerate(owners.shape):
        if size > 1:
            first = owners.narrow(axis, 0, 1)
            if owners.stride(axis) == 0 or bool((owners == first).all()):
                owners = first
    if sum(size > 1 for size in owners.shape) > 1 and bool((owners == NOBODY).any()):
        return _absorbed(owners)
    return owners


def _absorbed(owners: Tensor) -> Tensor:
    """Constants among the entries of a unit count as that unit's."""
    for axis, size in enumerate(owners.shape):
        most = owners.amax(axis, keepdim=True)
        same = (owners == most) | (owners == NOBODY)
        if size > 1 and bool(same.all()):
            owners = most
    return owners


def together(*found: Tensor) -> Tensor:
    """The owners of entries that are made of several: `MIXED` where two units meet."""
    total = found[0]
    for other in found[1:]:
        same = (total == other) | (other == NOBODY)
        mixed = torch.where(total == NOBODY, other, torch.full_like(other, MIXED))
        total = torch.where(same, total, mixed)
    return total


def constant(owners: Tensor, axis: int) -> bool:
    """Whether all entries along an axis have one owner."""
    return compressed(owners).shape[axis] == 1


def own(index: Tensor, taken: Tensor) -> bool:
    """Whether each entry of an index is of the unit whose row it takes."""
    return bool(((taken == index) | (index == NOBODY) | (taken == NOBODY)).all())


def equally_often(index: Tensor, size: int) -> bool:
    """Whether an index takes every row the same number of times: then no unit decides about
    another's rows, in whatever order they come."""
    if index.dim() != 1 or index.dtype == torch.bool or not size or len(index) % size:
        return False
    if bool((index < -size).any()) or bool((index >= size).any()):
        return False
    counts = torch.bincount(index % size, minlength=size)
    return bool((counts == len(index) // size).all())
