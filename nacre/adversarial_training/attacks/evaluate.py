"""Attacking a finished model: what an attack returns is re-projected and re-scored here."""

from __future__ import annotations

import torch
from torch import nn

from nacre.adversarial_training.attacks.ascent import evaluating, scores
from nacre.adversarial_training.threats.region import Region
from nacre.core import require, rows
from nacre.core.parts import Attack
from nacre.core.random import Source
from nacre.core.types import Batch, Losses


def attacked(
    model: nn.Module,
    batch: Batch,  # one row an entry
    losses: Losses,
    attack: Attack,
    region: Region,
    source: Source,
    *,
    chunk: int = 512,  # rows at a time, to bound memory; starts are keyed by unit, not by chunk
) -> Batch:
    """The batch with features that lie in `region` and whose loss is not below the clean one.

    *Guarantee:* an attack is not believed. Its answer is projected into the region and scored by
    us, in evaluation mode; a row whose loss fell or is no number keeps its clean features. An
    attack can thus be weak, but a figure computed from its answer is never out of reach.
    """
    require.at_least(1, chunk=chunk)
    clean = batch["features"]
    moved = [
        _portion(model, rows.select(batch, slice(i, i + chunk)), losses, attack, region, source)[
            "features"
        ]
        for i in range(0, len(clean), chunk)
    ]
    return {**batch, "features": torch.cat(moved) if moved else clean}


def _portion(
    model: nn.Module,
    batch: Batch,
    losses: Losses,
    attack: Attack,
    region: Region,
    source: Source,
) -> Batch:
    clean = batch["features"]
    moved = attack(model, batch, losses, source)["features"].detach()
    if moved.shape != clean.shape:
        shapes = f"{tuple(moved.shape)} for {tuple(clean.shape)}"
        raise ValueError(f"an attack returned features of shape={shapes}: it may not change it")
    moved = region.project(moved, clean)
    with evaluating(model):
        before = scores(model, batch, losses)
        after = scores(model, {**batch, "features": moved}, losses)
    won = (after >= before).reshape(-1, *[1] * (clean.dim() - 1))
    return {**batch, "features": torch.where(won, moved, clean)}
