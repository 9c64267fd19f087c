"""A network that reads rows in their own units: it clips and scales them itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nacre.models import MLP, build

_TRIED = 8  # made-up rows, from the lowest of each column to the highest


class RangedNetwork(nn.Module):
    """Clips each column into its declared range, scales it to [-1, 1], and asks the network.

    *Guarantee:* a row's answer is a function of that row and of declared numbers; so a value
    outside its range counts as the nearest one inside, and no value widens a range.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, bounds: NDArray[np.float64], hidden: tuple[int, ...], outputs: int, seed: int
    ):
        super().__init__()
        self.register_buffer("low", torch.from_numpy(bounds[:, 0].copy()))  # (F,) float64
        self.register_buffer("high", torch.from_numpy(bounds[:, 1].copy()))
        option = MLP(hidden=hidden, activation="tanh")
        self.network = build(option, (len(bounds),), outputs, seed, Path())

    def forward(self, rows: Tensor) -> Tensor:  # (B, F) float64 -> (B, outputs) float32
        inside = torch.minimum(torch.maximum(rows, self.low), self.high)
        scaled = (inside - (self.low + self.high) / 2) / ((self.high - self.low) / 2)
        return self.network(scaled.float())

    def made_up(self) -> Tensor:
        """(8, F) float64: different rows inside the ranges, of declared numbers alone."""
        shares = torch.rand(
            _TRIED, len(self.low), generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        return self.low + shares * (self.high - self.low)
