"""A function mode that sees every function of torch in a forward pass, and refuses what no gradient
sum can follow: lookups that rescale their table, and checkpointed regions."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nacre.core.errors import UnsupportedLayer
from nacre.gradient_clipping.tape.composite_functions import (
    inside_of,
    reads_packed,
    refuse_dropout_inside,
)
from nacre.gradient_clipping.tape.flow import WEIGHTS, Flow

ENTRY_DROPOUTS = (functional.dropout, torch.dropout)

CHANNEL_DROPOUTS = (functional.dropout1d, functional.dropout2d, functional.dropout3d)
"""Dropouts that keep or drop the whole of a row's channel: one draw for the first two axes."""

_LOOKUPS = {functional.embedding: 3, functional.embedding_bag: 4}
"""Lookups that may rescale their table, and where `max_norm` stands among their arguments."""

_MARK = torch.Tensor.requires_grad.__set__  # pyright: ignore[reportAttributeAccessIssue]


class Unseen(Exception):
    """An operation or a dropout that was not seen when the model was tried."""


class Watching(TorchFunctionMode):
    """Sees every function of torch, those inside functions that hide others too.

    What drops something goes to `dropout`, everything else to `call`.
    """

    flow: Flow = Flow()  # where tensors come from; nothing is marked for a mode that follows none

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        refuse_renormalising(func, args, kwargs)
        if _marks_again(func, args):
            return None
        if reads_packed(func, args):
            refuse_dropout_inside(args)
            return self.packed(func, args, kwargs)
        inside = inside_of(func, args, kwargs, self.learnt)
        if inside is not None and self.opens(func, args, kwargs):
            with self:
                return inside(*args, **kwargs)
        share = _dropped(func, args, kwargs)
        if share is not None:
            return self.dropout(func, share, args, kwargs)
        return self.call(func, args, kwargs)

    def learnt(self, tensor: Tensor) -> bool:
        """Whether a tensor is a weight that moves, or computed from such weights alone: on trial
        and on every batch by where it comes from."""
        return tensor.requires_grad and self.flow.level(tensor) == WEIGHTS

    def opens(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a function that hides others has to be looked into."""
        return True

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of a call."""
        return function(*args, **kwargs)

    def packed(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of a recurrent layer that reads a packed tensor."""
        return self.call(function, args, kwargs)

    def dropout(
        self, function: Any, share: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """The result of a call that drops this share."""
        raise NotImplementedError


def refuse_renormalising(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raises `UnsupportedLayer` before a lookup with `max_norm` writes into its table: the rows
    that it would rescale are those which the private rows name, and no noise covers that."""
    place = _LOOKUPS.get(function)
    if place is None:
        return
    limit = kwargs.get("max_norm", args[place] if len(args) > place else None)
    if limit is not None:
        raise UnsupportedLayer(
            "an embedding with `max_norm` writes into its own table in the forward pass, at "
            "exactly the rows that the batch holds, and no noise covers that; leave it out"
        )


def _marks_again(function: Any, args: tuple[Any, ...]) -> bool:
    """Whether a model marks its input as differentiable (`h.requires_grad = True`) that is so
    already: a trial differentiates inputs, and torch refuses the mark on what is no leaf."""
    if function != _MARK or len(args) < 2 or args[1] is not True:
        return False
    return bool(args[0].requires_grad and not args[0].is_leaf)


def _dropped(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """The share that this call drops; None for a call that drops nothing, or is no dropout."""
    if function not in ENTRY_DROPOUTS and function not in CHANNEL_DROPOUTS:
        return None
    p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    default = args[2] if len(args) > 2 else function is not functional.dropout1d
    training = kwargs.get("training", kwargs.get("train", default))
    return float(p) if training and p > 0 else None


def refuse_checkpoints() -> None:
    """Raises `UnsupportedLayer` inside a region that is computed a second time, since nothing
    looks then: a tape would miss operations, and dropout would draw by place."""
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        raise UnsupportedLayer(
            "activation checkpointing (or another hook on saved tensors) computes operations a "
            "second time where nothing looks; switch it off, as by "
            "`gradient_checkpointing_disable()`, and use `gradients: ghost` to save memory"
        )
