"""Numbers of the batch that reach a call unseen: where they differ, rows may lie otherwise."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.counters import function_name
from nacre.gradient_clipping.tape.flow import DATA, Flow
from nacre.gradient_clipping.tape.followed import STATIC, bare_name

_CARRIED = {
    "getitem", "setitem", "where", "index_put", "repeat_interleave", "cat", "stack", "concat",
    "hstack", "vstack",
}  # fmt: skip
"""Functions of `STATIC` of which each tensor is rows or an index, and never a size."""
_SIZED = {
    "arange", "zeros", "ones", "full", "empty", "eye", "linspace", "randperm", "diagonal", "topk",
    "adaptive_avg_pool1d", "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip
_TOLD = {
    "is_nonzero", "contains", "complex", "format", "repr", "str", "to_sparse", "dlpack",
    "untyped_storage", "data_ptr", "local_scalar_dense",
}  # fmt: skip


def numbers_handed(
    flow: Flow, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[str]:
    """What a call takes from the batch as plain numbers: bounds of slices, sizes, what is printed.

    torch reads such a tensor in C, where nothing is seen; whoever compares these numbers with those
    on trial knows whether the call may have taken other rows.
    """
    name = bare_name(function_name(function))
    found: list[Tensor] = []
    if name in ("getitem", "setitem"):
        parts: tuple[Any, ...] = args[1] if isinstance(args[1], tuple) else (args[1],)
        ends = [end for p in parts if isinstance(p, slice) for end in (p.start, p.stop, p.step)]
        found += [end for end in ends if isinstance(end, Tensor)]
    elif name in _SIZED or (name in STATIC and name not in _CARRIED):
        rows = name in STATIC or name.startswith("new_")
        given = tensors_in((args[1:] if rows else args, dict(kwargs)))
        found += [t for t in given if t.dim() == 0 and not t.is_floating_point()]
    if name in _TOLD or (name == "one_hot" and len(args) < 2 and "num_classes" not in kwargs):
        found += tensors_in((args, dict(kwargs)))
    return [str(t.tolist()) for t in found if flow.level(t) == DATA and not flow.counted(t)]
