"""A clip rule: a longer gradient comes nearer to the ceiling and never reaches it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.gradient_clipping.rules import ROUNDING, UNIT, FixedRule, require_length


@dataclass(frozen=True, kw_only=True)
class Squashed(FixedRule):
    """Scale a gradient of length n to n / (1 + n / ceiling), which is below `ceiling`."""

    kind: Literal["squashed"] = "squashed"
    ceiling: float = 1.0
    """What no gradient is as long as (L2)."""

    def __post_init__(self) -> None:
        require_length("ceiling", self.ceiling)

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group: the joint norm counts."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G)"""
        factors = self.ceiling * (1 - ROUNDING) / (self.ceiling + norms.double())
        return torch.where(torch.isfinite(norms), factors.to(norms.dtype), torch.zeros_like(norms))

    def bound(self, groups: int) -> float:
        """`ceiling` for each group, jointly."""
        return self.ceiling * math.sqrt(groups)

    def sentence(self, share: str = UNIT) -> str:
        """The rule with its ceiling."""
        return f"{share} is squashed below an L2 norm of {self.ceiling:g}."
