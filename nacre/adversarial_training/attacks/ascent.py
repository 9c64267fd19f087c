"""Projected gradient ascent on the input: the search inside every gradient attack."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from nacre.adversarial_training.attacks.judged import judging
from nacre.adversarial_training.threats.region import Region, chosen_rows
from nacre.core import rows
from nacre.core.random import Source
from nacre.core.types import Batch, Losses

WIDTH = ", the ball's width: it is a share of the radius"
"""Why no step is longer than 2, as the end of a sentence."""

_WORTH_PACKING = 0.9  # share of the rows that climb, at most: packing copies them once


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode inside the block (no dropout); each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True, eq=False)
class Ascent:
    """Steepest steps inside a region; the best point of each row is kept, or the last one.

    *Guarantee:* row i of the result lies in its region, depends on row i, its unit's number and
    `source` alone, and, where the best is kept, its loss in evaluation mode is never below the
    clean one. Nothing of the model changes: mode, `requires_grad`, `.grad` and buffers are as they
    were, after an exception too. Of the points that are compared none is taken whose loss is not
    finite; a gradient that is absent, zero or not finite moves nothing. An empty batch comes back
    as it is.

    A row that stops early stays where it is while others climb, and passes through the model with
    them: its company is as large as ever, so rounding cannot tell a row who else has stopped.
    `packed` passes on the rows alone that still climb, which is faster, and rounds by how many
    they are: for training in which no bound on a unit rests on the guarantee bit for bit.
    """

    region: Region
    steps: int
    step: float  # length of one step, as a share of the radius
    restarts: int = 1
    random_start: bool = False
    last: bool = False  # hand on the last point unscored, which saves two passes; one climb only
    early_stop: int | None = None  # steps that a row takes from points answered wrongly; None: all
    packed: bool = False  # leave rows that have stopped out of the passes; see above

    def __call__(self, model: nn.Module, batch: Batch, losses: Losses, source: Source) -> Batch:
        """The batch with the worst features found for it; one row an entry."""
        clean = batch["features"].detach()
        if not len(clean):
            return batch
        reach = self.region.limits(clean)
        with evaluating(model):
            if self.last:
                x = self._start(clean, batch["unit"], source.child("start", 0))
                return {**batch, "features": self._climb(model, batch, x, losses, reach, None)}
            worst = _Worst(clean)
            if self.random_start:  # a climb that starts at the clean point scores it anyway
                worst.see(clean, scores(model, batch, losses))
            for restart in range(self.restarts):
                x = self._start(clean, batch["unit"], source.child("start", restart))
                x = self._climb(model, batch, x, losses, reach, worst)
                worst.see(x, scores(model, {**batch, "features": x}, losses))
        return {**batch, "features": worst.points}

    def weakened(self, radius: float, steps: Callable[[int], int]) -> Self:
        """The same climb with this share of the radius and `steps` of its number of steps; with
        fewer of them each is longer, so the way is as long, but at most the ball's width."""
        fewer = steps(self.steps)
        step = self.step if fewer == self.steps else min(2.0, self.step * self.steps / fewer)
        return replace(self, region=self.region.scaled(radius), steps=fewer, step=step)

    def packing(self) -> Self:
        """The same climb, which passes on the rows alone that still climb."""
        return replace(self, packed=True)

    def _climb(
        self,
        model: nn.Module,
        batch: Batch,  # the clean rows
        x: Tensor,  # (R, *shape) where it begins
        losses: Losses,
        reach: dict[str, Tensor],  # `limits` of the clean rows
        worst: _Worst | None,  # sees each point that is left
    ) -> Tensor:  # (R, *shape)
        """Where the climb ends."""
        clean = batch["features"].detach()
        if self.early_stop is not None:
            return self._stopping(self.early_stop, model, batch, x, losses, reach, worst)
        for _ in range(self.steps):
            values, gradient = slopes(model, {**batch, "features": x}, losses)
            if worst is not None:
                worst.see(x, values)
            x = self.region.stepped(x, gradient, self.step, clean, reach)
        return x

    def _stopping(
        self,
        early_stop: int,
        model: nn.Module,
        batch: Batch,
        x: Tensor,
        losses: Losses,
        reach: dict[str, Tensor],
        worst: _Worst | None,
    ) -> Tensor:
        """`_climb` in which each row has `early_stop` steps to spend from points answered wrongly,
        and stops where it would need one more."""
        clean, ends = batch["features"].detach(), x.clone()
        place = torch.arange(len(x), device=x.device)
        left = torch.full_like(place, early_stop)
        for _ in range(self.steps):
            judged = judging(losses)
            values, gradient = slopes(model, {**batch, "features": x}, judged)
            if worst is not None:
                worst.see(x, values, place)
            left = left - judged.wrong.to(left)
            climbs = left >= 0
            moved = self.region.stepped(x.clone(), gradient, self.step, clean, reach)
            x = chosen_rows(climbs, moved, x)
            climbing = int(climbs.sum())
            if not climbing:
                break
            if self.packed and climbing <= _WORTH_PACKING * len(x):
                ends[place] = x
                place, left, x, clean = place[climbs], left[climbs], x[climbs], clean[climbs]
                reach = {name: limit[climbs] for name, limit in reach.items()}
                batch = rows.select(batch, climbs)
        ends[place] = x
        return ends

    def _start(self, clean: Tensor, unit: Tensor, source: Source) -> Tensor:
        """(R, *shape): the clean point, or a random one keyed by the row's unit."""
        if not self.random_start:
            return clean
        return self.region.start(clean, source.stream().rows(unit, self.region.draws))


@torch.no_grad()
def scores(model: nn.Module, batch: Batch, losses: Losses) -> Tensor:
    """(R,) each row's loss, without a graph."""
    return losses(model, batch).detach()


def slopes(model: nn.Module, batch: Batch, losses: Losses) -> tuple[Tensor, Tensor]:
    """(R,) losses and (R, *shape) their gradients by the input alone.

    Each row's loss depends on its own input only, so the gradient of the sum holds all of them.
    """
    with torch.enable_grad():
        x = batch["features"].detach().requires_grad_()
        values = losses(model, {**batch, "features": x})
        if not values.requires_grad:  # nothing on the way from input to loss can be differentiated
            return values, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(
            values.sum(), x, allow_unused=True, materialize_grads=True
        )
    return values.detach(), gradient


class _Worst:
    """The points with the largest losses that were seen, row by row; the clean ones at first."""

    def __init__(self, clean: Tensor) -> None:
        self.points = clean
        self._top = torch.full((len(clean),), -torch.inf, device=clean.device)

    def see(
        self,
        x: Tensor,  # (r, *shape) points of some rows
        values: Tensor,  # (r,) their losses
        place: Tensor | None = None,  # (r,) int64: which rows; None for all of them
    ) -> None:
        """Keeps those with a larger, finite loss than the rows' so far; a tie keeps the older."""
        if place is None or len(place) == len(self._top):
            won = torch.isfinite(values) & (values > self._top)
            self.points = chosen_rows(won, x, self.points)
            self._top = torch.where(won, values, self._top)
            return
        won = torch.isfinite(values) & (values > self._top[place])
        self.points = self.points.index_copy(0, place[won], x[won])
        self._top = self._top.index_copy(0, place[won], values[won])
