"""Losses that also say which rows are answered wrongly, for attacks that stop there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nacre.core.errors import Incompatible
from nacre.core.parts import Task
from nacre.core.types import Batch, Losses


@runtime_checkable
class Judged(Protocol):
    """Losses of rows, and which of them the model answers rightly, of one pass."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (R,): the losses alone."""
        ...

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (R,) losses and (R,) bool, whether each row is answered rightly."""
        ...


@dataclass(frozen=True)
class JudgedLosses:
    """A task's loss of each row. One row an entry."""

    task: Task

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (R,)"""
        return self.task.losses(model, batch)

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (R,) losses and (R,) bool."""
        outputs = self.task.predict(model, batch["features"])
        label = batch["label"]
        return self.task.row_losses(outputs, label), self.task.correct(outputs.detach(), label)


@dataclass(frozen=True)
class JudgedDivergences:
    """How far each row's outputs lie from those in the batch's `reference`. One row an entry."""

    task: Task

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (R,)"""
        outputs = self.task.predict(model, batch["features"])
        return self.task.divergence(batch["reference"], outputs)

    def judged(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (R,) divergences and (R,) bool, whether each row is answered rightly."""
        outputs = self.task.predict(model, batch["features"])
        right = self.task.correct(outputs.detach(), batch["label"])
        return self.task.divergence(batch["reference"], outputs), right


@dataclass(eq=False)
class Judging:
    """Losses that remember which rows were answered wrongly when they were last computed."""

    losses: Judged
    wrong: Tensor  # (R,) bool

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (R,)"""
        values, right = self.losses.judged(model, batch)
        self.wrong = ~right
        return values


def judging(losses: Losses) -> Judging:
    """Losses that remember who was answered wrongly. Raises `Incompatible` for losses that do not
    know an answer from a wrong one."""
    if not isinstance(losses, Judged):
        raise Incompatible(
            "early_stop ends a climb where a row is answered wrongly, and these losses do not say "
            "which rows are: give `JudgedLosses(task)`, or leave `early_stop` out"
        )
    return Judging(losses, torch.zeros(0, dtype=torch.bool))
