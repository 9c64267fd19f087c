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

from nacre.gradient_clipping.operations.call import Backward, Call, ParameterShares
from nacre.gradient_clipping.tape.contributions import Contribution, Instances, Products, wide


def convolution(call: Call) -> Backward | None:
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

    def answer(grad: Tensor) -> ParameterShares:
        given: ParameterShares = []
        if held is not None:
            seen = windows(wide(held.get()), kernel, step, pads, spread)
            other = grad.flatten(2).mT
            given.append((weight, _products(call, seen, other, weight.shape, groups)))
        if moves_bias:
            given.append((bias, _over_places(call, grad)))
        return given

    return answer


def transposed(call: Call) -> Backward | None:
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

    def answer(grad: Tensor) -> ParameterShares:
        given: ParameterShares = []
        if held is not None:
            x = wide(held.get())
            seen = windows(wide(grad), kernel, step, pads, spread, tuple(x.shape[2:]))
            other = x.flatten(2).mT
            given.append((weight, _products(call, seen, other, weight.shape, groups)))
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
) -> Tensor:  # (N, L, *kernel, C)
    """What each output of a convolution sees of its input.

    Channels come last, so that a window is a few long runs of memory: two to three times as fast
    to gather as `torch.nn.functional.unfold`.
    """
    if any(a or b for a, b in padding):
        x = functional.pad(x, [p for pair in reversed(padding) for p in pair])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = zip(x.shape[2:], spans, stride, strict=True)
    if places is None:
        places = tuple((size - span) // step + 1 for size, span, step in sizes)
    x = x.movedim(1, -1).contiguous()  # (N, *size, C)
    n, *axes, c = x.stride()
    steps = [a * s for a, s in zip(axes, stride, strict=True)]
    inside = [a * d for a, d in zip(axes, dilation, strict=True)]
    seen = x.as_strided((x.shape[0], *places, *kernel, x.shape[-1]), (n, *steps, *inside, c))
    return seen.reshape(x.shape[0], -1, *kernel, x.shape[-1])


def _products(
    call: Call,
    seen: Tensor,  # (N, L, *kernel, C)
    other: Tensor,  # (N, L, O)
    shape: torch.Size,  # (O, C / groups, *kernel)
    groups: int,
) -> Contribution:
    n, length = seen.shape[:2]
    kernel, channels, height = tuple(shape[2:]), shape[1], shape[0]
    if groups == 1:  # the rows of one unit are its positions
        a = seen.reshape(call.units, (n // call.units) * length, -1)
        g = wide(other).reshape(call.units, (n // call.units) * length, height)
        if call.layout.outer != 1:
            a = call.units_first(seen.reshape(n, length, -1)).flatten(1, 2)
            g = call.units_first(wide(other)).flatten(1, 2)
        stored = (height, *kernel, channels)
        return Products(a, g, stored, axes=_channels_second(len(kernel))).settled()
    a = seen.reshape(n, length, -1, groups, channels).movedim(3, 1)  # (N, groups, L, kernel, C)
    a = a.reshape(n * groups, length, -1)
    g = wide(other).reshape(n, length, groups, height // groups).movedim(2, 1)
    g = g.reshape(n * groups, length, -1)
    each = torch.bmm(g.mT, a).reshape(n, height, *kernel, channels)
    return Instances(call.units_first(each).sum(1), _channels_second(len(kernel)))


def _channels_second(axes: int) -> tuple[int, ...]:
    """(O, *kernel, C) -> (O, C, *kernel)"""
    return (0, axes + 1, *range(1, axes + 1))


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


def _padding(
    value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> list[tuple[int, int]]:
    if value == "valid":
        return [(0, 0)] * len(kernel)
    if value == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(w // 2, w - w // 2) for w in whole]
    return [(p, p) for p in _each(value, len(kernel), 0)]
