"""From the uses of tensors to the gradient of each parameter: joined before the norm, exactly.

One tensor in several operations (a tied embedding and head, a layer used twice) is one parameter
with more positions. A tensor derived from parameters hands what it got back to them: through a
view or a cast as it is, through anything else by the derivation's own backward, unit by unit.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nacre.gradient_clipping.operations.call import ParameterShares
from nacre.gradient_clipping.tape.carried_rows.single import OwnRows, Single, side_by_side
from nacre.gradient_clipping.tape.contributions import (
    Contribution,
    Grams,
    Instances,
    Lookups,
    Products,
    squared_norms,
)
from nacre.gradient_clipping.tape.counters import function_name
from nacre.gradient_clipping.tape.tape import Tape
from nacre.gradient_clipping.tape.uses import Known

_RESHAPED = {"view", "reshape", "contiguous", "clone", "to", "float", "double", "bfloat16", "half",
             "unsqueeze", "squeeze", "flatten", "type_as", "view_as"}  # fmt: skip
"""Functions whose result holds the same numbers in the same order."""

_TURNED = {"t", "T", "mT", "transpose", "swapaxes", "swapdims"}
"""Functions that turn a matrix over."""


@dataclass(eq=False)
class Joined:
    """What the units add to each parameter, as one backward pass brings it in."""

    tape: Tape
    parts: dict[int, list[Contribution | Single | OwnRows]] = field(default_factory=dict)
    """By tensor."""

    def add(self, given: ParameterShares) -> None:
        """Notes what one use gave."""
        for tensor, contribution in given:
            self.parts.setdefault(id(tensor), []).append(contribution)

    def by_parameter(self) -> dict[str, list[Contribution]]:
        """Name -> contributions; a parameter that nothing used has none."""
        found: dict[str, list[Contribution]] = {name: [] for name in self.tape.parameters}
        for key, parts in self.parts.items():
            known = self.tape.known[key]
            table = _looked_up_in(self.tape, known)
            own = [part for part in parts if table is not None and isinstance(part, OwnRows)]
            rest = [part for part in parts if table is None or not isinstance(part, OwnRows)]
            for name, part in _home(self.tape, known, side_by_side(rest)) if rest else ():
                found[name].append(part)
            for part in own:
                assert table is not None
                found[table.name].append(part.lookups(table.ids, table.shape))
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


def _home(tape: Tape, known: Known, parts: list[Contribution]) -> list[tuple[str, Contribution]]:
    """What a tensor got, as contributions to the parameters themselves."""
    if known.derivation is None:
        return [(known.names[0], part) for part in parts]
    view = _through_view(tape, known, parts)
    if view is not None:
        return _home(tape, *view)
    looked_up = _through_lookup(tape, known, parts)
    if looked_up is not None:
        return looked_up
    gradients = torch.stack([p.instances() for p in parts]).sum(0) if len(parts) > 1 else (
        parts[0].instances()
    )  # fmt: skip
    return _backwards(tape, known, gradients)


def _backwards(tape: Tape, known: Known, gradients: Tensor) -> list[tuple[str, Contribution]]:
    """(B, *shape) -> the same through the derivation's own backward, unit by unit."""
    homes = [tape.parameters[name] for name in known.names]
    assert known.derivation is not None
    if known.derivation.function in (None, functional.embedding, functional.embedding_bag):
        # torch maps the backward of what was written into over no units, and where it maps that of
        # a lookup, it forgets the padding.
        return _one_by_one(known, homes, gradients)
    back = torch.autograd.grad(
        [known.tensor], homes, [gradients.to(known.tensor.dtype)], retain_graph=True,
        is_grads_batched=True, allow_unused=True,
    )  # fmt: skip
    return [
        (name, Instances(gradient))
        for name, gradient in zip(known.names, back, strict=True)
        if gradient is not None  # pyright: ignore[reportUnnecessaryComparison]
    ]


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
    if derivation is None or derivation.function is functional.embedding:
        return False
    parent = _parent(tape, known)
    if parent is None:
        return True
    place = parent.tensor.untyped_storage().data_ptr()
    return known.tensor.untyped_storage().data_ptr() != place or computed(tape, parent)


def _parent(tape: Tape, known: Known) -> Known | None:
    """The one tensor that a view is taken of."""
    assert known.derivation is not None
    args: tuple[Any, ...] = known.derivation.args
    return tape.known.get(id(args[0])) if args else None


def _through_view(
    tape: Tape, known: Known, parts: list[Contribution]
) -> tuple[Known, list[Contribution]] | None:
    """The parent and its contributions, where the derivation only turns or reshapes it."""
    assert known.derivation is not None
    parent, name = _parent(tape, known), function_name(known.derivation.function)
    if parent is None or parent.tensor.is_complex() != known.tensor.is_complex():
        return None
    shape = tuple(parent.tensor.shape)
    if name in _RESHAPED and known.tensor.numel() == parent.tensor.numel():
        return parent, [_reshaped(part, shape) for part in parts]
    turned = known.tensor.stride() == parent.tensor.stride()[::-1]  # not by `transpose(0, 0)`
    if name in _TURNED and len(shape) == 2 and turned:
        return parent, [_turned(part, shape) for part in parts]
    return None


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


def _through_lookup(
    tape: Tape, known: Known, parts: list[Contribution]
) -> list[tuple[str, Contribution]] | None:
    """Position embeddings: rows of a table by numbers that are the same for all units."""
    table = _looked_up_in(tape, known)
    if table is None:
        return None
    result: list[tuple[str, Contribution]] = []
    for part in parts:
        rows = part.instances()  # (B, *ids, D)
        places = table.ids.reshape(1, -1).expand(len(rows), -1)
        grads = rows.reshape(len(rows), -1, table.shape[1])
        result.append((table.name, Lookups(places, grads, table.shape)))
    return result


@dataclass(frozen=True, eq=False)
class _Table:
    """The parameter that a derived tensor was looked up in, and by which numbers."""

    name: str
    ids: Tensor  # -1 where the table has no gradient
    shape: tuple[int, ...]  # (V, D)


def _looked_up_in(tape: Tape, known: Known) -> _Table | None:
    derivation = known.derivation
    if derivation is None or derivation.function is not functional.embedding:
        return None
    if len(derivation.args) < 2:
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
