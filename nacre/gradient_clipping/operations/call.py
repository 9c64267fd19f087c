"""One call of a torch function that took a trainable tensor, as the rules of operations see it."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.tape.carried_rows.single import OwnRows, Single
from nacre.gradient_clipping.tape.contributions import Contribution, Instances
from nacre.gradient_clipping.tape.layout import Layout, Ragged, over_broadcast

Function = Callable[..., Any]

ParameterShares = list[tuple[Tensor, Contribution | Single | OwnRows]]
"""Trainable argument -> what each unit adds to its gradient in this call."""

Backward = Callable[[Tensor], ParameterShares]
"""Takes the gradient of the summed losses at the call's output."""


@dataclass(frozen=True)
class SavedTensor:
    """A tensor that is read again after the backward pass; nobody may have changed it by then."""

    tensor: Tensor
    version: int
    what: str

    def get(self) -> Tensor:
        """The tensor. Raises `UnsupportedLayer` where the model wrote into it meanwhile."""
        if self.tensor._version != self.version:  # pyright: ignore[reportPrivateUsage]
            raise UnsupportedLayer(
                f"an input of {self.what} is changed in place after its use, so its gradient is "
                "lost; write the result into a new tensor, or use `gradients: looped`"
            )
        return self.tensor


@dataclass
class Call:
    """A torch function, its arguments, and which of them move.

    The tape drops the arguments once a rule has looked at them: what is read again after the
    backward pass, the rule holds.
    """

    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    moving: Collection[int]  # ids of the trainable tensors among the arguments
    layout: Layout | Ragged  # of the output
    shape: torch.Size  # of the output
    units: int
    what: str  # for messages: the function and the parameters, as "linear of encoder.0.weight"

    def bind(self, *names: str) -> list[Any]:
        """The arguments by position or name; None where one is absent."""
        given = list(self.args[: len(names)]) + [None] * (len(names) - len(self.args))
        for place, name in enumerate(names):
            if name in self.kwargs:
                given[place] = self.kwargs[name]
        return given

    def forget(self) -> None:
        """Drops the arguments, so that what no rule holds is freed."""
        self.args, self.kwargs = (), {}

    def moves(self, value: Any) -> bool:
        """Whether this argument is trainable."""
        return isinstance(value, Tensor) and id(value) in self.moving

    def hold(self, tensor: Tensor) -> SavedTensor:
        """Keeps a data argument for later, without its graph."""
        kept = tensor.detach()
        return SavedTensor(kept, kept._version, self.what)  # pyright: ignore[reportPrivateUsage]

    def units_first(self, tensor: Tensor) -> Tensor:
        """(…) laid out as the output -> (B, positions, other axes …)"""
        return self.layout.units_first(tensor, self.units, self.what)

    def positions(self, tensor: Tensor) -> Tensor:
        """(…, D) laid out as the output -> (B, P, D)"""
        first = self.units_first(tensor)
        places = math.prod(first.shape[1:-1])  # not -1, which a width of zero makes ambiguous
        return first.reshape(self.units, places, first.shape[-1])

    def reduced(self, values: Tensor, shape: torch.Size) -> Instances | None:
        """(output's shape) -> (B, *shape): the sum over everything that `shape` is broadcast
        along; None where it is not broadcast along the units."""
        if len(shape) > values.dim():
            return None
        axis = self.layout.axis
        full = (1,) * (values.dim() - len(shape)) + tuple(shape)
        if full[axis] != 1:
            return None
        return Instances(over_broadcast(self.units_first(values), axis, shape))


_HOLD_NONE = frozenset({int, float, bool, str, type(None), slice, torch.dtype, torch.device})


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among arguments, inside lists and dictionaries as well."""
    found: list[Tensor] = []
    _gather(values, found)
    return found


def _gather(values: Any, found: list[Tensor]) -> None:
    if isinstance(values, Tensor):
        found.append(values)
    elif type(values) in _HOLD_NONE:  # each call of a model asks this: judging a type is slow
        return
    elif isinstance(values, list | tuple):
        for value in values:
            _gather(value, found)
    elif type(values) is dict or isinstance(values, Mapping):
        for value in values.values():
            _gather(value, found)


def replaced(values: Any, by: Mapping[int, Tensor]) -> Any:
    """Arguments with some tensors exchanged, by identity."""
    if type(values) in _HOLD_NONE:
        return values
    if isinstance(values, Tensor):
        return by.get(id(values), values)
    if type(values) is dict or isinstance(values, Mapping):
        return {key: replaced(value, by) for key, value in values.items()}
    if isinstance(values, list | tuple):
        changed: Sequence[Any] = [replaced(value, by) for value in values]
        if hasattr(values, "_fields"):
            return type(values)(*changed)  # a named tuple
        return type(values)(changed)
    return values
