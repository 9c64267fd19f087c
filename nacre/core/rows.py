"""Rows inside units: flatten, regroup, and the check that no unit talks to another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nacre.core.errors import UnsupportedLayer
from nacre.core.types import Batch


def grouped(batch: Batch) -> bool:
    """Whether a unit of this batch is a group of rows."""
    return "rows" in batch


def flatten(batch: Batch) -> Batch:
    """The batch with one row an entry: (B, K, …) becomes (B * K, …), padding marked absent.

    Row k of unit i gets the number `unit[i] * K + k`, so random starts stay keyed by the row.
    A batch whose units are rows is returned as it is.
    """
    if not grouped(batch):
        return batch
    count, width = batch["rows"].shape
    flat = {
        name: value.reshape(count * width, *value.shape[2:])
        for name, value in batch.items()
        if name not in ("rows", "present", "unit")
    }
    flat["present"] = (batch["rows"] & batch["present"][:, None]).reshape(-1)
    places = torch.arange(width, device=batch["unit"].device)
    flat["unit"] = (batch["unit"][:, None] * width + places).reshape(-1)
    return flat


def per_unit(values: Tensor, batch: Batch) -> Tensor:
    """(rows,) numbers -> (B,): the mean over each unit's own rows; 0 for a unit without rows."""
    if not grouped(batch):
        return values
    mask = batch["rows"]
    filled = torch.where(mask, values.reshape(mask.shape), torch.zeros((), device=values.device))
    return filled.sum(1) / mask.sum(1).clamp(min=1)


def select(batch: Batch, index: Tensor | slice) -> Batch:
    """Some of the units of a batch."""
    return {name: value[index] for name, value in batch.items()}


def assert_rowwise(
    function: Callable[[Tensor], Tensor],  # (B, *shape) -> (B, *anything)
    inputs: Tensor,  # (B, *shape), B >= 2; public or random, never private rows
    what: str,
    *,
    tolerance: float = 1e-4,
    other: Tensor | None = None,  # (*shape): what the first row becomes; None computes one
) -> None:
    """Raises `UnsupportedLayer` where changing one row moves another row's output.

    `tolerance` is relative to the largest output: another batch may round differently.
    """
    with torch.no_grad():
        before = function(inputs)
        changed = inputs.clone()
        changed[0] = -3.0 * inputs[0] + 1.0 if other is None else other
        after = function(changed)
    if before.shape[0] != inputs.shape[0]:
        raise UnsupportedLayer(
            f"{what} returns {before.shape[0]} rows for {inputs.shape[0]}: each row needs an "
            "output of its own; keep the first dimension as the batch"
        )
    moved = float((before[1:] - after[1:]).abs().max()) if len(inputs) > 1 else 0.0
    size = max(1.0, float(before.abs().max()))
    if not moved <= tolerance * size:
        raise UnsupportedLayer(
            f"{what} mixes rows: changing one row moved another's output by {moved:.3g}, so no "
            "bound on one unit's share exists; replace batch statistics (BatchNorm) by GroupNorm "
            "or LayerNorm"
        )
