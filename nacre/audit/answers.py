"""What a finished model answers, as an auditor reads it: in evaluation mode, nothing moved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.core.parts import Task
from nacre.core.rows import select
from nacre.core.types import Batch
from nacre.models.scoring import outputs_of, scored

CHUNK = 1024  # rows at a time: bounds the memory of activations


def existing(batch: Batch) -> Batch:
    """The rows of a flat batch that exist: padding is dropped."""
    return select(batch, batch["present"])


@torch.no_grad()
def answers(
    model: nn.Module,
    task: Task,
    features: Tensor,  # (R, *shape)
) -> Tensor:  # (R, outputs)
    """The model's outputs, without dropout."""
    with evaluating(model):
        return outputs_of(model, task, features)


def row_losses(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """(R,) float64: the loss of each row of a flat batch, without dropout."""
    with evaluating(model):
        return scored(model, task, batch["features"], batch["label"])[0]


def right(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """(R,) bool: whether each row is answered rightly; an answer that is no number is wrong."""
    with evaluating(model):
        return scored(model, task, batch["features"], batch["label"])[1]
