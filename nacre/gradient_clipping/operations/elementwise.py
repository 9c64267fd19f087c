"""Sums and products with a parameter, entry by entry: scales, position embeddings, shifts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import (
    Backward,
    Call,
    ParameterShares,
    replaced,
    tensors_in,
)
from nacre.gradient_clipping.tape.carried_rows.single import OwnRows
from nacre.gradient_clipping.tape.contributions import wide
from nacre.gradient_clipping.tape.layout import Layout


def add(call: Call) -> Backward | None:
    """x + p, either way round."""
    return _sum(call, 1.0)


def subtraction(call: Call) -> Backward | None:
    """x - p or p - x."""
    return _sum(call, -1.0)


def multiply(call: Call) -> Backward | None:
    """x * p, either way round."""
    if len(call.args) != 2 or call.kwargs:
        return None
    x, p = call.args
    if call.moves(x):
        x, p = p, x
    if call.moves(x) or not _broadcast_over_units(call, p):
        return None
    factor = call.hold(x) if isinstance(x, Tensor) else None

    def answer(grad: Tensor) -> ParameterShares:
        other = x if factor is None else wide(factor.get())
        part = call.reduced(wide(grad) * other, p.shape)
        assert part is not None
        return [(p, part)]

    return answer


def entrywise(call: Call) -> Backward | None:
    """Any function that acts entry by entry (quotients, `where`, powers): its own backward, with
    the parameter broadcast to the output, once for all units."""
    moving = list(
        {id(t): t for t in tensors_in((call.args, call.kwargs)) if call.moves(t)}.values()
    )
    if not all(_broadcast_over_units(call, p) for p in moving):
        return None
    function, args, kwargs, shape = call.function, call.args, call.kwargs, call.shape
    data = {id(t): call.hold(t) for t in tensors_in((args, kwargs)) if not call.moves(t)}

    def answer(grad: Tensor) -> ParameterShares:
        leaves = {id(p): p.detach().expand(shape).requires_grad_() for p in moving}
        known = leaves | {key: held.get() for key, held in data.items()}
        with torch.enable_grad():
            output = function(*replaced(args, known), **replaced(kwargs, known))
        found = torch.autograd.grad(
            output, list(leaves.values()), grad.to(output.dtype), allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        given: ParameterShares = []
        for p, gradient in zip(moving, found, strict=True):
            part = call.reduced(wide(gradient), p.shape)
            assert part is not None
            given.append((p, part))
        return given

    return answer


def expand(call: Call) -> Backward | None:
    """p repeated for each unit: a class token."""
    p = call.args[0]
    if not call.moves(p) or not _broadcast_over_units(call, p):
        return None

    def answer(grad: Tensor) -> ParameterShares:
        part = call.reduced(grad, p.shape)
        assert part is not None
        return [(p, part)]

    return answer


def _sum(call: Call, second: float) -> Backward | None:
    if len(call.args) != 2 or call.kwargs:
        return entrywise(call)  # `alpha`
    moving = [(p, sign) for p, sign in zip(call.args, (1.0, second), strict=True) if call.moves(p)]
    if not all(_broadcast_over_units(call, p) or _of_own_rows(call, p) for p, _ in moving):
        return None

    def answer(grad: Tensor) -> ParameterShares:
        given: ParameterShares = []
        for p, sign in moving:
            signed = grad if sign > 0 else -grad
            part = call.reduced(signed, p.shape)
            if part is None:
                assert isinstance(call.layout, Layout)
                first = call.units_first(signed)
                part = OwnRows(first, call.layout, call.shape, call.what)
            given.append((p, part))
        return given

    return answer


def _of_own_rows(call: Call, p: Any) -> bool:
    return isinstance(call.layout, Layout) and p.dim() > 0 and p.shape == call.shape


def _broadcast_over_units(call: Call, p: Any) -> bool:
    full = (1,) * (len(call.shape) - p.dim()) + tuple(p.shape)
    return 0 < len(full) == len(call.shape) and full[call.layout.axis] == 1
