"""A model's answers beside what was right, as the figures read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Reals = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassAnswers:
    """Probabilities of classes beside the right class, row by row."""

    probabilities: Reals
    """(N, K); rows sum to 1. A row of NaN stands for an answer that is no number."""
    label: Ints
    """(N,) from 0 to K - 1."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def classes(self) -> int:
        """K."""
        return self.probabilities.shape[1]

    @property
    def guessed(self) -> Ints:
        """(N,) the likeliest class of each row; -1, which is none, where it is no number."""
        numbers = self.whole
        known = np.where(numbers[:, None], self.probabilities, 0.0)
        return np.where(numbers, known.argmax(1), -1)

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a row's answer is made of numbers."""
        return np.logical_and.reduce(np.isfinite(self.probabilities), axis=1)

    @property
    def occurring(self) -> list[int]:
        """The classes that are right for at least one row."""
        found: list[int] = np.unique(self.label).tolist()
        return found

    def take(self, rows: npt.NDArray[np.bool_]) -> ClassAnswers:
        """The answers to some of the rows."""
        return ClassAnswers(self.probabilities[rows], self.label[rows])


@dataclass(frozen=True)
class NumberAnswers:
    """Predicted numbers beside the right ones, row by row."""

    predicted: Reals
    """(N,) in the unit of the target."""
    label: Reals
    """(N,) in the unit of the target."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a row's answer is a number."""
        return np.isfinite(self.predicted)

    def take(self, rows: npt.NDArray[np.bool_]) -> NumberAnswers:
        """The answers to some of the rows."""
        return NumberAnswers(self.predicted[rows], self.label[rows])


AnyAnswers = ClassAnswers | NumberAnswers


def answers_of(
    task: str,
    outputs: Tensor,  # (N, K) logits, or (N, 1) numbers
    label: Tensor,  # (N,)
) -> AnyAnswers | None:
    """What a model put out, as answers; None for a task that has no such figures, as tokens."""
    known = label.detach().cpu().numpy()
    if task == "classification":
        probabilities = torch.softmax(outputs.detach().double().cpu(), dim=1)
        return ClassAnswers(probabilities.numpy(), known.astype(np.int64))
    if task == "regression":
        predicted = outputs.detach().double().cpu().squeeze(-1).numpy()
        return NumberAnswers(predicted, known.astype(np.float64))
    return None
