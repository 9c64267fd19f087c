"""Plain steps of several parties in one pass, each over its own weights (`torch.func.vmap`)."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.utils.rnn import pad_sequence

from nacre.adversarial_training import Standard
from nacre.core.parts import Shape
from nacre.core.tensors import trainable
from nacre.core.types import Batch, Tensors
from nacre.data.sampling import FixedSizeSampling, ShuffledSampling
from nacre.federated_learning.local.drift import Drift
from nacre.gradient_clipping.clipped_sum import UnitLosses
from nacre.recipe.schema import Recipe
from nacre.training.local.minibatches import LocalSteps


def stacks_of(cohort: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """The parties of a round in its own order, at most `most` together, in stacks as alike in size
    as they can be: they follow from the cohort alone.

    >>> stacks_of(["a", "b", "c", "d", "e"], 3)
    [('a', 'b', 'c'), ('d', 'e')]
    """
    if not cohort:
        return []
    count = math.ceil(len(cohort) / most)
    size, larger = divmod(len(cohort), count)
    ends = [(number + 1) * size + min(number + 1, larger) for number in range(count)]
    return [tuple(cohort[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, eq=False)
class Stacked:
    """The steps of `Minibatches` for several parties at once: the same draws, factors and terms
    against client drift, and for each party an optimizer's state of its own, since an optimizer
    that moves each entry by itself moves those of several parties alike.

    *Guarantee:* the numbers are those of `Minibatches` up to rounding. A party's draw is filled up
    to a width that depends on its recipe alone, by rows of zeros whose loss is left out, and no
    number of another party enters. That the others move no bit either is a property of the
    operations of torch, which `trial.py` looks for where whole parties are protected. *Limit:* for
    models that draw nothing at random, write nothing, and run under `vmap`: `trial.py` refuses the
    others.
    """

    losses: UnitLosses
    width: int
    """Rows of a party in one pass: a larger draw takes several, whose gradients are added up."""
    alike: bool = False
    """Whether every pass has the whole width, so that no shape follows from the parties' draws."""

    @classmethod
    def of(cls, recipe: Recipe, losses: UnitLosses) -> Stacked:
        """For the parties of this recipe. Where whole parties are protected, no shape follows from
        what a party holds."""
        training = recipe.training
        width = training.batch
        if not isinstance(training.sampling, ShuffledSampling | FixedSizeSampling):
            width += math.ceil(2 * math.sqrt(width))  # seldom does a draw need a second pass
        return cls(
            losses,
            recipe.execution.microbatch or width,
            alike=recipe.differential_privacy is not None,
        )

    def take(
        self,
        build: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        parties: Sequence[LocalSteps],  # each takes as many, from the same number on
        begun: Tensors,  # the weights of the round
        drifts: Sequence[Shape | None],  # what each party does to its mean gradient
    ) -> list[Tensors]:
        """Each party's weights after its steps, which may not be finite.

        Raises what the model raises, and `RuntimeError` for one that cannot run so.
        """
        if len(parties) == 1:  # operations over one party alone may round otherwise
            return self.take(build, [*parties, *parties], begun, [*drifts, *drifts])[:1]
        moved = trainable(self.losses.model)
        stack = {
            name: begun[name].detach().expand(len(parties), *weight.shape).clone().requires_grad_()
            for name, weight in moved.items()
        }
        optimizer, shape = build(stack.values()), _together(drifts, stack)
        table = _StackedRows.of(parties)
        kind = next(iter(stack.values())).dtype
        factors = torch.tensor([1 / party.sampling.expected for party in parties], dtype=kind)
        losses = vmap(self._loss)
        for number in range(parties[0].first, parties[0].first + parties[0].count):
            for batch in self._batches(parties, table, number):
                losses(stack, batch, factors).sum().backward()
            for weight in stack.values():
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            if shape is not None:
                means = {name: w.grad for name, w in stack.items() if w.grad is not None}
                for name, value in shape.shape(means).items():
                    stack[name].grad = value
            optimizer.step()
            for weight in stack.values():
                weight.grad = None
        after = {name: weight.detach().unbind() for name, weight in stack.items()}
        return [{name: each[i] for name, each in after.items()} for i in range(len(parties))]

    def _loss(self, weights: Tensors, batch: Batch, factor: Tensor) -> Tensor:
        """Of one party's step, by its own weights."""
        each = self.losses.at(weights, batch)
        return torch.where(batch["present"], each, 0).sum() * factor

    def _batches(
        self, parties: Sequence[LocalSteps], table: _StackedRows, number: int
    ) -> Iterator[Batch]:
        """The draws of one step, (P, width, …) each, until the largest is through."""
        drawn = [
            party.sampling.draw(
                len(party.units), number, party.source.child("sampling"), party.entered
            )
            for party in parties
        ]
        most = max(map(len, drawn))
        width = self.width if self.alike else max(1, min(self.width, most))
        for start in range(0, most, width):
            batch = table.batch([draw[start : start + width] for draw in drawn], width)
            yield self._perturbed(parties, batch, number)

    def _perturbed(self, parties: Sequence[LocalSteps], batch: Batch, number: int) -> Batch:
        """The batch as the objective wants it, where that follows from the rows alone."""
        objective = self.losses.objective
        if isinstance(objective, Standard):
            return batch
        each = [
            objective.perturb(
                self.losses.model,
                {name: value[i] for name, value in batch.items()},
                party.source.child("attack", number, party.entered),
            )
            for i, party in enumerate(parties)
        ]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}


@dataclass(frozen=True)
class _StackedRows:
    """The rows of all parties of a stack, and after them one of zeros."""

    rows: Batch
    first: list[int]  # where each party's rows begin

    @classmethod
    def of(cls, parties: Sequence[LocalSteps]) -> _StackedRows:
        held = [party.units.batch(torch.arange(len(party.units))) for party in parties]
        first = [0]
        for one in held:
            first.append(first[-1] + len(one["unit"]))
        rows: Batch = {}
        for name in ("features", "label", "unit"):
            parts = [one[name] for one in held]
            rows[name] = torch.cat([*parts, parts[0].new_zeros(1, *parts[0].shape[1:])])
        return cls(rows, first)

    def batch(self, drawn: Sequence[Tensor], width: int) -> Batch:
        """The rows at these places of each party, filled up to `width`: (P, width, …)."""
        places = [draw + start for draw, start in zip(drawn, self.first, strict=False)]
        filled = torch.full((len(drawn), width), self.first[-1])
        beside = pad_sequence(places, batch_first=True, padding_value=self.first[-1])
        filled[:, : beside.shape[1]] = beside
        found = {name: value[filled] for name, value in self.rows.items()}
        return {**found, "present": filled != self.first[-1]}


def _together(drifts: Sequence[Shape | None], stack: Tensors) -> Shape | None:
    """The terms of all parties as one: entry by entry they are those of each."""
    known = [drift for drift in drifts if isinstance(drift, Drift)]
    if len(known) < len(drifts):  # whether there are any is the recipe's choice, so all or none
        return None
    corrections = [drift.correction for drift in known]
    names = corrections[0]
    stacked = {name: torch.stack([each[name] for each in corrections]) for name in names}
    return replace(known[0], weights=stack, correction=stacked)
