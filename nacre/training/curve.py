"""The figure on public rows that a run may watch: it costs nothing, since the rows are public."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from nacre.core.parts import Task
from nacre.data.dataset import Rows
from nacre.models.scoring import scored


def figure_in_words(point: Mapping[str, float], task: str) -> str:
    """The figure of a point in words: the loss of numbers and tokens, the accuracy of classes.

    >>> figure_in_words({"accuracy": 0.5, "loss": 0.7}, "classification")
    'public accuracy 50.0%'
    """
    if task in ("causal_lm", "regression"):
        return f"public loss {point['loss']:.3g}"
    return f"public accuracy {point['accuracy']:.1%}"


def figures(model: nn.Module, task: Task, rows: Rows) -> dict[str, float]:
    """Accuracy (0 to 1) and mean loss of the model on these rows, in evaluation mode."""
    mode = model.training
    model.eval()
    losses, right = scored(model, task, rows.features, rows.label)
    model.train(mode)
    return {"accuracy": float(right.double().mean()), "loss": float(losses.mean())}
