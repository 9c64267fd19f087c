"""The part of a model that steps train, where its beginning is fixed and computed once per row."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from nacre.data.dataset import Schema
from nacre.models.scattering import Scattered
from nacre.recipe.schema import Recipe
from nacre.training import pieces

_SHARE = 4  # the features of all rows may take this part of the memory


def trained_part(
    recipe: Recipe,
    model: nn.Module,
    schema: Schema,
    memory: int | None = None,  # bytes; None for those of this machine
) -> tuple[nn.Module, Schema]:
    """The part of the model that steps pass through, and what its inputs look like.

    The model itself where it has no fixed beginning, where a step moves its inputs (adversarial
    training, augmentation), where parties train it, or where the features of all rows would take
    more than a quarter of the memory.
    """
    moved = recipe.adversarial_training is not None or recipe.training.augment is not None
    if not isinstance(model, Scattered) or moved or recipe.federated_learning is not None:
        return model, schema
    with torch.no_grad():
        features = model.beginning(torch.zeros(1, *schema.shape))
    rows = recipe.data.size * _rows_per_unit(recipe)
    if 4 * rows * features.numel() * _SHARE > (memory or pieces.physical_memory()):
        return model, schema
    shape = tuple(features.shape[1:])
    return model.rest, replace(schema, shape=shape, columns=(), low=None, high=None)


def _rows_per_unit(recipe: Recipe) -> int:
    privacy = recipe.differential_privacy
    return (privacy.rows_per_unit if privacy is not None else None) or 1
