"""How functions that take or put rows by index carry owners: by that very index.

An index is its own unit's, or takes every row equally often, so that no unit decides about the
rows of another. Rules have the form of those in `carrying`.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.tape.carried_rows.carrying import Args, Kwargs, elementwise, given
from nacre.gradient_clipping.tape.carried_rows.tags import (
    MIXED,
    NOBODY,
    Carried,
    Unknown,
    compressed,
    constant,
    equally_often,
    own,
    together,
)
from nacre.gradient_clipping.tape.flow import DATA


def found(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """The places where something holds: each is of the unit that owns it."""
    if function is torch.where and len(args) + len(kwargs) > 1:
        return elementwise(c, function, args, kwargs)
    x: Tensor = args[0]
    held = c.full(x)[x != 0]
    separate = function is torch.where or given(args, kwargs, 1, "as_tuple", False)
    return (held,) * x.dim() if separate else held[:, None]


def indexed(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """x[index], also of a table of weights by numbers that units own."""
    x, index = args[:2]
    parts = list(index) if isinstance(index, tuple) else [index]
    places = [i for i, part in enumerate(parts) if isinstance(part, Tensor)]
    taken = c.full(x)[index]
    if all(c.flow.level(parts[i]) < DATA for i in places):
        return taken
    if places != list(range(places[0], places[-1] + 1)):
        raise Unknown
    if len(places) == 1 and parts[places[0]].numel() == 1 and _of_several(c, parts[places[0]]):
        return _one_of(c, x, parts[places[0]], sum(_width(p) for p in parts[: places[0]]), taken)
    widths = [_width(part) for part in parts]
    before = sum(1 for part in parts[: places[0]] if part is None or isinstance(part, slice))
    axis = sum(widths[: places[0]])
    if any(part is Ellipsis for part in parts[: places[0]]):
        rest = x.dim() - sum(widths)
        before, axis = before + rest, axis + rest
    return _taken(c, taken, [parts[i] for i in places], before, x.shape[axis])


def _of_several(c: Carried, index: Tensor) -> bool:
    owners = c.seen(index)
    return owners is None or bool((owners == MIXED).any())


def _one_of(c: Carried, x: Tensor, index: Tensor, axis: int, taken: Tensor) -> Tensor:
    """x[i] by a number that several units make, as in a loop over the experts that anybody chose:
    a table of weights is nobody's; of a mask, whatever is never picked has to be empty."""
    if c.flow.level(x) < DATA:
        return taken
    if x.requires_grad or bool((taken == MIXED).any()):
        raise Unknown
    c.picks.setdefault(id(x), (x, x._version, axis, []))[3].append(int(index))
    return taken


def _taken(c: Carried, taken: Tensor, index: list[Tensor], before: int, size: int) -> Tensor:
    """The owners of what an index takes. The index is its own unit's, or takes everything."""
    try:
        if index[0].dtype == torch.bool:
            if len(index) > 1:
                raise Unknown
            owners = c.full(index[0])[index[0]]
        else:
            owners = together(*(c.owners(part) for part in index))
        if bool((owners == MIXED).any()):
            raise Unknown
    except Unknown:
        if len(index) > 1 or not equally_often(index[0], size) or bool((taken == NOBODY).any()):
            raise
        return taken
    owners = owners.reshape(*owners.shape, *[1] * (taken.dim() - before - owners.dim()))
    if not own(owners, taken):
        raise Unknown
    return together(taken, owners)


def _width(part: Any) -> int:
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.dim() if isinstance(part, Tensor) and part.dtype == torch.bool else 1


def selected(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """index_select."""
    x, axis = args[0], given(args, kwargs, 1, "dim") % args[0].dim()
    index = given(args, kwargs, 2, "index")
    return indexed(c, function, (x, (*[slice(None)] * axis, index)), {})


def gathered(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """gather, take_along_dim: by an index as large as the result."""
    x, axis = args[0], given(args, kwargs, 1, "dim")
    index = given(args, kwargs, 2, "index")
    axis %= x.dim()
    taken = c.full(x).gather(axis, index)
    try:
        owners = c.owners(index)
    except Unknown:
        if not equally_often(_line(index, axis), x.shape[axis]) or bool((taken == NOBODY).any()):
            raise
        return taken
    if not own(owners, taken):
        raise Unknown
    return together(taken, owners)


def _line(index: Tensor, axis: int) -> Tensor:
    """The index along one axis. Raises `Unknown` where it differs along others."""
    if any(index.stride(d) and index.shape[d] > 1 for d in range(index.dim()) if d != axis):
        raise Unknown
    for d in reversed(range(index.dim())):
        index = index if d == axis else index.select(d, 0)
    return index


def added(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """index_add, index_copy, scatter_add: rows go to places that are their own, or everywhere."""
    target, axis = args[0], given(args, kwargs, 1, "dim") % args[0].dim()
    index = given(args, kwargs, 2, "index")
    source = args[3] if len(args) > 3 else kwargs.get("source", kwargs.get("src"))
    if "scatter" in function.__name__ and all(
        not isinstance(t, Tensor) or (t.dim() == target.dim() and constant(c.owners(t), axis))
        for t in (target, index, source)
    ):  # inside the units
        return together(*(compressed(c.owners(t)) for t in (target, index, source)))
    if not isinstance(source, Tensor):
        raise Unknown
    line = index if index.dim() == 1 and "scatter" not in function.__name__ else _line(index, axis)
    rows = _axis_owners(c, source, axis)[: len(line)]
    if c.seen(index) is None:
        if not equally_often(line, target.shape[axis]) or bool((rows == NOBODY).any()):
            raise Unknown
    elif not own(_axis_owners(c, index, axis if index.dim() > 1 else 0), rows):
        raise Unknown
    held = _axis_owners(c, target, axis)
    highest = torch.full_like(held, NOBODY).scatter_reduce(0, line, rows, "amax")
    lowest = torch.where(rows == NOBODY, rows.max() if len(rows) else 0, rows)
    lowest = highest.scatter_reduce(0, line, lowest, "amin")
    arrived = torch.where(lowest == highest, highest, torch.full_like(highest, MIXED))
    shape = [1] * target.dim()
    shape[axis] = len(held)
    return together(held, arrived).reshape(shape)


def _axis_owners(c: Carried, tensor: Tensor, axis: int) -> Tensor:
    """(N,) the owners along one axis. Raises `Unknown` where they differ along others."""
    owners = compressed(c.owners(tensor))
    if any(size > 1 for d, size in enumerate(owners.shape) if d != axis):
        raise Unknown
    return owners.reshape(-1).expand(tensor.shape[axis])


def put(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """x[index] = value."""
    target, index, value = args[:3]
    owners = c.full(target).clone()
    parts = list(index) if isinstance(index, tuple) else [index]
    by = [part for part in parts if isinstance(part, Tensor) and c.flow.level(part) == DATA]
    owners[index] = c.owners(value)
    if by:
        if len(parts) > 1:
            raise Unknown
        owners[index] = _taken(c, owners[index], by, 0, target.shape[0])
    return together(owners, c.full(target))
