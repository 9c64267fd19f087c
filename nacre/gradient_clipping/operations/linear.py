"""Matrix products: linear layers, GPT-2's Conv1D, `x @ W`, and stacks of matrices (experts)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nacre.gradient_clipping.operations.call import Backward, Call, ParameterShares
from nacre.gradient_clipping.tape.contributions import Instances, Products, wide


def linear(call: Call) -> Backward | None:
    """y = x W^T + b, by `torch.nn.functional.linear`."""
    x, weight, bias = call.bind("input", "weight", "bias")
    return _product(call, x, weight, bias, flipped=False)


def addmm(call: Call) -> Backward | None:
    """y = b + x W, by `torch.addmm`: transformers' Conv1D."""
    bias, x, weight = call.bind("input", "mat1", "mat2")
    if call.kwargs.get("beta", 1) != 1 or call.kwargs.get("alpha", 1) != 1:
        return None
    return _product(call, x, weight, bias, flipped=True)


def mv(call: Call) -> Backward | None:
    """y = W x, by `torch.mv`: one row."""
    weight, x = call.bind("input", "vec")
    return _product(call, x, weight, None, flipped=False)


def matmul(call: Call) -> Backward | None:
    """y = x W, by `@`; W may be a matrix, or one matrix for each entry of a leading axis."""
    x, weight = call.args[:2] if len(call.args) >= 2 else call.bind("input", "mat2")
    if not isinstance(weight, Tensor) or call.moves(x):
        return None
    if weight.dim() == 3:
        return _experts(call, x, weight)
    return _product(call, x, weight, None, flipped=True)


def _product(call: Call, x: Any, weight: Any, bias: Any, *, flipped: bool) -> Backward | None:
    if call.moves(x) or weight.dim() != 2 or x.dim() != len(call.shape):
        return None
    row = call.units == 1 and len(call.shape) == 1
    if call.layout.axis == len(call.shape) - 1 and not row:
        return None  # the units lie along the width
    moves_weight, moves_bias = call.moves(weight), call.moves(bias)
    if moves_bias and bias.dim() != 1:
        return None
    inputs = call.hold(x) if moves_weight else None
    source = _identity(x)

    def answer(grad: Tensor) -> ParameterShares:
        g = call.positions(grad)
        given: ParameterShares = []
        if inputs is not None:
            a = call.positions(inputs.get())
            part = Products(a, g, tuple(weight.shape), flipped, source)
            given.append((weight, part.settled()))
        if moves_bias:
            given.append((bias, Instances(g.squeeze(1) if g.shape[1] == 1 else g.sum(1))))
        return given

    return answer


def _experts(call: Call, x: Tensor, weight: Tensor) -> Backward | None:
    """(E, N, I) @ (E, I, O): one matrix an expert, the units along N."""
    if x.dim() != 3 or call.layout.axis != 1 or x.shape[0] != weight.shape[0]:
        return None
    inputs = call.hold(x)

    def answer(grad: Tensor) -> ParameterShares:
        a, g = call.units_first(inputs.get()), call.units_first(grad)  # (B, P, E, I), (B, P, E, O)
        return [(weight, Instances(torch.einsum("bpei,bpeo->beio", wide(a), wide(g))))]

    return answer


def _identity(x: Tensor) -> int:
    """A number that two operations share if and only if they read the same tensor, while the tape
    holds it; q, k and v of one attention do."""
    return hash((x.data_ptr(), x._version, tuple(x.shape), x.stride()))  # pyright: ignore[reportPrivateUsage]
