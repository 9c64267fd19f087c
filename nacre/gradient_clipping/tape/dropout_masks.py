"""Dropout whose masks belong to the units: keyed by each unit's own number, not by its place.

PyTorch draws one mask for the whole batch, so taking one unit away changes the masks of those
behind it, and the clipped sum moves by far more than one unit's share. Here entry j of unit u is
kept or dropped by a stream of the step's key, the dropout's number and u alone.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.core.random import Source
from nacre.gradient_clipping.tape.function_mode import (
    CHANNEL_DROPOUTS,
    Unseen,
    Watching,
    refuse_checkpoints,
)
from nacre.gradient_clipping.tape.layout import UNANSWERED, Layout, Owner


def masked(x: Tensor, mask: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """x * mask, in place where the call asked for that."""
    in_place = kwargs.get("inplace", args[3] if len(args) > 3 else False)
    return x.mul_(mask) if in_place else x * mask


class Masks:
    """The masks of one forward pass."""

    def __init__(self, owners: Mapping[int, Owner], units: Tensor, source: Source) -> None:
        self._owners = owners  # of each dropout, in order
        self._units = units  # (B,) their own numbers
        self._source = source
        self.number = 0

    def output(
        self, function: Any, share: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        """What the next dropout of the pass gives. Raises `Unseen` for one that was not tried."""
        refuse_checkpoints()
        number, alone = self.number, len(self._units) == 1
        if number not in self._owners and not alone:
            raise Unseen("a dropout")
        owner = self._owners.get(number, Layout(0))  # a single unit owns everything
        self.number += 1
        x: Tensor = args[0]
        result = masked(x, self._mask(function, x, share, number, owner), args, kwargs)
        if owner == UNANSWERED and result.requires_grad:
            result.register_hook(_answered)
        return result

    def _mask(self, function: Any, x: Tensor, share: float, number: int, owner: Owner) -> Tensor:
        """Of the shape of `x`, or of one that broadcasts to it: 0, or 1 / (1 - share)."""
        shape = x.shape[:2] if function in CHANNEL_DROPOUTS else x.shape
        stream = self._source.child("dropout", number).stream()
        if share >= 1:
            return torch.zeros_like(x)
        if not isinstance(owner, Layout):  # nobody's rows: one mask for all units
            kept = ~stream.below(self._units.new_zeros(1), shape.numel(), share).reshape(shape)
        elif owner.axis >= len(shape):
            raise UnsupportedLayer(
                "a dropout of whole channels has its units along the channels' own axes; give its "
                "input a leading axis for the units"
            )
        else:
            kept = ~stream.below(self._units, shape.numel() // len(self._units), share)
            first = owner.axis == 0 and owner.outer == 1 and len(shape) > 0
            if first and shape[0] % len(self._units) == 0:  # nothing to be turned
                return _scaled(kept.reshape(shape), x, share)
            like = torch.empty(shape, device="meta")
            turned = owner.units_first(like, len(self._units), "a dropout").shape
            kept = owner.back(kept.reshape(turned), shape, "a dropout")
        return _scaled(kept, x, share)


def _scaled(kept: Tensor, x: Tensor, share: float) -> Tensor:
    """1 / (1 - share) for what is kept, and 0, with the axes of `x` behind those of `kept`."""
    if kept.dim() < x.dim():
        kept = kept.reshape(*kept.shape, *[1] * (x.dim() - kept.dim()))
    return kept.to(x.device, x.dtype).mul_(1 / (1 - share))


def _answered(gradient: Tensor) -> None:
    """Raises where a loss answers to a dropout that no loss answered to on trial."""
    if bool((gradient != 0).any()):
        raise UnsupportedLayer(
            "a dropout answers to a loss now and did not when the model was tried, so it is "
            "unknown whose its entries are; take the dropout out"
        )


class Masking(Watching):
    """Dropout by the units' own masks, for gradient sums without a tape.

    Without `masks` any dropout raises `Unseen`, or with `keep` drops nothing.
    """

    def __init__(self, masks: Masks | None, *, keep: bool = False) -> None:
        super().__init__()
        self._masks, self._keep = masks, keep

    def opens(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Only where a share to drop may have been given: native functions are faster."""
        return any(isinstance(v, float) and 0 < v <= 1 for v in (*args, *kwargs.values()))

    def dropout(
        self, function: Any, share: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """By the units' own masks."""
        if self._keep:
            return args[0]
        if self._masks is None:
            raise Unseen("a dropout")
        return self._masks.output(function, share, args, kwargs)
