"""What a forward pass lets the values of the batch decide: where rows go.

Who owns which row is learnt on a trial, which is right as long as no value moves a row from one
unit's place to another's. Every call is looked at: an index, an order or a mask that was computed
from the batch and acts along the axis of the units is not followed, and the loop takes the model.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nacre.gradient_clipping.operations.call import tensors_in

FIXED, WEIGHTS, DATA = 0, 1, 2
"""Computed from constants alone, from weights too, or from anything else: the batch."""

Moved = tuple[Tensor, int | None]
"""A tensor whose entries a call moves along this axis, None for along any."""

T = Tensor

LIKE = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
         "new_empty"}  # fmt: skip
"""Functions whose result takes nothing but the shape of a tensor."""


@dataclass(eq=False)
class Flow:
    """Where the tensors of one forward pass come from; what is not marked comes from the batch."""

    marks: dict[int, tuple[Tensor, int, int]] = field(default_factory=dict)  # id -> version, level
    sizes: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    """Of packed sequences, how many of them have each step; by id, with its version."""
    counts: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    """The same, and what is computed from nothing else of the batch."""

    def mark(self, values: Iterable[Tensor], level: int) -> None:
        """Notes where tensors come from, as they are now: a later write makes them data."""
        for t in values:
            self.marks[id(t)] = (t, t._version, level)

    def level(self, tensor: Tensor) -> int:
        """Where a tensor comes from."""
        found = self.marks.get(id(tensor))
        return DATA if found is None or found[1] != tensor._version else found[2]

    def counted(self, tensor: Tensor) -> bool:
        """Whether nothing of the batch is in a tensor but how many packed sequences have a step:
        numbers that others' lengths make, and no rows (`carried_rows.equal_lengths`)."""
        found = self.counts.get(id(tensor))
        return found is not None and found[1] == tensor._version

    def follow(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Iterable[Tensor],
        level: int,
    ) -> None:
        """Notes where the result of a call comes from, given what entered."""
        name = getattr(function, "__name__", "")
        shaped = name in LIKE and not self._filled(args, kwargs)
        if shaped or (name == "__getitem__" and self._counts(*args)):
            self.mark(result, FIXED)
        elif name == "_pack_padded_sequence":
            self.sizes |= {id(t): (t, t._version) for t in list(result)[1:]}
            self.counts |= self.sizes
        elif self.counts and level == DATA and self._of_counts(args, kwargs):
            self.counts |= {id(t): (t, t._version) for t in result}
        elif level < DATA and not _draws(name):
            self.mark(result, level)
            if name == "__setitem__":
                self.mark(args[:1], level)

    def _filled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a value of the batch fills a tensor, or says how large it is: anything but the
        tensor that lends its shape, by place or by name."""
        more = {name: value for name, value in kwargs.items() if name not in ("input", "self")}
        return any(self.level(t) == DATA for t in tensors_in((args[1:], more)))

    def _of_counts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        held = [t for t in tensors_in((args, kwargs)) if self.level(t) == DATA]
        return bool(held) and all(self.counted(t) for t in held)

    def _counts(self, values: Tensor, index: Any) -> bool:
        """Whether it is asked how many packed sequences there are: all of them have a first step,
        so that is a shape, and no value."""
        found = self.sizes.get(id(values))
        same = found is not None and found[1] == values._version
        return same and isinstance(index, int) and index == 0

    def moved(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
        """What a call moves by values of the batch, and along which axis."""
        rule = _MOVING.get(function)
        return [] if rule is None else rule(self, args, kwargs)


def asks(flow: Flow, function: Any, args: tuple[Any, ...]) -> bool:
    """Whether a function hands values to Python as numbers, which nothing follows any further.

    Numbers of packed sequences are no such values: where they may reach a unit, every unit is
    compared with what it gives beside others of its own lengths.
    """
    return function in _ASKING and not (isinstance(args[0], Tensor) and flow.counted(args[0]))


def moves(function: Any) -> bool:
    """Whether values of the batch may decide where rows go, or which way Python takes, by calls of
    this function."""
    return function in _MOVING or function in _ASKING or turns(function)


def turns(function: Any) -> bool:
    """Whether a function lets a value decide which way Python takes, as `if` does."""
    return function is T.__bool__


def shapes(flow: Flow, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether values of the batch decide how large a result is: a shape is a number in Python."""
    if name in _SHAPED or (name == "where" and len(args) + len(kwargs) == 1):
        return True
    if name in ("repeat_interleave", "tensor_split"):
        return any(_data(flow, value) for value in (*args[1:], *kwargs.values()))
    if name != "getitem":
        return False
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    masks = [p for p in parts if isinstance(p, Tensor) and p.dtype in (torch.bool, torch.uint8)]
    return any(_data(flow, mask) for mask in masks)


_SHAPED = {
    "pack_padded_sequence",
    "nonzero",
    "argwhere",
    "unique",
    "unique_consecutive",
    "masked_select",
    "bincount",
}


def _draws(name: str) -> bool:
    drawn = name.startswith(("rand", "bernoulli", "multinomial", "normal", "poisson"))
    return drawn and name != "normalize"


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, *names: str) -> Any:
    for name in names:
        if name in kwargs:
            return kwargs[name]
    return args[place] if len(args) > place else None


def _data(flow: Flow, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_data(flow, v) for v in value)
    return isinstance(value, Tensor) and flow.level(value) != FIXED


def _from_batch(flow: Flow, value: Any) -> bool:
    return isinstance(value, Tensor) and flow.level(value) == DATA and not flow.counted(value)


def _axis(tensor: Tensor, dim: Any) -> int | None:
    if not isinstance(dim, int) or not tensor.dim():
        return None
    return dim % tensor.dim()


def _indexed(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """x[index]: along each axis that an index of the batch picks from."""
    x, index = args[0], args[1]
    if not _from_batch(flow, x):
        return []
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(_width(part) for part in parts if part is not Ellipsis)
    found: list[Moved] = []
    axis = 0
    for part in parts:
        if part is Ellipsis:
            axis += x.dim() - taken
            continue
        if _data(flow, part):
            found += [(x, axis + i) for i in range(_width(part))]
        axis += _width(part)
    return found


def _width(part: Any) -> int:
    """The number of axes that one index takes."""
    if part is None or isinstance(part, bool):
        return 0
    if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8):
        return part.dim()
    return 1


def _written(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """x[index] = value, index_put: rows of `value` go where the batch says."""
    value = _given(args, kwargs, 2, "values")
    moves = _from_batch(flow, value) and value.dim() > 0
    return [(value, None)] if moves and _data(flow, _given(args, kwargs, 1, "indices")) else []


def _picked(index: int, dim: int) -> Callable[..., list[Moved]]:
    def rule(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
        x = _given(args, kwargs, 0, "input", "self")
        chosen = _given(args, kwargs, index, "index", "indices", "repeats", "mask")
        if not _from_batch(flow, x) or not _data(flow, chosen):
            return []
        return [(x, _axis(x, _given(args, kwargs, dim, "dim")) if dim >= 0 else None)]

    return rule


def _put(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """scatter, index_add, index_copy: rows of the source along one axis."""
    source = _given(args, kwargs, 3, "src", "source", "value", "tensor")
    index = _given(args, kwargs, 2, "index")
    if not _from_batch(flow, source) or not source.dim() or not _data(flow, index):
        return []
    return [(source, _axis(source, _given(args, kwargs, 1, "dim")))]


def _poured(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """masked_scatter: entries of the source in the order in which the mask lets them in."""
    mask, source = _given(args, kwargs, 1, "mask"), _given(args, kwargs, 2, "source")
    return [(source, None)] if _from_batch(flow, source) and _data(flow, mask) else []


def _sorted(place: int) -> Callable[..., list[Moved]]:
    def rule(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
        x, dim = args[0], _given(args, kwargs, place, "dim")
        if not _from_batch(flow, x):
            return []
        return [(x, _axis(x, -1 if dim is None else dim))]

    return rule


def _turned(place: int) -> Callable[..., list[Moved]]:
    """flip, roll: by no value, but a choice between both orders is one."""

    def rule(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
        x, dims = args[0], _given(args, kwargs, place, "dims")
        if not _from_batch(flow, x):
            return []
        if dims is None:
            return [(x, None)]
        listed = [dims, *args[place + 1 :]] if isinstance(dims, int) else list(dims)
        return [(x, _axis(x, dim)) for dim in listed]

    return rule


def _multiplied(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """A product of two tensors of the batch moves each along the axis that is summed over."""
    if len(args) < 2:
        return []
    a, b = args[:2]
    if not _from_batch(flow, a) or not _from_batch(flow, b) or not (a.dim() and b.dim()):
        return []
    return [(a, a.dim() - 1), (b, max(0, b.dim() - 2))]


def _looked_up(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """A lookup whose table is no weight but rows of the batch."""
    ids, table = _given(args, kwargs, 0, "input"), _given(args, kwargs, 1, "weight")
    return [(table, 0)] if _from_batch(flow, table) and _data(flow, ids) else []


def _bagged(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """The same in bags; where a bag begins, and by how much it scales its numbers, the batch may
    say as well."""
    places = (0, "input"), (2, "offsets"), (8, "per_sample_weights")
    ids, *more = (_given(args, kwargs, place, name) for place, name in places)
    chosen = [t for t in more if _from_batch(flow, t)]
    numbers = [(t, None) for t in (ids, *chosen) if _from_batch(flow, t)]
    return _looked_up(flow, args, kwargs) + (numbers if chosen else [])


def _packed(flow: Flow, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Moved]:
    """Sequences are packed or padded: in whatever order they are, so many rows of each."""
    return [(args[0], None)] if _from_batch(flow, args[0]) else []


_ASKING: set[Any] = {
    T.item, T.tolist, T.__int__, T.__float__, T.__index__, T.numpy, T.__array__, torch.equal,
    T.equal, torch.allclose, T.allclose,
}  # fmt: skip

_RULES: list[tuple[Callable[..., list[Moved]], tuple[Any, ...]]] = [
    (_indexed, (T.__getitem__,)),
    (_written, (T.__setitem__, T.index_put, T.index_put_, torch.index_put, torch.index_put_)),
    (_picked(2, 1), (torch.index_select, T.index_select, torch.gather, T.gather)),
    (_picked(1, 2), (torch.take_along_dim, T.take_along_dim,
                     torch.repeat_interleave, T.repeat_interleave)),
    (_picked(1, -1), (torch.take, T.take, torch.masked_select, T.masked_select)),
    (_put, (torch.scatter, T.scatter, T.scatter_, torch.scatter_add, T.scatter_add, T.scatter_add_,
            torch.scatter_reduce, T.scatter_reduce, T.scatter_reduce_, torch.index_add,
            T.index_add, T.index_add_, torch.index_copy, T.index_copy, T.index_copy_,
            torch.index_reduce, T.index_reduce, T.index_reduce_)),
    (_poured, (torch.masked_scatter, T.masked_scatter, T.masked_scatter_)),
    (_sorted(1), (torch.sort, T.sort, torch.mode, T.mode, torch.cummax, T.cummax,
                  torch.cummin, T.cummin)),
    (_sorted(2), (torch.topk, T.topk, torch.kthvalue, T.kthvalue)),
    (_turned(1), (torch.flip, T.flip)),
    (_turned(2), (torch.roll, T.roll)),
    (_multiplied, (torch.matmul, T.matmul, T.__matmul__, torch.mm, T.mm, torch.bmm, T.bmm)),
    (_looked_up, (functional.embedding,)),
    (_bagged, (functional.embedding_bag,)),
    (_packed, (torch._VF._pack_padded_sequence, torch._VF._pad_packed_sequence)),
]  # fmt: skip

_MOVING = {function: rule for rule, functions in _RULES for function in functions}
