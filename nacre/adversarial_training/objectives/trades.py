"""The clean loss, and how far an attack can move the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.adversarial_training.attacks.judged import JudgedDivergences
from nacre.adversarial_training.attacks.pgd import PGD
from nacre.adversarial_training.objectives.attacked_units import attacked_units
from nacre.adversarial_training.objectives.guard import said
from nacre.adversarial_training.objectives.searched import Searched, Searching
from nacre.core import require, rows
from nacre.core.errors import BadArgument
from nacre.core.parts import Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace


@dataclass(frozen=True, kw_only=True)
class Trades(Searching):
    """Minimise the clean loss plus `beta` times how far an attack can move the outputs.

    *Source:* Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and
    Accuracy", https://arxiv.org/abs/1901.08573, equation 5, with beta = 1 / lambda.
    """

    kind: Literal["trades"] = "trades"
    attack: PGD
    """The search, which climbs the divergence. It starts at random: at the clean input the
    divergence is smallest and has no gradient, so neither FGSM nor a clean start could move."""
    beta: float = 6.0
    """Weight of the divergence against the clean loss."""

    def __post_init__(self) -> None:
        require.not_negative(beta=self.beta)
        if not self.attack.random_start:
            raise BadArgument(
                "attack.random_start=False leaves the search where the divergence has no "
                "gradient: set `random_start: true`"
            )

    def sentence(self) -> str:
        """The objective and its attack."""
        words = f"TRADES trains on inputs moved by {self.attack.sentence()}."
        return said(words, self.ramp, self.guard)

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        attack = self.attack.build(space)
        return Consistent(task=task, attack=attack, ramp=self.ramp, beta=self.beta)


@dataclass(frozen=True, eq=False, kw_only=True)
class Consistent(Searched):
    """The part that `Trades` builds: clean loss + beta * divergence(clean, attacked)."""

    beta: float

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch with `adversarial`: rows moved to where the outputs change most.

        The clean outputs that the search climbs away from are constants, in evaluation mode; they
        travel in the batch, so an attack may take its rows in any portions.
        """
        if self.beta == 0:
            return batch
        flat = rows.flatten(batch)
        with evaluating(model), torch.no_grad():
            reference = self.task.predict(model, flat["features"])
        known = {**flat, "reference": reference}
        away = JudgedDivergences(self.task)
        return attacked_units(model, batch, known, self.attack, away, source)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch that `perturb` returned; gradients flow through both outputs."""
        if self.beta == 0:
            return self.task.losses(model, batch)
        flat = rows.flatten(batch)
        clean = self.task.predict(model, flat["features"])
        moved = self.task.predict(model, flat["adversarial"])
        loss = self.task.row_losses(clean, flat["label"])
        return rows.per_unit(loss + self.beta * self.task.divergence(clean, moved), batch)
