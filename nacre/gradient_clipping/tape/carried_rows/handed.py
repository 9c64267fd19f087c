"""Numbers of the batch that reach a call unseen: where they differ, rows may lie otherwise."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.carried_rows.packed import fills_up
from nacre.gradient_clipping.tape.counters import function_name
from nacre.gradient_clipping.tape.flow import DATA, LIKE, Flow, moves
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
_SIZE = "size "
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
        given = tensors_in((args[1:] if rows else args, kwargs))
        found += [t for t in given if t.dim() == 0 and not t.is_floating_point()]
    kind = _SIZE
    if name in _TOLD or (name == "one_hot" and len(args) < 2 and "num_classes" not in kwargs):
        found, kind = tensors_in((args, kwargs)), ""
    made = (t for t in found if flow.level(t) == DATA and not flow.counted(t))
    return [f"{kind}{t.tolist()}" for t in made]


def handed(turns: Sequence[bool | str]) -> list[str]:
    """The bounds and sizes that were handed over, without what is printed and what `if` heard."""
    return [turn for turn in turns if isinstance(turn, str) and turn.startswith(_SIZE)]


def unremarkable(function: Any, args: tuple[Any, ...], entering: Sequence[Tensor]) -> bool:
    """Whether a call that reads the batch moves no rows by values, hands none to Python, takes none
    as a size, and gives numbers of the batch: all that is to be noted is that it was made."""
    when = _unremarkable(function)
    if when == _ROWS_ALONE:  # what else enters may be a size
        return len(entering) == 1 and bool(args) and entering[0] is args[0]
    return when == _ALWAYS


_ALWAYS, _ROWS_ALONE, _NEVER = range(3)


@lru_cache(maxsize=4096)
def _unremarkable(function: Any) -> int:
    """When that is so, by the function's name: it need not be asked for every call."""
    name = function_name(function)
    bare = bare_name(name)
    if moves(function) or fills_up(function) or name in LIKE or bare in ("getitem", "setitem"):
        return _NEVER
    if bare in _SIZED or bare in _TOLD or bare == "one_hot":
        return _NEVER
    return _ROWS_ALONE if bare in STATIC and bare not in _CARRIED else _ALWAYS


_NUMBERS = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "argwhere", "masked_select",
    "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount",
}  # fmt: skip
"""Operations by which values become numbers of the program, or the size of a tensor."""


class Hidden(TorchDispatchMode):
    """Sees the operations of a forward pass below the functions of torch.

    Compiled code (`torch.jit.script`) calls those that no function mode is shown. Where one of them
    makes a number of values, what becomes of it cannot be told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0  # how deep inside functions that are shown
        self.number: str | None = None  # the first operation of which nothing tells

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch's own wrapper, which keeps a compiler out that is not at work here (the model
        runs as it was written), imports all of it, which takes two seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func.overloadpacket.__name__)
        if not self.seen and name in _NUMBERS and self.number is None:
            self.number = name
        return func(*args, **(kwargs or {}))


def told(hidden: Hidden | None) -> str | None:
    """Why a model cannot be followed, where compiled code makes numbers of values."""
    if hidden is None or hidden.number is None:
        return None
    return (
        f"compiled code, as by `torch.jit.script`, makes numbers of values ({hidden.number}) where "
        "nothing looks"
    )
