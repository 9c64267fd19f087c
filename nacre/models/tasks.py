"""What a model's outputs mean: classification and regression, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from nacre.core.rows import flatten, per_unit
from nacre.core.types import Batch


def _predict(model: nn.Module, features: Tensor) -> Tensor:
    outputs: Tensor = model(features)
    return outputs


@dataclass(frozen=True)
class Classification:
    """Outputs are logits; the loss of a row is its cross-entropy, in nats.

    >>> import torch
    >>> task = Classification(2)
    >>> logits = torch.tensor([[0.0, 0.0], [2.0, -2.0]])
    >>> [round(x, 4) for x in task.row_losses(logits, torch.tensor([0, 0])).tolist()]
    [0.6931, 0.0181]
    """

    classes: int
    kind: Literal["classification"] = "classification"

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.classes

    def predict(self, model: nn.Module, features: Tensor) -> Tensor:
        """(R, *shape) -> (R, classes): the logits."""
        return _predict(model, features)

    def row_losses(
        self,
        outputs: Tensor,  # (R, classes)
        label: Tensor,  # (R,) int64
    ) -> Tensor:
        """-> (R,): minus the log-probability of the right class."""
        return functional.cross_entropy(outputs, label, reduction="none")

    def divergence(self, reference: Tensor, outputs: Tensor) -> Tensor:
        """(R, classes) twice -> (R,): KL(reference ‖ outputs) of the class probabilities."""
        known = functional.log_softmax(reference, dim=-1)
        return (known.exp() * (known - functional.log_softmax(outputs, dim=-1))).sum(-1)

    def correct(self, outputs: Tensor, label: Tensor) -> Tensor:
        """-> (R,) bool: whether the largest logit is that of the right class."""
        return outputs.argmax(-1) == label

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,): the loss of each unit, averaged over its own rows."""
        rows = flatten(batch)
        outputs = self.predict(model, rows["features"])
        return per_unit(self.row_losses(outputs, rows["label"]), batch)


@dataclass(frozen=True)
class Regression:
    """Outputs are values; the loss of a row is its squared error."""

    tolerance: float = 0.5
    """Largest error of an answer that counts as right, in units of the target."""
    kind: Literal["regression"] = "regression"

    @property
    def outputs(self) -> int:
        """One value."""
        return 1

    def predict(self, model: nn.Module, features: Tensor) -> Tensor:
        """(R, *shape) -> (R, 1): the values."""
        return _predict(model, features)

    def row_losses(
        self,
        outputs: Tensor,  # (R, 1)
        label: Tensor,  # (R,) float32
    ) -> Tensor:
        """-> (R,): the squared error."""
        return (outputs.squeeze(-1) - label).square()

    def divergence(self, reference: Tensor, outputs: Tensor) -> Tensor:
        """(R, 1) twice -> (R,): the squared distance."""
        return (outputs - reference).square().sum(-1)

    def correct(self, outputs: Tensor, label: Tensor) -> Tensor:
        """-> (R,) bool: whether the error is at most `tolerance`."""
        return (outputs.squeeze(-1) - label).abs() <= self.tolerance

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,): the loss of each unit, averaged over its own rows."""
        rows = flatten(batch)
        outputs = self.predict(model, rows["features"])
        return per_unit(self.row_losses(outputs, rows["label"]), batch)


def task_for(kind: Literal["classification", "regression"], outputs: int) -> AnyTask:
    """The task of a schema: its kind, and the width of the model's output."""
    return Classification(outputs) if kind == "classification" else Regression()


AnyTask = Classification | Regression
