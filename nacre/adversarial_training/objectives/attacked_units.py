"""What every objective with an adversary does before a step: move the rows, and hand on numbers."""

from __future__ import annotations

from torch import nn

from nacre.core.parts import Attack
from nacre.core.random import Source
from nacre.core.types import Batch, Losses


def attacked_units(
    model: nn.Module,
    batch: Batch,  # what `perturb` was given: units
    flat: Batch,  # the same, one row an entry
    attack: Attack,
    losses: Losses,  # what the attack raises
    source: Source,
) -> Batch:
    """`batch` with the attacked features under `adversarial`, in its own layout."""
    moved = attack(model, flat, losses, source)["features"].detach()
    return {**batch, "adversarial": moved.reshape(batch["features"].shape)}
