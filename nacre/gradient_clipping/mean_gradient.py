"""Clipping of the mean gradient, against gradients that explode.

`ByValue` and `ByNorm` act after the release, on one vector that belongs to no unit:
post-processing, which costs no privacy and gives none. Bounds come from the rules of `rules.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nacre.core.tensors import norm, scale
from nacre.core.types import Tensors
from nacre.gradient_clipping.rules import require_positive


@dataclass(frozen=True, kw_only=True)
class ByValue:
    """Clamp each entry of the mean gradient to ±limit.

    An entry that is NaN stays NaN, so a run that diverges is seen to diverge.

    >>> import torch
    >>> ByValue(limit=1.0).shape({"w": torch.tensor([3.0, -0.5])})
    {'w': tensor([ 1.0000, -0.5000])}
    """

    kind: Literal["by_value"] = "by_value"
    limit: float
    """The largest size of an entry."""

    def __post_init__(self) -> None:
        require_positive("limit", self.limit)

    def sentence(self, share: str = "") -> str:
        """The clamp with its limit. The mean belongs to no unit, so `share` is not named."""
        return f"Each entry of the mean gradient is clamped to ±{self.limit:g}."

    def shape(self, mean: Tensors) -> Tensors:
        """The clamped gradient."""
        return {name: value.clamp(-self.limit, self.limit) for name, value in mean.items()}


@dataclass(frozen=True, kw_only=True)
class ByNorm:
    """Scale the mean gradient down to a joint L2 norm, keeping its direction.

    >>> import torch
    >>> ByNorm(norm=1.0).shape({"w": torch.tensor([3.0, 4.0])})
    {'w': tensor([0.6000, 0.8000])}

    *Source:* Pascanu, Mikolov & Bengio 2013, "On the Difficulty of Training Recurrent Neural
    Networks", https://arxiv.org/abs/1211.5063, algorithm 1.
    """

    kind: Literal["by_norm"] = "by_norm"
    norm: float
    """The longest that the mean gradient may be."""

    def __post_init__(self) -> None:
        require_positive("norm", self.norm)

    def sentence(self, share: str = "") -> str:
        """The clip with its norm. The mean belongs to no unit, so `share` is not named."""
        return f"The mean gradient is scaled down to an L2 norm of at most {self.norm:g}."

    def shape(self, mean: Tensors) -> Tensors:
        """The scaled gradient; one that is no longer than `norm` comes back unchanged."""
        length = norm(mean)
        return mean if length <= self.norm else scale(mean, self.norm / length)
