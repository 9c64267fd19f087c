"""Dropout whose masks belong to the units: keyed by each unit's own number, not by its place.

PyTorch draws one mask for the whole batch, so taking one unit away changes the masks of those
behind it, and the clipped sum moves by far more than one unit's share. Here entry j of unit u is
kept or dropped by a stream of the step's key, the dropout's number and u alone.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nacre.core.random import Source
from nacre.gradient_clipping.hidden import opened
from nacre.gradient_clipping.layout import Layout

_AXES = {
    functional.dropout: 0,
    torch.dropout: 0,
    functional.dropout1d: 1,
    functional.dropout2d: 2,
    functional.dropout3d: 3,
}
"""Dropouts, and how many trailing axes share one draw."""


def dropped(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """The share that this call drops; None for a call that drops nothing, or is no dropout."""
    if function not in _AXES:
        return None
    train_default = function is not functional.dropout1d
    p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    training = kwargs.get(
        "training", kwargs.get("train", args[2] if len(args) > 2 else train_default)
    )
    return float(p) if training and p > 0 else None


def masked(x: Tensor, mask: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """x * mask, in place where the call asked for that."""
    in_place = kwargs.get("inplace", args[3] if len(args) > 3 else False)
    return x.mul_(mask) if in_place else x * mask


class Masks:
    """The masks of one forward pass."""

    def __init__(self, layouts: Mapping[int, Layout | None], units: Tensor, source: Source) -> None:
        self._layouts = layouts
        self._units = units  # (B,) their own numbers
        self._source = source
        self._number = 0

    def known(self) -> bool:
        """Whether the next dropout was seen when the model was tried; one unit owns everything."""
        return self._number in self._layouts or len(self._units) == 1

    def draw(self, function: Any, x: Tensor, p: float) -> Tensor:
        """Of the shape of `x`, or of one that broadcasts to it: 0, or 1 / (1 - p)."""
        shape = x.shape[: x.dim() - _AXES[function]]
        layout = self._layouts.get(self._number, Layout(0))
        stream = self._source.child("dropout", self._number).stream()
        self._number += 1
        if p >= 1:
            return torch.zeros_like(x)
        if layout is None or layout.axis >= len(shape):  # nobody's row: one mask for all
            kept = ~stream.below(self._units.new_zeros(1), shape.numel(), p)
            kept = kept.reshape(shape)
        else:
            width = shape.numel() // len(self._units)
            kept = ~stream.below(self._units, width, p)
            like = torch.empty(shape, device="meta")
            first = layout.units_first(like, len(self._units), "a dropout").shape
            kept = layout.back(kept.reshape(first), shape, "a dropout")
        kept = kept.reshape(*shape, *[1] * _AXES[function]).to(x.device)
        return kept.to(x.dtype).mul_(1 / (1 - p))


class Unseen(Exception):
    """An operation or a dropout that was not seen when the model was tried."""


class Masking(TorchFunctionMode):
    """Dropout by the units' own masks, for gradient sums without a tape.

    Without `masks` any dropout raises `Unseen`, or with `keep` drops nothing.
    """

    def __init__(self, masks: Masks | None, *, keep: bool = False) -> None:
        super().__init__()
        self._masks, self._keep = masks, keep

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        inside = opened(func, args, kwargs)
        if inside is not None and _drops(args, kwargs):
            with self:
                return inside(*args, **kwargs)
        share = dropped(func, args, kwargs)
        if share is None:
            return func(*args, **kwargs)
        if self._keep:
            return args[0]
        if self._masks is None or not self._masks.known():
            raise Unseen("a dropout")
        return masked(args[0], self._masks.draw(func, args[0], share), args, kwargs)


def _drops(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function that hides others may drop something: it was given a share to drop."""
    return any(isinstance(v, float) and 0 < v <= 1 for v in (*args, *kwargs.values()))
