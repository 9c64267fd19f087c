"""What a model's outputs mean, row by row: classes, numbers, next tokens, a class a token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.core.rows import flatten, per_unit
from nacre.core.types import Batch


class _OfRows(ABC):
    """What every task here does alike: a model answers row by row, and a unit's loss is the mean of
    those of its rows."""

    @abstractmethod
    def sentence(self) -> str:
        """What an answer is, and what a row's loss is."""

    @abstractmethod
    def row_losses(self, outputs: Tensor, label: Tensor) -> Tensor:
        """-> (R,): the loss of each row."""

    def predict(self, model: nn.Module, features: Tensor) -> Tensor:
        """(R, *shape) -> (R, …, outputs): what the model answers."""
        outputs: Tensor = model(features)
        return outputs

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,): the loss of each unit, averaged over its own rows."""
        rows = flatten(batch)
        outputs = self.predict(model, rows["features"])
        return per_unit(self.row_losses(outputs, rows["label"]), batch)


@dataclass(frozen=True)
class Classification(_OfRows):
    """Outputs are logits (R, classes); the loss of a row is its cross-entropy, in nats.

    >>> import torch
    >>> task = Classification(2)
    >>> logits = torch.tensor([[0.0, 0.0], [2.0, -2.0]])
    >>> [round(x, 4) for x in task.row_losses(logits, torch.tensor([0, 0])).tolist()]
    [0.6931, 0.0181]
    """

    classes: int
    weights: tuple[float, ...] = ()
    """What the loss of a row of each class is multiplied by; () for 1."""
    kind: Literal["classification"] = "classification"

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.classes

    def sentence(self) -> str:
        """The classes and the cross-entropy."""
        weighted = " weighted by class" if self.weights else ""
        return f"one of {self.classes} classes, by cross-entropy{weighted}"

    def row_losses(
        self,
        outputs: Tensor,  # (R, classes)
        label: Tensor,  # (R,) int64
    ) -> Tensor:
        """-> (R,): minus the log-probability of the right class, times the class's weight."""
        weights = None
        if self.weights:
            weights = torch.tensor(self.weights, dtype=outputs.dtype, device=outputs.device)
        return functional.cross_entropy(outputs, label, weights, reduction="none")

    def divergence(self, reference: Tensor, outputs: Tensor) -> Tensor:
        """(R, classes) twice -> (R,): KL(reference ‖ outputs) of the class probabilities."""
        known = functional.log_softmax(reference, dim=-1)
        return (known.exp() * (known - functional.log_softmax(outputs, dim=-1))).sum(-1)

    def correct(self, outputs: Tensor, label: Tensor) -> Tensor:
        """-> (R,) bool: whether the largest logit is that of the right class."""
        return outputs.argmax(-1) == label


@dataclass(frozen=True)
class Regression(_OfRows):
    """Outputs are values (R, 1); the loss of a row is its squared error."""

    tolerance: float = 0.5
    """Largest error of an answer that counts as right, in units of the target."""
    kind: Literal["regression"] = "regression"

    @property
    def outputs(self) -> int:
        """One value."""
        return 1

    def sentence(self) -> str:
        """A number and its squared error."""
        return "a number, by squared error"

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


_UNCOUNTED = -100  # the label of a position that is not learnt: padding, or a prompt


def _own_mean(
    logits: Tensor,  # (R, T, K)
    label: Tensor,  # (R, T) int64
) -> Tensor:
    """-> (R,): each row's mean cross-entropy over its own counted positions; 0 where none counts.

    The divisor is the row's own, so no row's share depends on how long the others are.
    """
    each = functional.cross_entropy(logits.mT, label, ignore_index=_UNCOUNTED, reduction="none")
    return each.sum(1) / (label != _UNCOUNTED).sum(1).clamp(min=1)


def _own_divergence(reference: Tensor, outputs: Tensor) -> Tensor:
    """(R, T, K) twice -> (R,): the mean of KL(reference ‖ outputs) over the positions."""
    known = functional.log_softmax(reference, dim=-1)
    each = (known.exp() * (known - functional.log_softmax(outputs, dim=-1))).sum(-1)
    return each.mean(1)


def _mostly_right(logits: Tensor, label: Tensor) -> Tensor:
    """(R, T, K), (R, T) -> (R,) bool: whether more than half of the counted positions are right."""
    counted = label != _UNCOUNTED
    right = (logits.argmax(-1) == label) & counted
    return 2 * right.sum(1) > counted.sum(1)


@dataclass(frozen=True)
class CausalLM(_OfRows):
    """Outputs are logits (R, T, vocabulary) of the token after each position; the loss of a row is
    its mean cross-entropy, in nats.

    >>> import torch
    >>> task = CausalLM(4)
    >>> logits, label = torch.zeros(1, 3, 4), torch.tensor([[2, 1, -100]])
    >>> [round(x, 4) for x in task.row_losses(logits, label).tolist()]
    [1.3863]
    """

    vocabulary: int
    kind: Literal["causal_lm"] = "causal_lm"

    @property
    def outputs(self) -> int:
        """The size of the vocabulary."""
        return self.vocabulary

    def sentence(self) -> str:
        """The vocabulary and the mean cross-entropy of a row."""
        return f"the next of {self.vocabulary} tokens, by the mean cross-entropy of a row"

    def row_losses(
        self,
        outputs: Tensor,  # (R, T, K)
        label: Tensor,  # (R, T) int64: the token itself, -100 where it does not count
    ) -> Tensor:
        """-> (R,): minus the log-probability of the counted tokens, averaged over that row's own.

        The first token of a row follows nothing, so it never counts; 0 for a row without any.
        """
        return _own_mean(outputs[:, :-1], label[:, 1:])

    def divergence(self, reference: Tensor, outputs: Tensor) -> Tensor:
        """(R, T, K) twice -> (R,): KL(reference ‖ outputs), averaged over all positions."""
        return _own_divergence(reference, outputs)

    def correct(self, outputs: Tensor, label: Tensor) -> Tensor:
        """-> (R,) bool: whether the likeliest token is the right one at more than half of the
        counted places."""
        return _mostly_right(outputs[:, :-1], label[:, 1:])


@dataclass(frozen=True)
class TokenClassification(_OfRows):
    """Outputs are logits (R, T, classes) at each position; the loss of a row is its mean
    cross-entropy, in nats."""

    classes: int
    kind: Literal["token_classification"] = "token_classification"

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.classes

    def sentence(self) -> str:
        """The classes of a token and the mean cross-entropy of a row."""
        return f"one of {self.classes} classes for each token, by the mean cross-entropy of a row"

    def row_losses(
        self,
        outputs: Tensor,  # (R, T, classes)
        label: Tensor,  # (R, T) int64, -100 where a position does not count
    ) -> Tensor:
        """-> (R,): minus the log-probability of the right classes, averaged over that row's own
        counted positions; 0 for a row without any."""
        return _own_mean(outputs, label)

    def divergence(self, reference: Tensor, outputs: Tensor) -> Tensor:
        """(R, T, classes) twice -> (R,): KL(reference ‖ outputs), averaged over all positions."""
        return _own_divergence(reference, outputs)

    def correct(self, outputs: Tensor, label: Tensor) -> Tensor:
        """-> (R,) bool: whether more than half of the counted positions are right."""
        return _mostly_right(outputs, label)


TaskKind = Literal["classification", "regression", "causal_lm", "token_classification"]


def task_for(kind: TaskKind, outputs: int) -> AnyTask:
    """The task of a schema: its kind, and the width of the model's output."""
    match kind:
        case "classification":
            return Classification(outputs)
        case "regression":
            return Regression()
        case "causal_lm":
            return CausalLM(outputs)
        case "token_classification":
            return TokenClassification(outputs)


AnyTask = Classification | Regression | CausalLM | TokenClassification

TASKS: tuple[type[AnyTask], ...] = get_args(AnyTask)
"""Every task; the laws run over them."""
