"""Convolutions: windows of the input become positions, and the rest is a matrix product.

*Source:* Rochette, Manoel & Tramel 2019, "Efficient per-example gradient computations in
convolutional neural networks", https://arxiv.org/abs/1912.06015.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nacre.gradient_clipping.contributions import Instances, Products, wide
from nacre.gradient_clipping.operations.call import Answer, Call, Given


def convolution(call: Call) -> Answer | None:
    """By `torch.conv1d`, `conv2d`, `conv3d`; weights are (O, C / groups, *kernel)."""
    x, weight, bias, stride, padding, dilation, groups = call.bind(
        "input", "weight", "bias", "stride", "padding", "dilation", "groups"
    )
    if not _batched(call, x, weight):
        return None
    axes = weight.dim() - 2
    step, spread = _each(stride, axes, 1), _each(dilation, axes, 1)
    kernel = tuple(weight.shape[2:])
    pads = _padding(padding, kernel, spread)
    groups = groups or 1
    moves_weight, moves_bias = call.moves(weight), call.moves(bias)
    held = call.hold(x) if moves_weight else None

    def answer(grad: Tensor) -> Given:
        given: Given = []
        if held is not None:
            seen = windows(wide(held.get()), kernel, step, pads, spread)  # (N, C * kernel, L)
            given.append((weight, _products(call, seen, grad.flatten(2), weight.shape, groups)))
        if moves_bias:
            given.append((bias, _over_places(call, grad)))
        return given

    return answer


def transposed(call: Call) -> Answer | None:
    """By `torch.conv_transpose1d` to 3d; weights are (C, O / groups, *kernel).

    The roles of input and output are exchanged: windows are taken from the output's gradient.
    """
    x, weight, bias, stride, padding, _, groups, dilation = call.bind(
        "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"
    )
    if not _batched(call, x, weight):
        return None
    axes = weight.dim() - 2
    step, spread = _each(stride, axes, 1), _each(dilation, axes, 1)
    pads = [(p, p) for p in _each(padding, axes, 0)]
    kernel, groups = tuple(weight.shape[2:]), groups or 1
    moves_weight, moves_bias = call.moves(weight), call.moves(bias)
    held = call.hold(x) if moves_weight else None

    def answer(grad: Tensor) -> Given:
        given: Given = []
        if held is not None:
            x = wide(held.get())
            seen = windows(wide(grad), kernel, step, pads, spread, tuple(x.shape[2:]))
            given.append((weight, _products(call, seen, x.flatten(2), weight.shape, groups)))
        if moves_bias:
            given.append((bias, _over_places(call, grad)))
        return given

    return answer


def windows(
    x: Tensor,  # (N, C, *size)
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: list[tuple[int, int]],  # before and after, of each axis
    dilation: tuple[int, ...],
    places: tuple[int, ...] | None = None,  # how many windows along each axis; None for all
) -> Tensor:  # (N, C * kernel, L)
    """What each output of a convolution sees of its input."""
    if len(kernel) == 2 and places is None and all(a == b for a, b in padding):
        before = [a for a, _ in padding]
        return functional.unfold(x, kernel, dilation, before, stride)
    if any(a or b for a, b in padding):
        x = functional.pad(x, [p for pair in reversed(padding) for p in pair])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    for axis, (span, step) in enumerate(zip(spans, stride, strict=True)):
        x = x.unfold(axis + 2, span, step)
        if places is not None:
            x = x.narrow(axis + 2, 0, places[axis])
    x = x[(..., *[slice(None, None, d) for d in dilation])]  # (N, C, *places, *kernel)
    axes = len(kernel)
    x = x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    return x.reshape(x.shape[0], x.shape[1] * _product(kernel), -1)


def _products(
    call: Call,
    seen: Tensor,  # (N, C * kernel, L)
    other: Tensor,  # (N, O, L)
    shape: torch.Size,
    groups: int,
) -> Instances | Products:
    rows = seen.shape[0] // call.units
    if groups == 1 and rows == 1:
        return Products(seen.mT, wide(other).mT, tuple(shape)).settled()
    n, width, length = seen.shape
    a = seen.reshape(n * groups, width // groups, length)
    g = wide(other).reshape(n * groups, -1, length)
    each = torch.bmm(g, a.mT).reshape(n, *shape)
    if rows == 1:
        return Instances(each)
    first = call.units_first(each)  # rows of one unit are its positions
    return Instances(first.sum(1))


def _over_places(call: Call, grad: Tensor) -> Instances:
    return Instances(call.units_first(grad.flatten(2).sum(2)).sum(1))


def _batched(call: Call, x: Any, weight: Any) -> bool:
    """Whether the input has a leading axis, and the units lie along it."""
    return not call.moves(x) and x.dim() == weight.dim() and call.layout.axis == 0


def _each(value: Any, axes: int, default: int) -> tuple[int, ...]:
    if value is None:
        return (default,) * axes
    if isinstance(value, int):
        return (value,) * axes
    listed = tuple(int(v) for v in value)
    return listed * axes if len(listed) == 1 else listed


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    if value == "valid":
        return [(0, 0)] * len(kernel)
    if value == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(w // 2, w - w // 2) for w in whole]
    return [(p, p) for p in _each(value, len(kernel), 0)]


def _product(numbers: tuple[int, ...]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
