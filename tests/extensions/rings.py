"""A kind of data: points on two rings, made by a seed, which are nobody's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from nacre.core.assumptions import NoAssumptions
from nacre.data.dataset import Cohorts, Rows, Schema, checked
from nacre.data.scaling import NoScaling, ScalingOption
from nacre.data.text.token_cache import Aids


@dataclass(frozen=True, kw_only=True)
class Rings(NoAssumptions):
    """Points on two rings around zero."""

    kind: Literal["rings"] = "rings"
    size: int
    """Points of each role."""
    public_demonstration: bool = True
    """The points are nobody's."""
    scaling: ScalingOption = field(default_factory=NoScaling)
    """How points become inputs of the model."""

    unit: None = field(default=None, init=False, compare=False)
    party: None = field(default=None, init=False, compare=False)
    holdout: None = field(default=None, init=False, compare=False)
    has_public: bool = field(default=False, init=False, compare=False)
    has_test: bool = field(default=True, init=False, compare=False)

    def sentence(self) -> str:
        """What is drawn."""
        return "points on two rings"

    def schema(self, folder: Path = Path()) -> Schema:
        """A point of the plane."""
        return Schema((2,), (), "classification", ("inner", "outer"), low=-3, high=3)

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """The points; no file is read."""
        private, test = (self._points(2 * seed + role) for role in (0, 1))
        shown = self.public_demonstration
        return checked(Cohorts(private, None, test, shown, shown), self.schema(), "rings")

    def _points(self, seed: int) -> Rows:
        generator = torch.Generator().manual_seed(seed)
        label = torch.arange(self.size) % 2
        angle = 2 * math.pi * torch.rand(self.size, generator=generator)
        spread = 0.1 * torch.randn(self.size, 2, generator=generator)
        points = (1.0 + label)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        return Rows((points + spread).clamp(-3, 3), label)
