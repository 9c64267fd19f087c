"""How functions that move no row by values carry owners: one rule a kind of function.

A rule gives the owners of a call's result from those of its arguments, in the same form; a tuple
of them for several results. It raises `Unknown` for what it does not follow.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.carried_rows.tags import (
    MIXED,
    NOBODY,
    Carried,
    CarryRule,
    Unknown,
    compressed,
    constant,
    own,
    together,
)
from nacre.gradient_clipping.tape.flow import DATA

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


def given(args: Args, kwargs: Kwargs, place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def numbers(c: Carried, value: Any) -> None:
    """Raises `Unknown` for what is no weight, no constant and no number of packed sequences."""
    if not isinstance(value, Tensor) or c.flow.counted(value):
        return
    if not bool((c.owners(value) == NOBODY).all()):
        raise Unknown


def elementwise(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Entry by entry, broadcast."""
    found = [c.owners(t) for t in tensors_in((args, kwargs))]
    total = together(*found)
    for owners in found:
        c.adopt(owners, total)
    return total


def first(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """The entries of the first argument, where they are."""
    return c.owners(args[0])


def moved(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Entries go elsewhere by no value of the batch: so do their owners."""
    for value in tensors_in((args[1:], kwargs)):
        numbers(c, value)
    return function(c.full(args[0]), *args[1:], **kwargs)


def reshaped(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Another shape, without writing out axes that stay as they are and have one owner."""
    x: Tensor = args[0]
    shape = function(torch.empty(x.shape, device="meta"), *args[1:], **kwargs).shape
    owners = c.owners(x)
    same = 0
    for size, other, held in zip(
        reversed(x.shape), reversed(shape), reversed(owners.shape), strict=False
    ):
        if size != other or held != 1:
            break
        same += 1
    lead = x.dim() - same
    kept = owners.reshape(owners.shape[:lead]).expand(x.shape[:lead])
    return kept.reshape(*shape[: len(shape) - same], *[1] * same)


def carry_joined(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """cat, stack."""
    parts = args[0] if args else kwargs["tensors"]
    return function([c.full(t) for t in parts], *args[1:], **kwargs)


def reduced(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """sum, mean, any …: one number of many."""
    x: Tensor = args[0]
    dims, keep = given(args, kwargs, 1, "dim"), given(args, kwargs, 2, "keepdim", False)
    axes = range(x.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    owners, axes = compressed(c.owners(x)), sorted({axis % max(1, x.dim()) for axis in axes})
    if any(owners.shape[axis] > 1 for axis in axes):
        owners = torch.full([1] * x.dim(), MIXED, device=x.device)
    if keep is True:
        return owners
    return owners.reshape([n for axis, n in enumerate(owners.shape) if axis not in axes])


def along(place: int, default: int | None = -1) -> CarryRule:
    """softmax, cumsum …: entries along one axis meet."""

    def rule(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
        x: Tensor = args[0]
        axis = given(args, kwargs, place, "dim", default)
        owners = c.owners(x)
        if axis is None or not x.dim():
            raise Unknown
        return owners if constant(owners, axis) else torch.full_like(owners, MIXED)

    return rule


def picked(results: int, place: int) -> CarryRule:
    """topk, argmax, max along an axis: of `results` tensors, where all along it is one unit's."""

    def rule(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
        owners = c.owners(args[0])
        axis = given(args, kwargs, place, "dim", -1 if place == 2 else None)
        if axis is None or not constant(owners, axis):
            raise Unknown
        owners = compressed(owners)
        if place == 1 and not given(args, kwargs, 2, "keepdim", False):
            owners = owners.squeeze(axis)
        return owners if results == 1 else (owners,) * results

    return rule


def in_order(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """sort, argsort along an axis that one unit owns."""
    owners = c.owners(args[0])
    axis = given(args, kwargs, 1, "dim", -1)
    if not constant(owners, axis):
        raise Unknown  # `_sorted_rows` does those
    return (owners, owners) if "arg" not in function.__name__ else owners


def carry_linear(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Each row of the last axis by itself."""
    for value in tensors_in((args[1:], kwargs)):
        numbers(c, value)
    owners = c.owners(args[0])
    if not constant(owners, -1):
        raise Unknown
    return owners.narrow(-1, 0, 1)


def normalised(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """layer_norm, rms_norm: over the last axes."""
    owners = compressed(c.owners(args[0]))
    axes = len(given(args, kwargs, 1, "normalized_shape"))
    if any(size > 1 for size in owners.shape[-axes:]):
        raise Unknown
    return owners


def multiplied(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Matrix products; each matrix of a stack by itself."""
    a, b = args[:2]
    left, right = compressed(c.owners(a)), compressed(c.owners(b))
    if a.dim() < 2 or b.dim() < 2 or left.shape[-1] > 1 or right.shape[-2:] != (1, 1):
        raise Unknown
    if right.numel() > 1 and left.shape[-2] > 1:
        raise Unknown
    return together(left, right)


def attended(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Attention: positions of one unit meet."""
    found = [compressed(c.owners(t)) for t in tensors_in((args, kwargs))]
    if any(owners.shape[-2:] != (1, 1) for owners in found):
        raise Unknown
    return together(*found)


def carry_grouped(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rows by groups, one matrix a group. The number of each row's group has to be a sorted key
    of the row's own unit, so that where the groups end tells it nothing of the others."""
    x, stack = args[:2]
    ends = given(args, kwargs, 2, "offs")
    numbers(c, stack)
    if x.dim() != 2 or stack.dim() != 3 or ends is None:
        raise Unknown
    owners = c.owners(x)[:, :1].expand(len(x), 1).squeeze(1)
    rows = torch.arange(len(x), device=x.device)
    group = torch.searchsorted(ends.long(), rows, right=True)
    for keys, held in c.keys:
        if keys.shape == group.shape and bool((keys == group).all()) and own(held, owners):
            return owners[:, None]
    raise Unknown


def looked_up(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rows of a table of weights."""
    numbers(c, given(args, kwargs, 1, "weight"))
    return c.owners(args[0]).unsqueeze(-1)


def bagged(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """embedding_bag: each bag holds numbers of one unit, scaled by the unit's own. Where bags begin
    by values of the batch, all numbers of a unit lie in one, so that no other unit can have moved
    its ends."""
    ids, offsets = given(args, kwargs, 0, "input"), given(args, kwargs, 2, "offsets")
    numbers(c, given(args, kwargs, 1, "weight"))
    owners, scales = c.full(ids), given(args, kwargs, 8, "per_sample_weights")
    if scales is not None:
        if not own(c.full(scales), owners):
            raise Unknown
        owners = together(owners, c.full(scales))
    if bool((owners == MIXED).any()):
        raise Unknown
    if offsets is None:
        if not constant(owners, 1):
            raise Unknown
        return owners[:, :1]
    last = given(args, kwargs, 9, "include_last_offset", False)
    count, line = len(offsets) - bool(last), torch.arange(len(ids), device=ids.device)
    bags = torch.searchsorted(offsets[1:count].to(line.dtype), line, right=True)
    highest = owners.new_full((count,), NOBODY).scatter_reduce(0, bags, owners, "amax")
    if bool(((highest[bags] != owners) & (owners != NOBODY)).any()):
        raise Unknown
    if c.flow.level(offsets) == DATA:
        held = highest[highest != NOBODY]
        cut = last and int(offsets[-1]) != len(ids)
        if cut or len(held.unique()) < len(held) or bool((owners == NOBODY).any()):
            raise Unknown
    return highest[:, None]


def hot(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """one_hot: another axis."""
    return c.owners(args[0]).unsqueeze(-1)
