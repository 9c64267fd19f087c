"""The figure on public rows that a run may watch: it costs nothing, since the rows are public."""

from __future__ import annotations

import torch
from torch import nn

from nacre.core.parts import Task
from nacre.data.dataset import Rows


@torch.no_grad()
def figures(model: nn.Module, task: Task, rows: Rows) -> dict[str, float]:
    """Accuracy (0 to 1) and mean loss of the model on these rows, in evaluation mode."""
    mode = model.training
    model.eval()
    outputs = task.predict(model, rows.features)
    model.train(mode)
    return {
        "accuracy": float(task.correct(outputs, rows.label).float().mean()),
        "loss": float(task.row_losses(outputs, rows.label).double().mean()),
    }
