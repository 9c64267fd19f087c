"""Adversarial training that weighs rows by how wrongly they are answered."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.adversarial_training.attacks.options import AttackOption
from nacre.adversarial_training.objectives.guard import said
from nacre.adversarial_training.objectives.searched import Searched, Searching
from nacre.core import require, rows
from nacre.core.errors import Incompatible
from nacre.core.parts import Objective, Task
from nacre.core.types import Batch, FeatureSpace


@dataclass(frozen=True, kw_only=True)
class Mart(Searching):
    """Minimise a boosted loss at the worst input, plus `beta` times how far the outputs moved,
    the more so the less sure the model is of the clean row.

    For classes only. Class weights multiply the cross-entropy alone, as in TRADES.

    *Source:* Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples", https://openreview.net/forum?id=rklOg6EFwS, equations 8 to 11, with beta = lambda.
    """

    kind: Literal["mart"] = "mart"
    attack: AttackOption
    """How the worst input is searched for; it climbs the cross-entropy."""
    beta: float = 5.0
    """Weight of the divergence against the boosted loss."""

    def __post_init__(self) -> None:
        require.not_negative(beta=self.beta)

    def sentence(self) -> str:
        """The objective and its attack."""
        words = f"MART trains on inputs moved by {self.attack.sentence()}."
        return said(words, self.ramp, self.guard)

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective on inputs of this space. Raises `Incompatible` as `Ball.region` does, and
        for a task without classes."""
        if task.kind != "classification":
            raise Incompatible(
                f"mart weighs a row by the probability of its class, and the task is {task.kind}; "
                "use `kind: trades`"
            )
        attack = self.attack.build(space)
        return Boosted(task=task, attack=attack, ramp=self.ramp, beta=self.beta)


@dataclass(frozen=True, eq=False, kw_only=True)
class Boosted(Searched):
    """The part that `Mart` builds: boosted loss at the attacked rows + beta * divergence(clean,
    attacked) * (1 - probability of the right class of the clean row)."""

    beta: float

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch that `perturb` returned; gradients flow through both outputs."""
        flat = rows.flatten(batch)
        label = flat["label"]
        moved = self.task.predict(model, flat["adversarial"])
        loss = self.task.row_losses(moved, label) + margin_loss(moved, label)
        if self.beta:
            clean = self.task.predict(model, flat["features"])
            unsure = 1 - torch.softmax(clean, dim=-1).gather(-1, label[:, None]).squeeze(-1)
            loss = loss + self.beta * self.task.divergence(clean, moved) * unsure
        return rows.per_unit(loss, batch)


def margin_loss(
    outputs: Tensor,  # (R, classes) logits
    label: Tensor,  # (R,) int64
) -> Tensor:
    """-> (R,): -log(1 - probability of the likeliest wrong class), at least 0 (equation 8).

    The sum of the other probabilities is taken in logarithms, so it is finite where 1 minus a
    probability near 1 would round to 0.

    >>> round(float(margin_loss(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([0]))), 4)
    0.4055
    >>> float(margin_loss(torch.tensor([[0.0, 200.0]]), torch.tensor([0])))
    200.0
    """
    logs = functional.log_softmax(outputs, dim=-1)
    classes = torch.arange(outputs.shape[-1], device=outputs.device)
    right = classes == label[:, None]
    wrong = logs.detach().masked_fill(right, -torch.inf).argmax(-1, keepdim=True)
    return -logs.masked_fill(classes == wrong, -torch.inf).logsumexp(-1)
