"""What each function of torch does to the owners of rows, and what becomes of a call's result."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.operations.call import tensors_in
from nacre.gradient_clipping.tape.carried_rows.carrying import (
    Args,
    Kwargs,
    along,
    attended,
    bagged,
    carry_grouped,
    carry_joined,
    carry_linear,
    elementwise,
    first,
    hot,
    in_order,
    looked_up,
    moved,
    multiplied,
    normalised,
    picked,
    reduced,
    reshaped,
)
from nacre.gradient_clipping.tape.carried_rows.indexing import (
    added,
    found,
    gathered,
    indexed,
    put,
    selected,
)
from nacre.gradient_clipping.tape.carried_rows.packed import (
    elsewhere,
    packed_rows,
    padded_rows,
    side_by_side_rows,
)
from nacre.gradient_clipping.tape.carried_rows.tags import (
    NOBODY,
    Carried,
    CarriedStep,
    CarryRule,
    Unknown,
)
from nacre.gradient_clipping.tape.counters import function_name
from nacre.gradient_clipping.tape.flow import DATA, LIKE
from nacre.gradient_clipping.tape.followed import RECURRENT, bare_name

_RULES: list[tuple[Callable[..., Any], set[str]]] = [
    (elementwise, {
        "add", "sub", "mul", "div", "truediv", "floordiv", "floor_divide", "true_divide", "divide",
        "multiply", "subtract", "mod", "remainder", "fmod", "pow", "neg", "abs", "exp", "log",
        "log2", "log1p", "sqrt", "rsqrt", "sigmoid", "tanh", "relu", "gelu", "silu", "softplus",
        "elu", "leaky_relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "mish", "logsigmoid",
        "clamp", "clamp_min", "clamp_max", "clip", "masked_fill", "eq", "ne", "lt", "le", "gt",
        "ge", "greater", "less", "greater_equal", "less_equal", "and", "or", "xor", "invert", "not",
        "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not",
        "float", "double", "half", "bfloat16", "long", "int", "bool", "clone", "contiguous",
        "detach", "maximum", "minimum", "square", "reciprocal", "erf", "sin", "cos", "isnan",
        "isinf", "isfinite", "nan_to_num", "lerp", "addcmul",
    }),
    (first, {"to", "type", "type_as", "dropout", "alpha_dropout", "requires_grad_"}),
    (moved, {"permute", "transpose", "T", "mT", "t", "squeeze", "unsqueeze", "expand", "expand_as",
             "chunk", "split", "unbind", "narrow", "select", "movedim", "repeat", "tile",
             "repeat_interleave", "flip", "roll", "swapaxes"}),
    (reshaped, {"view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"}),
    (carry_joined, {"cat", "stack", "concat", "hstack", "vstack"}),
    (reduced, {"sum", "mean", "amax", "amin", "any", "all", "prod", "norm", "std", "var",
               "logsumexp"}),
    (along(1), {"softmax", "safe_softmax", "log_softmax", "cumsum", "cumprod"}),
    (along(2, 1), {"normalize"}),
    (picked(2, 2), {"topk"}),
    (picked(2, 1), {"max", "min"}),
    (picked(1, 1), {"argmax", "argmin"}),
    (in_order, {"sort", "argsort"}),
    (carry_linear, {"linear"}),
    (normalised, {"layer_norm", "rms_norm"}),
    (multiplied, {"matmul", "bmm", "mm"}),
    (attended, {"scaled_dot_product_attention"}),
    (carry_grouped, {"grouped_mm"}),
    (looked_up, {"embedding"}),
    (bagged, {"embedding_bag"}),
    (hot, {"one_hot"}),
    (found, {"where", "nonzero"}),
    (indexed, {"getitem"}),
    (selected, {"index_select"}),
    (gathered, {"gather", "take_along_dim"}),
    (added, {"index_add", "index_copy", "scatter_add", "scatter"}),
    (put, {"setitem"}),
    (elsewhere, {"cpu", "cuda"}),
    (packed_rows, {"pack_padded_sequence"}),
    (padded_rows, {"pad_packed_sequence"}),
    (side_by_side_rows, {"pad_sequence"}),
]  # fmt: skip

RULES: dict[str, CarryRule] = {name: rule for rule, names in _RULES for name in names}
"""By the function's bare name, as `bare_name` gives it."""


def begin_move(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> CarriedStep:
    """Before a call: the owners of its result, where a rule knows them."""
    name = function_name(function)
    rule, rows = RULES.get(bare_name(name)), c.holds_rows(args, kwargs)
    if not c.entered(args, kwargs):
        return CarriedStep(None, rows)
    alone = None if name in LIKE else c.one_units(args, kwargs)
    beside = rule in (put, carry_joined)  # constants stay beside the rows of one unit
    if rule is None or (alone is not None and not beside):
        return CarriedStep(alone, rows)
    try:
        return CarriedStep(rule(c, function, args, kwargs), rows)
    except (Unknown, LookupError, TypeError, RuntimeError):  # arguments in a form of their own
        return CarriedStep(alone, rows)


def refuse_steps(c: Carried, function: Any, args: Args, kwargs: Kwargs) -> None:
    """Raises `UnsupportedLayer` where a recurrent layer reads the rows of one unit alone.

    It would be opened step by step for each unit: nine times as long as one unit at a time takes.
    """
    if function_name(function) in RECURRENT and c.one_units(args, kwargs) is not None:
        raise UnsupportedLayer(
            f"{function_name(function)} reads the rows of one unit at a time, which the tape "
            "would follow step by step, slower than the loop; pass the rows of all units at once, "
            "padded, or use `gradients: looped`"
        )


def nothing_left(c: Carried) -> None:
    """Raises `UnsupportedLayer` where a mask was read at places that several units decided about,
    and held something elsewhere, or was read twice."""
    for x, version, axis, numbers in c.picks.values():
        rest = x.movedim(axis, 0).clone()
        rest[numbers] = 0
        if x._version != version or len(set(numbers)) < len(numbers) or bool((rest != 0).any()):
            raise UnsupportedLayer(
                "units decide together which part of a mask is read, and another part holds "
                "something too; use `gradients: looped`"
            )


def own_losses(c: Carried, losses: Tensor) -> None:
    """Raises `UnsupportedLayer` where a unit's loss is known to be made of another's rows."""
    owners = c.seen(losses)
    if owners is None:
        return
    places = torch.arange(len(losses), device=losses.device)
    held = owners.expand(losses.shape)
    if bool(((held != places) & (held != NOBODY)).any()):
        raise UnsupportedLayer(
            "the loss of one unit is computed from rows of another, which values of the batch or "
            "a loop over rows put in its place; no bound on a unit's share holds: keep each "
            "unit's rows to its own loss"
        )


def finish_move(
    c: Carried,
    function: Any,
    args: Args,
    kwargs: Kwargs,
    result: Any,
    step: CarriedStep,
    *,
    must: bool,
) -> None:
    """After a call: keeps the owners of its result. Raises `UnsupportedLayer` where rows that
    values have moved lose theirs; with `must`, wherever they are not known."""
    name = function_name(function)
    into = args[0] if result is None else result
    if step.owners is not None:
        c.note(into, step.owners)
        return
    if bare_name(name) == "sort" and _sorted_rows(c, args[0], result):
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
