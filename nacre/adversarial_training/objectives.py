"""What a step minimises: the loss, the loss under attack, or both held together.

Each loss is a function of its own row alone, so the clipped sum over units keeps its bound. The
search for the adversarial inputs (`perturb`) happens before any gradient by the weights is taken
and hands on numbers, not a graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import evaluating
from nacre.adversarial_training.attacks.options import AttackOption
from nacre.adversarial_training.attacks.pgd import PGD
from nacre.adversarial_training.text.freelb import TEXT_OBJECTIVES, EmbeddingPGD, FreeLB
from nacre.adversarial_training.threats.ball import Ball
from nacre.core import require, rows
from nacre.core.errors import BadArgument
from nacre.core.parts import Attack, Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace, Losses


@dataclass(frozen=True, kw_only=True)
class StandardTraining:
    """No adversary: the loss of the clean rows."""

    kind: Literal["none"] = "none"

    on_tokens: ClassVar[bool] = False

    def sentence(self) -> str:
        """That no attack takes part."""
        return "The model is trained on clean inputs."

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective; the space plays no part."""
        return Standard(task)


@dataclass(frozen=True, kw_only=True)
class Madry:
    """Minimise the loss at the worst input that an attack finds.

    *Source:* Madry et al. 2018, https://arxiv.org/abs/1706.06083, equation 2.1. The share of the
    clean loss is that of Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, section 6.
    """

    kind: Literal["madry"] = "madry"
    attack: AttackOption
    """How the worst input is searched for."""
    clean_share: float = 0.0
    """Weight of the clean loss, in each row alike: 0 trains on attacked inputs only, 1 on clean."""

    on_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.clean_share <= 1:
            raise BadArgument(f"clean_share={self.clean_share} must lie between 0 and 1")

    def sentence(self) -> str:
        """The objective and its attack."""
        return f"Madry trains on inputs moved by {self.attack.sentence()}."

    @property
    def ball(self) -> Ball | None:
        """The ball that inputs are moved in."""
        return self.attack.ball

    def shortened(self, steps: int) -> tuple[Self, float]:
        """With an attack of at most `steps` steps, and how many times as long a step with the whole
        attack takes."""
        attack, longer = self.attack.shortened(steps)
        return replace(self, attack=attack), longer

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        return WorstCase(task, self.attack.build(space), self.clean_share)


@dataclass(frozen=True, kw_only=True)
class Trades:
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

    on_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require.not_negative(beta=self.beta)
        if not self.attack.random_start:
            raise BadArgument(
                "attack.random_start=False leaves the search where the divergence has no "
                "gradient: set `random_start: true`"
            )

    def sentence(self) -> str:
        """The objective and its attack."""
        return f"TRADES trains on inputs moved by {self.attack.sentence()}."

    @property
    def ball(self) -> Ball | None:
        """The ball that inputs are moved in."""
        return self.attack.ball

    def shortened(self, steps: int) -> tuple[Self, float]:
        """With an attack of at most `steps` steps, and how many times as long a step with the whole
        attack takes."""
        attack, longer = self.attack.shortened(steps)
        return replace(self, attack=attack), longer

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does."""
        return Consistent(task, self.attack.build(space), self.beta)


@dataclass(frozen=True, eq=False)
class Standard:
    """The task's own loss."""

    task: Task

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch as it is."""
        return batch

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,)"""
        return self.task.losses(model, batch)


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The part that `Madry` builds: each unit's loss at its attacked rows.

    With a share of clean loss it is that share of the clean loss plus the rest of the attacked
    one, in the same unit: nothing depends on which other units were drawn.
    """

    task: Task
    attack: Attack
    clean_share: float

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The batch with `adversarial`, shaped as `features`; a group is attacked row by row."""
        if self.clean_share == 1:
            return batch
        return _attacked(model, batch, rows.flatten(batch), self.attack, self.task.losses, source)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch that `perturb` returned."""
        share = self.clean_share
        if share == 1:
            return self.task.losses(model, batch)
        moved = self.task.losses(model, {**batch, "features": batch["adversarial"]})
        if share == 0:
            return moved
        return share * self.task.losses(model, batch) + (1 - share) * moved


@dataclass(frozen=True, eq=False)
class Consistent:
    """The part that `Trades` builds: clean loss + beta * divergence(clean, attacked)."""

    task: Task
    attack: Attack
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
        searched = {**flat, "reference": reference}
        return _attacked(model, batch, searched, self.attack, self._divergence, source)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch that `perturb` returned; gradients flow through both outputs."""
        if self.beta == 0:
            return self.task.losses(model, batch)
        flat = rows.flatten(batch)
        clean = self.task.predict(model, flat["features"])
        moved = self.task.predict(model, flat["adversarial"])
        loss = self.task.row_losses(clean, flat["label"])
        return rows.per_unit(loss + self.beta * self.task.divergence(clean, moved), batch)

    def _divergence(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs = self.task.predict(model, batch["features"])
        return self.task.divergence(batch["reference"], outputs)


def _attacked(
    model: nn.Module,
    batch: Batch,  # what `perturb` was given: units
    flat: Batch,  # the same, one row an entry
    attack: Attack,
    losses: Losses,  # what the attack raises
    source: Source,
) -> Batch:
    """`batch` with the attacked features under `adversarial`, in its own layout."""
    moved = attack(model, flat, losses, source)["features"].detach()
    return {**batch, "adversarial": moved.reshape(batch["features"].shape)}


ObjectiveOption = StandardTraining | Madry | Trades | FreeLB | EmbeddingPGD

INPUT_OBJECTIVES = (StandardTraining, Madry, Trades)
"""Objectives of models that read numbers."""

OBJECTIVES = (*INPUT_OBJECTIVES, *TEXT_OBJECTIVES)
"""Every objective that a recipe can name; the laws run over them."""
