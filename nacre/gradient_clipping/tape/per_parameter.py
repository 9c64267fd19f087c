"""From the uses of tensors to the gradient of each parameter: joined before the norm, exactly.

One tensor in several operations (a tied embedding and head, a layer used twice) is one parameter
with more positions. A tensor derived from parameters hands what it got back to them: through a
view or a cast as it is, through anything else by the derivation's own backward, unit by unit.
"""

# Given of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nacre.gradient_clipping.operations.call import ParameterShares, tensors_in
from nacre.gradient_clipping.tape.carried_rows.single import OwnRows, Single, side_by_side
from nacre.gradient_clipping.tape.contributions import (
    Contribution,
    Grams,
    Instances,
    Lookups,
    Products,
    squared_norms,
    wide,
)
from nacre.gradient_clipping.tape.counters import function_name
from nacre.gradient_clipping.tape.layout import over_broadcast
from nacre.gradient_clipping.tape.tape import Tape
from nacre.gradient_clipping.tape.uses import Known

_RESHAPED = {"view", "reshape", "contiguous", "clone", "to", "float", "double", "bfloat16", "half",
             "unsqueeze", "squeeze", "flatten", "type_as", "view_as"}  # fmt: skip
"""Functions whose result holds the same numbers in the same order."""

_TURNED = {"t", "T", "mT", "transpose", "swapaxes", "swapdims"}
"""Functions that turn a matrix over."""

_BROADCAST = {"expand", "expand_as", "broadcast_to", "repeat", "tile"}
"""Functions that repeat a tensor along axes of size one, or new ones."""

Given = list[Contribution | Single | OwnRows]


@dataclass(eq=False)
class Joined:
    """What the units add to each parameter, as one backward pass brings it in."""

    tape: Tape
    parts: dict[int, Given] = field(default_factory=dict)
    """By tensor."""

    def add(self, given: ParameterShares) -> None:
        """Notes what one use gave."""
        for tensor, contribution in given:
            self.parts.setdefault(id(tensor), []).append(contribution)

    def by_parameter(self) -> dict[str, list[Contribution]]:
        """Name -> contributions; a parameter that nothing used has none."""
        found: dict[str, list[Contribution]] = {name: [] for name in self.tape.parameters}
        computed_ones: dict[int, Tensor] = {}
        for key, given in self.parts.items():
            known, parts = _through_views(self.tape, self.tape.known[key], given)
            table = _looked_up_in(self.tape, known)
            if known.derivation is None:
                found[known.names[0]] += side_by_side(parts)
            elif table is not None:
                found[table.name] += table.of_parts(parts)
            else:
                gradients = _sum(side_by_side(parts))
                place = id(known.tensor)
                before = computed_ones.get(place)
                computed_ones[place] = gradients if before is None else before + gradients
        for name, part in _backwards(self.tape, computed_ones):
            found[name].append(part)
        return found


def squared(
    found: dict[str, list[Contribution]], names: Iterable[str], units: int, grams: Grams
) -> Tensor:
    """-> (B,) float64: the squared norm of each unit's gradient by these parameters together."""
    total = torch.zeros(units, dtype=torch.float64)
    for name in names:
        if found[name]:
            total += squared_norms(found[name], grams).to(total.device)
    return total


def weighted(parts: list[Contribution], factors: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (*shape): the weighted sum over units, in float32 or the parameter's float64."""
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    if not parts:
        return torch.zeros(like.shape, dtype=kind, device=like.device)
    total = parts[0].weighted(factors)
    for part in parts[1:]:
        total = total + part.weighted(factors)
    total = total if total.shape == like.shape else total.reshape(like.shape)
    return total if total.dtype == kind else total.to(kind)


def _sum(parts: list[Contribution]) -> Tensor:
    """-> (B, *shape): the gradient of each unit."""
    total = parts[0].instances()
    for part in parts[1:]:
        total = total + part.instances()
    return total


def _backwards(tape: Tape, got: dict[int, Tensor]) -> Iterator[tuple[str, Contribution]]:
    """What computed tensors got, (B, *shape) each by tensor -> the same through the backward of
    what computes them, for all units at once; what is computed on the way is gone through once."""
    together: list[tuple[list[Known], dict[int, Known]]] = []
    for key in got:
        known = tape.known[key]
        ends = _ends(tape, known)
        if ends is None:
            homes = [tape.parameters[name] for name in known.names]
            yield from _one_by_one(known, homes, got[key])
            continue
        ones, more = [known], ends
        for others, theirs in [held for held in together if held[1].keys() & ends.keys()]:
            ones, more = others + ones, theirs | more
        apart = [held for held in together if not held[1].keys() & ends.keys()]
        together = [*apart, (ones, more)]
    for ones, ends in together:
        names = {end.names[0] for end in ends.values() if end.derivation is None}
        if any(end.derivation is not None and end.names[0] in names for end in ends.values()):
            # The way to the table itself leads through what was looked up in it.
            for known in ones:
                homes = [tape.parameters[name] for name in known.names]
                yield from _one_by_one(known, homes, got[id(known.tensor)])
            continue
        back = torch.autograd.grad(
            [known.tensor for known in ones], [end.tensor for end in ends.values()],
            [got[id(known.tensor)].to(known.tensor.dtype) for known in ones], retain_graph=True,
            is_grads_batched=True, allow_unused=True,
        )  # fmt: skip
        for end, gradient in zip(ends.values(), back, strict=True):
            if gradient is None:  # pyright: ignore[reportUnnecessaryComparison]
                continue
            table = _looked_up_in(tape, end)
            part = Instances(gradient)
            yield (end.names[0], part) if table is None else (table.name, table.of(part))


def _ends(tape: Tape, known: Known) -> dict[int, Known] | None:
    """The parameters that a tensor is computed from, and in their place what was looked up in them;
    by tensor. None where torch maps the backward of what lies between over no units (of what was
    written into), or forgets the padding when it does (of a lookup)."""
    ends: dict[int, Known] = {}
    seen, left = {id(known.tensor)}, [known]
    while left:
        one = left.pop()
        if one.derivation is None or _looked_up_in(tape, one) is not None:
            ends[id(one.tensor)] = one
            continue
        if one.derivation.function in (None, functional.embedding, functional.embedding_bag):
            return None
        for t in tensors_in((one.derivation.args, one.derivation.kwargs)):
            if id(t) in tape.known and id(t) not in seen:
                seen.add(id(t))
                left.append(tape.known[id(t)])
    return ends


def _one_by_one(
    known: Known, homes: list[Tensor], gradients: Tensor
) -> list[tuple[str, Contribution]]:
    each = [
        torch.autograd.grad(
            [known.tensor], homes, [gradient.to(known.tensor.dtype)], retain_graph=True,
            allow_unused=True, materialize_grads=True,
        )
        for gradient in gradients
    ]  # fmt: skip
    stacked = [
        torch.stack([g if g.layout == torch.strided else g.to_dense() for g in parts])
        for parts in zip(*each, strict=True)
    ]
    return [(name, Instances(g)) for name, g in zip(known.names, stacked, strict=True)]


def computed(tape: Tape, known: Known) -> bool:
    """Whether a tensor is a weight that was computed from others by more than a view of one, or
    a lookup in it: its gradient goes through a backward of its own, which rounds."""
    derivation = known.derivation
    if derivation is None:
        return False
    table = _looked_up_in(tape, known)
    if table is not None or derivation.function is functional.embedding:
        return table is None or table.few_rows
    parent = _parent(tape, known)
    if parent is None or function_name(derivation.function) in _BROADCAST:
        return True
    place = parent.tensor.untyped_storage().data_ptr()
    return known.tensor.untyped_storage().data_ptr() != place or computed(tape, parent)


def _parent(tape: Tape, known: Known) -> Known | None:
    """The one tensor that a view is taken of; None where it was written into, since then or before:
    then what its graph says now is not what the view was taken of."""
    assert known.derivation is not None
    args: tuple[Any, ...] = known.derivation.args
    parent = tape.known.get(id(args[0])) if args else None
    if parent is None or (parent.derivation and parent.derivation.function is None):
        return None
    return parent


def _through_views(tape: Tape, known: Known, parts: Given) -> tuple[Known, Given]:
    """The tensor behind all that only turns, reshapes or repeats it, and what it got."""
    while known.derivation is not None:
        step = _through_view(tape, known, parts)
        if step is None:
            break
        known, parts = step
    return known, parts


def _through_view(tape: Tape, known: Known, parts: Given) -> tuple[Known, Given] | None:
    """The parent and its contributions, where the derivation only turns, reshapes or repeats it."""
    assert known.derivation is not None
    parent, name = _parent(tape, known), function_name(known.derivation.function)
    if parent is None or parent.tensor.is_complex() != known.tensor.is_complex():
        return None
    shape, own = tuple(parent.tensor.shape), tuple(known.tensor.shape)
    if name in _RESHAPED and known.tensor.numel() == parent.tensor.numel():
        if shape == own:
            return parent, parts
        return parent, [_reshaped(part, shape) for part in side_by_side(parts)]
    turned = known.tensor.stride() == parent.tensor.stride()[::-1]  # not by `transpose(0, 0)`
    if name in _TURNED and len(shape) == 2 and turned:
        return parent, [_turned(part, shape) for part in side_by_side(parts)]
    full = (1,) * (len(own) - len(shape)) + shape
    if name in _BROADCAST and all(n in (1, m) for n, m in zip(full, own, strict=True)):
        return parent, [_gathered(part, shape) for part in _whole(parts)]
    return None


def _whole(parts: Given) -> Given:
    """Rows of units as they are, single units side by side."""
    own: Given = [part for part in parts if isinstance(part, OwnRows)]
    return own + side_by_side([part for part in parts if not isinstance(part, OwnRows)])


def _gathered(part: Contribution | Single | OwnRows, shape: tuple[int, ...]) -> Contribution:
    """In a tensor of this shape, what was got by the one that it was broadcast to."""
    found = part.gathered(shape) if isinstance(part, OwnRows) else None
    if found is not None:
        return found
    (whole,) = side_by_side([part])
    rows = wide(whole.instances())
    return Instances(over_broadcast(rows[:, None], 0, shape))


def _reshaped(part: Contribution, shape: tuple[int, ...]) -> Contribution:
    if isinstance(part, Products) and part.axes is None:
        return Products(part.inputs, part.grads, shape, part.flipped, part.source)
    if isinstance(part, Lookups) and part.shape == shape:
        return part
    gradients = part.instances()
    return Instances(gradients.reshape(len(gradients), *shape))


def _turned(part: Contribution, shape: tuple[int, ...]) -> Contribution:
    if isinstance(part, Products) and part.axes is None:
        return Products(part.inputs, part.grads, shape, not part.flipped, part.source)
    return Instances(part.instances().mT)


@dataclass(frozen=True, eq=False)
class _Table:
    """The parameter that a derived tensor was looked up in, by numbers that are the same for all
    units: positions, and distances between them."""

    name: str
    ids: Tensor  # -1 where the table has no gradient
    shape: tuple[int, ...]  # (V, D)

    @property
    def few_rows(self) -> bool:
        """Whether rows stand there more than once at the least: then the gradients of all units
        are smaller than what the places got."""
        return self.ids.numel() > self.shape[0]

    def of_parts(self, parts: Given) -> list[Contribution]:
        """What the looked up tensor got, as contributions to the table."""
        own: list[Contribution] = [
            part.lookups(self.ids, self.shape) for part in parts if isinstance(part, OwnRows)
        ]
        rest = side_by_side([part for part in parts if not isinstance(part, OwnRows)])
        if not self.few_rows:
            return own + [self.of(part) for part in rest]
        return own + ([self.of(Instances(_sum(rest)))] if rest else [])

    def of(self, part: Contribution) -> Contribution:
        """The same of one contribution."""
        rows = part.instances()  # (B, *ids, D)
        places = self.ids.reshape(-1)
        grads = rows.reshape(len(rows), -1, self.shape[1])
        if not self.few_rows:
            return Lookups(places.expand(len(rows), -1), grads, self.shape)
        held = places >= 0
        by_place = wide(grads).transpose(0, 1)  # (places, B, D): one addition for all units
        sums = by_place.new_zeros(self.shape[0], *by_place.shape[1:])
        sums.index_add_(0, places[held], by_place[held])
        return Instances(sums.transpose(0, 1).contiguous())


def _looked_up_in(tape: Tape, known: Known) -> _Table | None:
    derivation = known.derivation
    if derivation is None or len(derivation.args) < 2:
        return None
    if derivation.function is Tensor.__getitem__:
        table, ids = derivation.args
        parent = tape.known.get(id(table))
        numbers = isinstance(ids, Tensor) and ids.dtype in (torch.int64, torch.int32)
        if not numbers or parent is None or parent.derivation is not None or table.dim() != 2:
            return None
        return _Table(parent.names[0], ids.long() % len(table), tuple(table.shape))
    if derivation.function is not functional.embedding:
        return None
    ids, table = derivation.args[:2]
    parent = tape.known.get(id(table))
    if derivation.kwargs.get("scale_grad_by_freq", derivation.args[5:6] == (True,)):
        return None  # numbers that stand there twice count half
    padding = derivation.kwargs.get("padding_idx")
    if len(derivation.args) > 2:
        padding = derivation.args[2]
    if parent is None or parent.derivation is not None:
        return None
    if padding is not None:
        ids = ids.masked_fill(ids == padding % len(table), -1)
    return _Table(parent.names[0], ids, tuple(table.shape))
