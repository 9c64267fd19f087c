"""Arithmetic over `Tensors`, and the trainable part of a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nacre.core.parts import Clip
from nacre.core.types import Tensors


def trainable(model: nn.Module) -> Tensors:
    """The parameters that training moves, by name; each shared tensor once."""
    return {name: p for name, p in parameters_of(model).items() if p.requires_grad}


def parameters_of(model: nn.Module) -> Tensors:
    """As `model.named_parameters()`, which takes several times as long; a step asks often."""
    if type(model).named_parameters is not nn.Module.named_parameters:
        return dict(model.named_parameters())
    return _held(model, "_parameters")


def buffers_of(model: nn.Module) -> Tensors:
    """As `model.named_buffers()`, likewise."""
    if type(model).named_buffers is not nn.Module.named_buffers:
        return dict(model.named_buffers())
    return _held(model, "_buffers")


def _held(model: nn.Module, register: str) -> Tensors:
    found: Tensors = {}
    visited: set[int] = set()
    for prefix, module in modules_of(model):
        for name, tensor in getattr(module, register).items():
            if tensor is not None and id(tensor) not in visited:
                visited.add(id(tensor))
                found[prefix + name] = tensor
    return found


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Each module once, as by `model.named_modules()`; a name ends in "." where it is not empty."""
    found: list[tuple[str, nn.Module]] = []
    visited: set[int] = set()
    left: list[tuple[str, nn.Module]] = [("", model)]
    while left:
        prefix, module = left.pop()
        if id(module) in visited:
            continue
        visited.add(id(module))
        found.append((prefix, module))
        children = module._modules  # pyright: ignore[reportPrivateUsage]
        if children:
            some = reversed(children.items())
            left += [(f"{prefix}{name}.", child) for name, child in some if child is not None]
    return found


def summed(weights: Tensors, clip: Clip) -> Tensors:
    """The tensors of a sum under this rule: the weights, and the entries that the rule adds."""
    device = next(iter(weights.values())).device if weights else torch.device("cpu")
    nobody = torch.zeros(0, len(clip.groups(list(weights))), device=device)
    return weights | clip.extras(nobody)


def detached(tensors: Tensors) -> Tensors:
    """A copy that shares no memory and no graph with the original."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def subtract(a: Tensors, b: Tensors) -> Tensors:
    """a - b, name by name; the names must agree."""
    _same_names(a, b)
    return {name: value - b[name] for name, value in a.items()}


def scale(tensors: Tensors, factor: float) -> Tensors:
    """Each tensor times `factor`."""
    return {name: value * factor for name, value in tensors.items()}


def norm(tensors: Tensors) -> float:
    """The joint L2 norm, summed in float64 without a float64 copy; 0 for no tensors."""
    lengths = (
        torch.linalg.vector_norm(value.detach(), dtype=torch.float64)  # pyright: ignore[reportUnknownMemberType]
        for value in tensors.values()
    )
    return math.hypot(*(float(length) for length in lengths))


def finite(tensors: Tensors) -> bool:
    """Whether every entry is a finite number."""
    # What is not finite stays so in a sum, which takes a twentieth of the time of a look at each
    # entry; a sum of finite numbers may overflow, so it decides one way only.
    return all(
        math.isfinite(float(value.detach().sum())) or bool(torch.isfinite(value).all())
        for value in tensors.values()
    )


@torch.no_grad()
def assign(model: nn.Module, values: Tensors) -> None:
    """Writes `values` into the parameters of the same names; shapes and names must fit."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    for name, value in values.items():
        if name not in parameters:
            raise ValueError(f"the model has no parameter {name!r}")
        if parameters[name].shape != value.shape:
            shapes = f"{tuple(parameters[name].shape)} and {tuple(value.shape)}"
            raise ValueError(f"parameter {name!r} and its value differ in shape: {shapes}")
        parameters[name].copy_(value)


def _same_names(a: Tensors, b: Tensors) -> None:
    if a.keys() != b.keys():
        raise ValueError(f"different names: {sorted(a.keys() ^ b.keys())}")
