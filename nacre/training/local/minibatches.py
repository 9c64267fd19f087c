"""Plain steps by minibatches, for a party whose rows no noise of its own hides."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportPrivateUsage=false
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nacre.adversarial_training.objectives import at
from nacre.core.parts import Sampling, Shape
from nacre.core.random import Source, seed_torch
from nacre.core.tensors import buffers_of, finite, trainable
from nacre.core.theirs import theirs
from nacre.core.types import Batch, BoundedSum, Tensors
from nacre.data.units import Units
from nacre.gradient_clipping import Unclipped, Whole
from nacre.gradient_clipping.clipped_sum import UnitLosses

_AddUp = Callable[[UnitLosses, list[Batch], float, Source], Tensor | float]
"""Losses, batches of one draw, what their sum is multiplied by, source -> the mean gradient in
`.grad`, and the mean loss; NaN where it is not known."""


@dataclass(frozen=True)
class LocalSteps:
    """Which steps a party takes in one round, and over what."""

    units: Units
    sampling: Sampling
    first: int  # number of the first, counted from the start of the run
    count: int
    source: Source  # keyed by run and party
    entered: bytes  # digest of the request, and of what is computed with and not moved
    shape: Shape | None = None  # of the mean gradient


@dataclass(frozen=True, eq=False)
class Minibatches:
    """Ordinary training: draw, one backward pass of the mean loss, one update.

    The steps of `fit` without noise and clipping, up to rounding, and without what makes a private
    step repeatable by itself: draws are keyed by the request and not by the weights before each
    step, no step is journalled, and nothing is compared before an update. So it is for changes that
    leave as what they are, or are clipped and noised as a whole (`unit: client`). The same request,
    rows and source give the same change.

    Whether all is finite is looked at once, at the end: where it is not, the steps are taken again
    by `Whole`, which leaves units out whose gradient is not finite.
    """

    losses: UnitLosses  # of the model that is trained
    clips: bool  # whether the recipe clips the mean gradient, which may hide what is not finite
    microbatch: int | None
    run_steps: int | None = None  # of the whole run, which a threat grows over; None: none does

    def take(
        self, optimizer: Callable[[], torch.optim.Optimizer], steps: LocalSteps
    ) -> float | None:
        """Takes the steps from where the weights are, with a new optimizer over them. Returns the
        mean loss of the units, over the steps, which tells of private rows; None where it is not
        known: where a gradient was not finite, or is clipped."""
        moved, model = trainable(self.losses.model), self.losses.model
        begun = [weight.detach().clone() for weight in moved.values()]
        plainly = partial(self._plainly, moved, buffered=bool(buffers_of(model)))
        failed = theirs("the model, its loss or the optimizer", "a party trained", surely=False)
        with _own_draws(steps.source.child("dropout", steps.entered)), failed:
            if not self.clips:
                loss = self._take(optimizer(), steps, moved, plainly)
                if finite(moved):
                    return float(loss)
                with torch.no_grad():
                    torch._foreach_copy_([*moved.values()], begun)
            self._take(optimizer(), steps, moved, partial(self._carefully, moved))
        return None

    def _take(
        self, optimizer: torch.optim.Optimizer, steps: LocalSteps, moved: Tensors, add_up: _AddUp
    ) -> Tensor | float:
        draws, factor = steps.source.child("sampling"), 1 / steps.sampling.expected
        loss: Tensor | float = 0.0
        for number in range(steps.first, steps.first + steps.count):
            drawn = steps.sampling.draw(len(steps.units), number, draws, steps.entered)
            attack = steps.source.child("attack", number, steps.entered)
            batches = [*steps.units.micro(drawn, self.microbatch)]
            loss = loss + add_up(self._losses(number), batches, factor, attack)
            if steps.shape is not None:
                means = {name: w.grad for name, w in moved.items() if w.grad is not None}
                for name, value in steps.shape.shape(means).items():
                    moved[name].grad = value
            optimizer.step()
            for weight in moved.values():
                weight.grad = None
        return loss / steps.count

    def _losses(self, number: int) -> UnitLosses:
        """The losses of this step, counted from the start of the run."""
        if self.run_steps is None:
            return self.losses
        return UnitLosses(self.losses.model, at(self.losses.objective, number / self.run_steps))

    def _plainly(
        self,
        moved: Tensors,
        losses: UnitLosses,
        batches: list[Batch],
        factor: float,
        source: Source,
        *,
        buffered: bool,
    ) -> Tensor | float:
        total: Tensor | float = 0.0
        for batch in batches:
            perturbed = losses.objective.perturb(losses.model, batch, source)
            # What a forward pass writes into buffers is not kept; see `UnitLosses.at`.
            each = losses.at(moved, perturbed) if buffered else losses(perturbed)
            mean = each.sum() * factor
            mean.backward()
            total = total + mean.detach()
        for weight in moved.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return total

    def _carefully(
        self,
        moved: Tensors,
        losses: UnitLosses,
        batches: list[Batch],
        factor: float,
        source: Source,
    ) -> float:
        whole, total = Whole(losses.objective), None
        for batch in batches:
            more: BoundedSum = whole(losses.model, batch, Unclipped(), source)
            total = more if total is None else total + more
        for name, weight in moved.items():
            value = torch.zeros_like(weight) if total is None else total.total[name] * factor
            weight.grad = value.to(weight.dtype)
        return math.nan


@contextmanager
def _own_draws(source: Source) -> Generator[None]:
    """Dropout of this party's own; PyTorch's generator is afterwards as it was."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(source.stream().seed())
        yield
