"""Moves of a row's numbers back onto what is declared of them, in their own units."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SWEEPS = 3
"""Passes over all relations, of the projections and of the retreats each."""


@dataclass(frozen=True, eq=False)
class Repair:
    """What binds the numbers of some rows; all float64, in the columns' own units.

    The clean values satisfy all of it, and with them every row between them and a row that does:
    the set is convex. So a move that is taken back far enough is always legal.
    """

    clean: Tensor  # (R, D)
    low: Tensor  # (R, D), at most `clean`; a whole number or `clean` where `whole`
    high: Tensor  # (R, D), at least `clean`
    whole: Tensor  # (D,) bool
    scale: Tensor  # (D,) how long a unit of the model is
    weights: Tensor  # (K, D) of the relations: weights @ values <= bounds
    bounds: Tensor  # (R, K)
    price: Tensor  # (D,) of a move by one
    budget: Tensor  # (R,)
    rounding: float  # relative, of what becomes of the values later

    def __call__(self, values: Tensor) -> Tensor:
        """(R, D) any finite values -> (R, D) near ones that satisfy everything, but for rounding
        and for relations that pull against each other for longer than `SWEEPS`."""
        values = values.clamp(self.low, self.high)
        values = self._projected(values)
        moved = torch.where(self.whole, values.round(), values)
        values = torch.where(values == self.clean, values, moved).clamp(self.low, self.high)
        for _ in range(SWEEPS if len(self.weights) else 1):
            for place, weights in enumerate(self.weights):
                excess = (values * weights).sum(1) - self.bounds[:, place]
                values = self._retreated(values, weights.expand_as(values), excess)
            values = self._afforded(values)
        return values

    def _projected(self, values: Tensor) -> Tensor:
        """Onto each relation in turn, the nearest point in the model's units."""
        free = (self.high > self.low).double() * self.scale**2
        for _ in range(SWEEPS):
            for place, weights in enumerate(self.weights):
                margin = self._margin(values, weights)
                excess = ((values * weights).sum(1) - self.bounds[:, place] + margin).clamp(min=0)
                along = free * weights
                length = (along * weights).sum(1)
                share = torch.where(length > 0, excess / length, 0.0)
                values = (values - share[:, None] * along).clamp(self.low, self.high)
        return values

    def _afforded(self, values: Tensor) -> Tensor:
        """Moves taken back until the row can pay them."""
        if not bool(self.budget.isfinite().any()):
            return values
        moves = values - self.clean
        excess = (self.price * moves.abs()).sum(1) - self.budget
        return self._retreated(values, self.price * moves.sign(), excess)

    def _retreated(self, values: Tensor, weights: Tensor, excess: Tensor) -> Tensor:
        """Moves that raise the weighted sum are taken back, the smallest first, until it is smaller
        by `excess`; none of them goes beyond its clean value."""
        excess = (excess + self._margin(values, weights)).clamp(min=0)
        if not bool((excess > 0).any()):
            return values
        moves = values - self.clean
        gains = (weights * moves).clamp(min=0)
        order = (moves.abs() / self.scale).argsort(dim=1, stable=True)
        sorted_gains = gains.gather(1, order)
        before = sorted_gains.cumsum(1) - sorted_gains
        taken = torch.minimum((excess[:, None] - before).clamp(min=0), sorted_gains)
        share = torch.where(sorted_gains > 0, taken / sorted_gains.clamp(min=1e-300), 0.0)
        share = torch.zeros_like(share).scatter(1, order, share)
        return self._towards_clean(self.clean + moves * (1 - share), share)

    def _towards_clean(self, values: Tensor, share: Tensor) -> Tensor:
        """Whole numbers again where something was taken back: those nearer to the clean values."""
        up = values > self.clean
        down = torch.maximum(values.floor(), self.clean)
        rounded = torch.where(up, down, torch.minimum(values.ceil(), self.clean))
        values = torch.where(self.whole & (share > 0), rounded, values)
        return torch.where(share >= 1, self.clean, values)

    def _margin(self, values: Tensor, weights: Tensor) -> Tensor:
        """(R,) how far below the bound a sum has to lie so that rounding cannot lift it above; 0
        where all moved values of it are whole numbers, which no rounding changes."""
        inexact = (values != self.clean) & ~self.whole
        size = weights.abs() * (values.abs() + self.scale)
        return self.rounding * (size * inexact).sum(1)
