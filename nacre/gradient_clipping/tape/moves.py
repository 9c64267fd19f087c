"""How each function of torch carries the owners of rows: one rule a kind of function.

A rule gives the owners of a call's result from those of its arguments, in the same form; a tuple
of them for several results. It raises `Unknown` for what it does not follow.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.carried import (
    MIXED,
    NOBODY,
    Carried,
    Rule,
    Step,
    Unknown,
    compressed,
    constant,
    equally_often,
    own,
    together,
)
from nacre.gradient_clipping.tape.flow import DATA
from nacre.gradient_clipping.tape.owners import name_of

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


def _given(args: Args, kwargs: Kwargs, place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _numbers(c: Carried, value: Any) -> None:
    """Raises `Unknown` for what is no weight and no constant."""
    if isinstance(value, Tensor) and not bool((c.owners(value) == NOBODY).all()):
        raise Unknown


def elementwise(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Entry by entry, broadcast."""
    return together(*(c.owners(t) for t in tensors_in((args, kwargs))))


def first(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """The entries of the first argument, where they are."""
    return c.owners(args[0])


def moved(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Entries go elsewhere by no value of the batch: so do their owners."""
    for value in tensors_in((args[1:], kwargs)):
        _numbers(c, value)
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


def joined(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """cat, stack."""
    parts = args[0] if args else kwargs["tensors"]
    return function([c.full(t) for t in parts], *args[1:], **kwargs)


def reduced(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """sum, mean, any …: one number of many."""
    x: Tensor = args[0]
    dims, keep = _given(args, kwargs, 1, "dim"), _given(args, kwargs, 2, "keepdim", False)
    axes = range(x.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    owners, axes = compressed(c.owners(x)), sorted({axis % max(1, x.dim()) for axis in axes})
    if any(owners.shape[axis] > 1 for axis in axes):
        owners = torch.full([1] * x.dim(), MIXED, device=x.device)
    if keep is True:
        return owners
    return owners.reshape([n for axis, n in enumerate(owners.shape) if axis not in axes])


def along(place: int, default: int | None = -1) -> Rule:
    """softmax, cumsum …: entries along one axis meet."""

    def rule(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
        x: Tensor = args[0]
        axis = _given(args, kwargs, place, "dim", default)
        owners = c.owners(x)
        if axis is None or not x.dim():
            raise Unknown
        return owners if constant(owners, axis) else torch.full_like(owners, MIXED)

    return rule


def picked(results: int, place: int) -> Rule:
    """topk, argmax, max along an axis: of `results` tensors, where all along it is one unit's."""

    def rule(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
        owners = c.owners(args[0])
        axis = _given(args, kwargs, place, "dim", -1 if place == 2 else None)
        if axis is None or not constant(owners, axis):
            raise Unknown
        owners = compressed(owners)
        if place == 1 and not _given(args, kwargs, 2, "keepdim", False):
            owners = owners.squeeze(axis)
        return owners if results == 1 else (owners,) * results

    return rule


def in_order(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """sort, argsort along an axis that one unit owns."""
    owners = c.owners(args[0])
    axis = _given(args, kwargs, 1, "dim", -1)
    if not constant(owners, axis):
        raise Unknown  # `_sorted_rows` does those
    return (owners, owners) if "arg" not in function.__name__ else owners


def linear(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Each row of the last axis by itself."""
    for value in tensors_in((args[1:], kwargs)):
        _numbers(c, value)
    owners = c.owners(args[0])
    if not constant(owners, -1):
        raise Unknown
    return owners.narrow(-1, 0, 1)


def normalised(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """layer_norm, rms_norm: over the last axes."""
    owners = compressed(c.owners(args[0]))
    axes = len(_given(args, kwargs, 1, "normalized_shape"))
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


def grouped(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Rows by groups, one matrix a group. The number of each row's group has to be a sorted key
    of the row's own unit, so that where the groups end tells it nothing of the others."""
    x, stack = args[:2]
    ends = _given(args, kwargs, 2, "offs")
    _numbers(c, stack)
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
    _numbers(c, _given(args, kwargs, 1, "weight"))
    return c.owners(args[0]).unsqueeze(-1)


def hot(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """one_hot: another axis."""
    return c.owners(args[0]).unsqueeze(-1)


def found(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """The places where something holds: each is of the unit that owns it."""
    if function is torch.where and len(args) + len(kwargs) > 1:
        return elementwise(c, function, args, kwargs)
    x: Tensor = args[0]
    held = c.full(x)[x != 0]
    separate = function is torch.where or _given(args, kwargs, 1, "as_tuple", False)
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
    x, axis = args[0], _given(args, kwargs, 1, "dim") % args[0].dim()
    index = _given(args, kwargs, 2, "index")
    return indexed(c, function, (x, (*[slice(None)] * axis, index)), {})


def gathered(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Any:
    """gather, take_along_dim: by an index as large as the result."""
    x, axis = args[0], _given(args, kwargs, 1, "dim")
    index = _given(args, kwargs, 2, "index")
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
    target, axis = args[0], _given(args, kwargs, 1, "dim") % args[0].dim()
    index = _given(args, kwargs, 2, "index")
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
        _taken(c, owners[index], by, 0, target.shape[0])
    return together(owners, c.full(target))


_PLAIN = [
    "add",
    "sub",
    "mul",
    "div",
    "truediv",
    "floordiv",
    "floor_divide",
    "true_divide",
    "divide",
    "multiply",
    "subtract",
    "mod",
    "remainder",
    "fmod",
    "pow",
    "neg",
    "abs",
    "exp",
    "log",
    "log2",
    "log1p",
    "sqrt",
    "rsqrt",
    "sigmoid",
    "tanh",
    "relu",
    "gelu",
    "silu",
    "softplus",
    "elu",
    "leaky_relu",
    "relu6",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "mish",
    "logsigmoid",
    "clamp",
    "clamp_min",
    "clamp_max",
    "clip",
    "masked_fill",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "xor",
    "invert",
    "not",
    "logical_and",
    "logical_or",
    "logical_not",
    "bitwise_and",
    "bitwise_or",
    "bitwise_not",
    "float",
    "double",
    "half",
    "bfloat16",
    "long",
    "int",
    "bool",
    "clone",
    "contiguous",
    "detach",
    "maximum",
    "minimum",
    "square",
    "reciprocal",
    "erf",
    "sin",
    "cos",
    "isnan",
    "isinf",
    "isfinite",
    "nan_to_num",
    "greater",
    "less",
    "greater_equal",
    "less_equal",
    "lerp",
    "addcmul",
]

_RULES: list[tuple[Callable[..., Any], str]] = [
    (first, "to type type_as dropout alpha_dropout requires_grad_"),
    (moved, "permute transpose T mT t squeeze unsqueeze expand expand_as chunk split unbind narrow "
            "select movedim repeat tile repeat_interleave flip roll swapaxes"),
    (reshaped, "view reshape flatten unflatten view_as reshape_as"),
    (joined, "cat stack concat hstack vstack"),
    (reduced, "sum mean amax amin any all prod norm std var logsumexp"),
    (along(1), "softmax log_softmax cumsum cumprod"),
    (picked(2, 2), "topk"), (picked(2, 1), "max min"), (picked(1, 1), "argmax argmin"),
    (in_order, "sort argsort"), (linear, "linear"), (normalised, "layer_norm rms_norm"),
    (multiplied, "matmul bmm mm"), (grouped, "grouped_mm"), (looked_up, "embedding"),
    (hot, "one_hot"), (found, "where nonzero"), (indexed, "getitem"), (selected, "index_select"),
    (gathered, "gather take_along_dim"),
    (added, "index_add index_copy scatter_add scatter"), (put, "setitem"),
]  # fmt: skip

RULES: dict[str, Rule] = {name: elementwise for name in _PLAIN}
RULES |= {name: rule for rule, names in _RULES for name in names.split()}


def begin(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> Step:
    """Before a call: the owners of its result, where a rule knows them."""
    rule = RULES.get(plain(name_of(function)))
    rows = c.holds_rows(args, kwargs)
    if rule is None or not c.entered(args, kwargs):
        return Step(None, rows)
    try:
        return Step(rule(c, function, args, kwargs), rows)
    except (Unknown, LookupError, TypeError, RuntimeError):  # arguments in a form of their own
        return Step(None, rows)


def nothing_left(c: Carried) -> None:
    """Raises `UnsupportedLayer` where a mask was read at places that several units decided about,
    and held something elsewhere, or was read twice."""
    for x, version, axis, picked in c.picks.values():
        rest = x.movedim(axis, 0).clone()
        rest[picked] = 0
        if x._version != version or len(set(picked)) < len(picked) or bool((rest != 0).any()):
            raise UnsupportedLayer(
                "several units decide together which part of a mask is read, and another part holds "
                "something as well; use `gradients: looped`"
            )


def finish(
    c: Carried, function: Any, args: Args, kwargs: Kwargs, result: Any, step: Step, *, must: bool
) -> None:
    """After a call: keeps the owners of its result. Raises `UnsupportedLayer` where rows that
    values have moved lose theirs; with `must`, wherever they are not known."""
    name = name_of(function)
    into = args[0] if result is None else result
    if step.owners is not None:
        c.note(into, step.owners)
        return
    if plain(name) == "sort" and _sorted_rows(c, args[0], result):
        return
    lost = [t for t in tensors_in(into) if c.flow.level(t) == DATA]
    if must or (step.rows and any(t.requires_grad for t in lost)):
        raise UnsupportedLayer(
            f"{name} moves rows between units by values of the batch, or takes rows that were so "
            "moved, in a way that the tape cannot follow; use `gradients: looped`"
        )


def _sorted_rows(c: Carried, keys: Tensor, result: Any) -> bool:
    """After a sort along the units' axis: the keys keep their owners, the order is nobody's."""
    owners = c.seen(keys)
    if owners is None or keys.dim() != 1:
        return False
    values, order = result
    held = owners.expand(keys.shape)[order]
    c.keys.append((values, held))
    c.note(values, held)
    return True


def plain(name: str) -> str:
    """`add` of `__add__`, `__radd__`, `__iadd__` and `add_`."""
    bare = name.strip("_")
    if name.startswith("__") and bare not in RULES and bare[:1] in "ri" and bare[1:] in RULES:
        return bare[1:]
    return bare
