"""The steps of a network: affine ones with what they make of radii, rectifiers and sums."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from nacre.core.errors import Incompatible

LinearMap = Callable[[Tensor], Tensor]
"""(P, *one) -> (P, *other), linear in its argument, row by row."""

REMEDY = (
    "build the model of Linear, Conv2d, AvgPool2d, BatchNorm and ReLU layers, or certify it by "
    "`{kind: smoothing}`, which reads no layer"
)


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> linear(x) + constant."""

    source: int  # the node that it reads
    linear: LinearMap
    magnitude: LinearMap
    """The same with the absolute value of each weight: what it makes of radii."""
    transpose: LinearMap
    """<a, linear(x)> = <transpose(a), x>."""
    constant: Tensor  # (*out)
    terms: int
    """Roundings at most between an entry of the input and one of the output, as a float32 model
    computes it; 0 where it moves numbers only."""
    weight: Tensor | None = None
    """(*out) the sum of the absolute values of all that `constant` is summed from; its own absolute
    value where absent."""


@dataclass(frozen=True)
class Rectifier:
    """x -> max(x, 0)."""

    source: int


@dataclass(frozen=True)
class Addition:
    """The sum of two nodes."""

    left: int
    right: int


NetworkStep = Affine | Rectifier | Addition


@dataclass(frozen=True, eq=False)
class Network:
    """Node 0 is the input; node i is what step i - 1 makes of earlier nodes; the last one is the
    output. All numbers are float64."""

    steps: Sequence[NetworkStep]
    shapes: Sequence[tuple[int, ...]]  # of each node, without the rows

    def __call__(self, x: Tensor) -> Tensor:
        """(R, *shape) float64 -> (R, outputs)"""
        nodes = [x]
        for step in self.steps:
            match step:
                case Affine():
                    nodes.append(step.linear(nodes[step.source]) + step.constant)
                case Rectifier():
                    nodes.append(nodes[step.source].clamp(min=0))
                case Addition():
                    nodes.append(nodes[step.left] + nodes[step.right])
        return nodes[-1]


_FEW = 8
"""Roundings of a normalisation, or of arithmetic with a constant and of what made the constant."""


def matrix_step(source: int, weight: Tensor, bias: Tensor, terms: int | None = None) -> Affine:
    """A product with a matrix, and a constant."""
    weight = weight.detach()
    return Affine(
        source,
        linear=lambda x: x @ weight.T,
        magnitude=lambda x: x @ weight.abs().T,
        transpose=lambda a: a @ weight,
        constant=bias.detach(),
        terms=weight.shape[1] + 1 if terms is None else terms,
    )


def scaled_step(
    source: int, factor: Tensor, constant: Tensor, weight: Tensor | None = None
) -> Affine:
    """Each entry by its factor, and a constant."""
    return Affine(
        source,
        linear=lambda x: x * factor,
        magnitude=lambda x: x * factor.abs(),
        transpose=lambda a: a * factor,
        constant=constant,
        terms=_FEW,
        weight=weight,
    )


def normalised_step(
    source: int, module: nn.BatchNorm1d | nn.BatchNorm2d, after: tuple[int, ...]
) -> Affine | None:
    """Batch normalisation by the running statistics, which is affine."""
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return None
    factor = (variance + module.eps).rsqrt()
    if module.affine:
        factor = factor * module.weight
    bias = module.bias if module.affine else torch.zeros_like(mean)
    shift, weight = bias - mean * factor, bias.abs() + (mean * factor).abs()
    width = (-1, *[1] * (len(after) - 1))
    wide = [torch.ones(after).double() * one.reshape(width) for one in (factor, shift, weight)]
    return scaled_step(source, *wide)


def convolution_step(
    source: int, module: nn.Conv2d, before: tuple[int, ...], after: tuple[int, ...]
) -> Affine:
    """A convolution with padding of zeros."""
    weight, bias = module.weight.detach(), module.bias
    settings: tuple[Any, ...] = (module.stride, module.padding, module.dilation, module.groups)
    zero, terms = torch.zeros(after, dtype=torch.float64), weight[0].numel() + 1

    def through(kernel: Tensor) -> LinearMap:
        return lambda x: F.conv2d(x, kernel, None, *settings)

    if isinstance(module.padding, str):
        constant = zero + (bias.detach()[:, None, None] if bias is not None else 0)
        return _derived(source, through(weight), through(weight.abs()), before, constant, terms)
    return Affine(
        source,
        linear=through(weight),
        magnitude=through(weight.abs()),
        transpose=lambda a: conv2d_input((len(a), *before), weight, a, *settings),
        constant=zero + (bias.detach()[:, None, None] if bias is not None else 0),
        terms=terms,
    )


def reshaping_step(source: int, before: tuple[int, ...], after: tuple[int, ...]) -> Affine:
    """The same entries in another shape."""
    if math.prod(before) != math.prod(after):
        raise Incompatible(f"a reshape of {before} to {after} mixes rows; {REMEDY}")
    return Affine(
        source,
        linear=lambda x: x.reshape(len(x), *after),
        magnitude=lambda x: x.reshape(len(x), *after),
        transpose=lambda a: a.reshape(len(a), *before),
        constant=torch.zeros(after, dtype=torch.float64),
        terms=0,
    )


def _pooled(module: nn.AvgPool2d | nn.AdaptiveAvgPool2d, before: tuple[int, ...]) -> int:
    """Roundings of a mean."""
    if isinstance(module, nn.AvgPool2d):
        size = module.kernel_size
        return (math.prod(size) if isinstance(size, tuple) else size * size) + 1
    return math.prod(before[1:]) + 1


def _derived(
    source: int, linear: LinearMap, magnitude: LinearMap, before: tuple[int, ...],
    constant: Tensor, terms: int,
) -> Affine:  # fmt: skip
    """A linear step whose transpose is taken from its derivative."""

    def transpose(a: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros(len(a), *before, dtype=a.dtype, requires_grad=True)
            return torch.autograd.grad(linear(x), x, a)[0]

    return Affine(source, linear, magnitude, transpose, constant, terms)


def pooling_step(
    source: int,
    module: nn.AvgPool2d | nn.AdaptiveAvgPool2d,
    before: tuple[int, ...],
    constant: Tensor,  # (*out) zeros
) -> Affine:
    """Means over windows."""

    def magnitude(x: Tensor) -> Tensor:
        return module(x).abs()  # `divisor_override` may be negative

    return _derived(source, module, magnitude, before, constant, _pooled(module, before))
