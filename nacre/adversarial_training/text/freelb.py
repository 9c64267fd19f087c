"""Training on tokens whose embeddings an adversary moves.

Each loss is a function of its own row alone: where the climb starts is keyed by the row's unit,
and each step follows the gradient of that row's loss by that row's own embeddings.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportPrivateImportUsage=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.ascent import WIDTH, evaluating
from nacre.adversarial_training.text.embedding import Embedding
from nacre.adversarial_training.text.table import cut_embeddings, moved_embeddings, token_table
from nacre.adversarial_training.threats.ball import Ball
from nacre.core import require, rows
from nacre.core.parts import Objective, Task
from nacre.core.random import Source
from nacre.core.types import Batch, FeatureSpace, Tensors


@dataclass(frozen=True, kw_only=True)
class _Climbing:
    """The keys that both options share."""

    threat: Embedding
    """How far embeddings may move."""
    steps: int
    step_size: float | None = None
    """Length of a step as a share of the radius; None takes 2.5 / steps."""

    on_tokens: ClassVar[bool] = True
    ramp: ClassVar[None] = None
    guard: ClassVar[None] = None

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps)
        require.up_to(2, WIDTH, step_size=self.step_size)

    @property
    def ball(self) -> Ball | None:
        """None: no input is moved by a radius."""
        return None

    @property
    def step(self) -> float:
        """The length of a step, as a share of the radius."""
        return 2.5 / self.steps if self.step_size is None else self.step_size


@dataclass(frozen=True, kw_only=True)
class FreeLB(_Climbing):
    """Minimise the mean loss at all points of a climb in embedding space.

    Where nothing clips single rows, a point's gradients by weights and by embeddings come from one
    backward pass, so a step costs `steps` ordinary ones. Rows that are clipped one by one are
    climbed first, in evaluation mode, and differentiated afterwards, all points of a row together.

    *Source:* Zhu et al. 2020, "FreeLB: Enhanced Adversarial Training for Natural Language
    Understanding", https://arxiv.org/abs/1909.11764, algorithm 1; with one dropout mask for all
    points of a step, as its section 3.3.
    """

    kind: Literal["freelb"] = "freelb"
    steps: int = 3
    """Points of the climb; the first is random."""

    def sentence(self) -> str:
        """The objective, its points and its ball."""
        return f"FreeLB trains on {self.steps} points of a climb inside {self.threat.sentence()}."

    def shortened(self, steps: int) -> tuple[Self, float]:
        """At most `steps` points, and how many times as long a step with all of them takes."""
        short = replace(self, steps=min(self.steps, steps))
        return short, self.steps / short.steps

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective; the space plays no part."""
        return EmbeddingClimb(task, self.threat, self.steps - 1, self.step, every=True)


@dataclass(frozen=True, kw_only=True)
class EmbeddingPGD(_Climbing):
    """Minimise the loss at the end of a climb in embedding space.

    *Source:* Miyato, Dai & Goodfellow 2017, "Adversarial Training Methods for Semi-Supervised Text
    Classification", https://arxiv.org/abs/1605.07725, equation 5, with the steps of Madry et al.
    2018.
    """

    kind: Literal["embedding_pgd"] = "embedding_pgd"
    steps: int = 3
    """Gradient steps, from a random point."""

    def sentence(self) -> str:
        """The objective, its steps and its ball."""
        return (
            f"Embedding PGD trains on embeddings moved by {self.steps} steps inside "
            f"{self.threat.sentence()}."
        )

    def shortened(self, steps: int) -> tuple[Self, float]:
        """At most `steps` steps, and how many times as long a step of training with all of them
        takes: each is a pass through the model, and so is the loss that follows."""
        short = replace(self, steps=min(self.steps, steps))
        return short, (1 + self.steps) / (1 + short.steps)

    def build(self, task: Task, space: FeatureSpace) -> Objective:
        """The objective; the space plays no part."""
        return EmbeddingClimb(task, self.threat, self.steps, self.step, every=False)


@dataclass(frozen=True, eq=False)
class EmbeddingClimb:
    """The part that both options build: a climb, and the loss at all of its points or at its end.

    `perturb` adds `adversarial` (B, P, T, D), or (B, K, P, T, D) for groups: P points of each row.
    """

    task: Task
    threat: Embedding
    moves: int  # steps from one point to the next
    step: float  # length of one, as a share of the radius
    every: bool  # whether each point is learnt, or the last one alone

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """The climb in evaluation mode, by passes of its own; nothing of the model changes."""
        flat = rows.flatten(batch)
        with evaluating(model):
            points = [self._start(model, flat, source)]
            for _ in range(self.moves):
                points.append(self._next(model, flat, points[-1]))
        kept = torch.stack(points if self.every else points[-1:], 1)
        shape = batch["features"].shape[: _axes(batch)]
        return {**batch, "adversarial": kept.reshape(*shape, *kept.shape[1:])}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """-> (B,), of a batch with `adversarial`: the mean over the points of each row."""
        flat = rows.flatten(batch)
        return rows.per_unit(self._row_losses(model, flat, flat["adversarial"]), batch)

    def descend(
        self,
        losses: Callable[[Batch], Tensor],  # `self.losses` at these parameters
        model: nn.Module,
        parameters: Tensors,
        batch: Batch,
        source: Source,
    ) -> Tensors | None:
        """name -> the gradient of the sum of `losses` over the batch, the climb included; None
        where the climb shares no pass with it.

        Each point is one forward and one backward pass, which gives both gradients. It is the
        gradient of what `perturb` and `losses` give, but the climb sees the step's own dropout.
        """
        if not self.every:
            return None
        flat = rows.flatten(batch)
        shape, weights = batch["features"].shape[: _axes(batch)], [*parameters.values()]
        real, count = flat["features"] >= 0, self.moves + 1
        point = self._start(model, flat, source)
        sloped, total = torch.zeros_like(point), _Total(parameters)
        random = torch.get_rng_state()
        with cut_embeddings(token_table(model)) as embedded:
            for number in range(count):
                torch.set_rng_state(random)  # each point sees the same dropout
                with torch.enable_grad():
                    leaf = point.requires_grad_()
                    here = {**batch, "adversarial": leaf.reshape(*shape, 1, *leaf.shape[1:])}
                    loss = losses(here).sum() / count
                slope, *rest = torch.autograd.grad(loss, [leaf, *weights], allow_unused=True)
                total.add(rest)
                if slope is None:  # pyright: ignore[reportUnnecessaryComparison]
                    continue  # no row holds a token
                sloped += slope
                if number < self.moves:
                    point = self.threat.climb(point.detach(), slope, self.step, real)
        if embedded[0].requires_grad:
            total.add(torch.autograd.grad(embedded[0], weights, sloped, allow_unused=True))
        return total.named()

    def _start(self, model: nn.Module, flat: Batch, source: Source) -> Tensor:
        """(R, T, D), keyed by each row's unit."""
        real = flat["features"] >= 0
        width = token_table(model).embedding_dim
        stream = source.child("start", "embeddings").stream()
        return self.threat.start(stream.rows(flat["unit"], real.shape[1] * width), real)

    def _next(self, model: nn.Module, flat: Batch, point: Tensor) -> Tensor:
        """(R, T, D): the point after this one, uphill on each row's own loss."""
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            values = self._row_losses(model, flat, leaf[:, None])
            (gradient,) = torch.autograd.grad(
                values.sum(), leaf, allow_unused=True, materialize_grads=True
            )
        return self.threat.climb(point, gradient, self.step, flat["features"] >= 0)

    def _row_losses(
        self,
        model: nn.Module,
        flat: Batch,  # one row an entry
        points: Tensor,  # (R, P, T, D)
    ) -> Tensor:  # (R,)
        """The mean over a row's points; a row's points lie side by side, as the rows of a group."""
        count = points.shape[1]
        features, label = flat["features"], flat["label"]
        if count > 1:
            features = features.repeat_interleave(count, 0)
            label = label.repeat_interleave(count, 0)
        with moved_embeddings(token_table(model), points.flatten(0, 1)):
            outputs = self.task.predict(model, features)
        values = self.task.row_losses(outputs, label)
        return values.reshape(-1, count).mean(1)


@dataclass(eq=False)
class _Total:
    """Gradients added up in float32, in the memory of the first ones."""

    parameters: Tensors
    held: list[Tensor | None] = field(default_factory=list[Tensor | None])

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """None stands for zeros."""
        if not self.held:
            self.held = [None] * len(gradients)
        for place, gradient in enumerate(gradients):
            before = self.held[place]
            if gradient is None:
                continue
            self.held[place] = gradient.float() if before is None else before.add_(gradient)

    def named(self) -> Tensors:
        """name -> (*shape) float32."""
        pairs = zip(self.parameters.items(), self.held, strict=True)
        return {
            name: torch.zeros_like(weight, dtype=torch.float32) if value is None else value
            for (name, weight), value in pairs
        }


def _axes(batch: Batch) -> int:
    """How many axes come before those of a row: units, and rows of a unit where it is a group."""
    return 2 if rows.grouped(batch) else 1


TEXT_OBJECTIVES = (FreeLB, EmbeddingPGD)
"""Objectives of models that read tokens; laws of their own run over them."""
