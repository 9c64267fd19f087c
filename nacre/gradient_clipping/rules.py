"""Clip rules: from the norms of a unit's gradient to the factors that it is scaled by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.core.parts import Clip
from nacre.core.types import Release
from nacre.gradient_clipping.whole import ByNorm, ByValue

ROUNDING = 2.0**-22
"""Slack for float32: rounding the factor and then the product costs at most 2**-23 together."""


@dataclass(frozen=True, kw_only=True)
class Flat:
    """Scale each unit's whole gradient down to `norm`; a shorter one stays as it is.

    *Guarantee:* a gradient of the norm it is asked about (exact to 2**-40), times its factor in
    float32, is no longer than `norm`. The factor is 1 for a norm of zero and 0 for one that is
    not finite.

    >>> Flat(norm=1.0).factors(torch.tensor([[0.5], [0.0], [float("nan")]])).tolist()
    [[1.0], [1.0], [0.0]]

    *Source:* Abadi et al. 2016, "Deep Learning with Differential Privacy",
    https://arxiv.org/abs/1607.00133, algorithm 1.
    """

    kind: Literal["flat"] = "flat"
    norm: float = 1.0
    """The longest that one unit's gradient may be (L2, over all trained parameters)."""

    def __post_init__(self) -> None:
        if not 0 < self.norm < math.inf:
            raise ValueError(f"norm={self.norm} must be > 0 and finite")

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group: the joint norm counts."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G)"""
        factors = (self.norm * (1 - ROUNDING) / norms).clamp(max=1)
        return torch.where(torch.isfinite(norms), factors, torch.zeros_like(norms))

    def bound(self, groups: int) -> float:
        """`norm` for each group, jointly."""
        return self.norm * math.sqrt(groups)

    def after(self, release: Release) -> Clip:
        """Itself."""
        return self


@dataclass(frozen=True)
class Unclipped:
    """Nothing is scaled, so nothing is bounded; every noise refuses the sum."""

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """One group."""
        return [list(names)]

    def factors(self, norms: Tensor) -> Tensor:
        """(B, G) -> (B, G): 1, or 0 where the norm is not finite."""
        return torch.isfinite(norms).to(norms.dtype)

    def bound(self, groups: int) -> float:
        """inf"""
        return math.inf

    def after(self, release: Release) -> Clip:
        """Itself."""
        return self


ClippingOption = Flat | ByValue | ByNorm

CLIP_RULES = (Flat, Unclipped)
"""Every rule; the laws run over them."""
