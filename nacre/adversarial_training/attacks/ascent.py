"""Projected gradient ascent on the input: the search inside every gradient attack."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nacre.adversarial_training.threats.region import Region, chosen_rows
from nacre.core.random import Source
from nacre.core.types import Batch, Losses


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
    """Steepest steps inside a region; the best point of each row is kept.

    *Guarantee:* row i of the result lies in its region, depends on row i, its unit's number and
    `source` alone, and its loss in evaluation mode is never below the clean one. Nothing of the
    model changes: mode, `requires_grad`, `.grad` and buffers are as they were, after an exception
    too. A point whose loss is not finite is never taken; a gradient that is absent, zero or not
    finite moves nothing. An empty batch comes back as it is.
    """

    region: Region
    steps: int
    step: float  # length of one step, as a share of the radius
    restarts: int = 1
    random_start: bool = False

    def __call__(self, model: nn.Module, batch: Batch, losses: Losses, source: Source) -> Batch:
        """The batch with the worst features found for it; one row an entry."""
        clean = batch["features"].detach()
        if not len(clean):
            return batch
        reach = self.region.reach(clean)
        best, top = clean, torch.full((len(clean),), -torch.inf, device=clean.device)
        with evaluating(model):
            if self.random_start:  # a climb that starts at the clean point scores it anyway
                best, top = _better(best, top, clean, scores(model, batch, losses))
            for restart in range(self.restarts):
                x = self._start(clean, batch["unit"], source.child("start", restart))
                for _ in range(self.steps):
                    values, gradient = _slopes(model, {**batch, "features": x}, losses)
                    best, top = _better(best, top, x, values)
                    x = self.region.stepped(x, gradient, self.step, clean, reach)
                values = scores(model, {**batch, "features": x}, losses)
                best, top = _better(best, top, x, values)
        return {**batch, "features": best}

    def _start(self, clean: Tensor, unit: Tensor, source: Source) -> Tensor:
        """(R, *shape): the clean point, or a random one keyed by the row's unit."""
        if not self.random_start:
            return clean
        return self.region.start(clean, source.stream().rows(unit, self.region.draws))


@torch.no_grad()
def scores(model: nn.Module, batch: Batch, losses: Losses) -> Tensor:
    """(R,) each row's loss, without a graph."""
    return losses(model, batch).detach()


def _slopes(model: nn.Module, batch: Batch, losses: Losses) -> tuple[Tensor, Tensor]:
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


def _better(
    best: Tensor,  # (R, *shape) the best points so far
    top: Tensor,  # (R,) their losses
    x: Tensor,  # (R, *shape) new points
    values: Tensor,  # (R,) their losses
) -> tuple[Tensor, Tensor]:
    """Row by row the point with the larger finite loss; a tie keeps the older."""
    won = torch.isfinite(values) & (values > top)
    return chosen_rows(won, x, best), torch.where(won, values, top)
