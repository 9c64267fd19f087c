"""How far an adversary may move the embeddings of a row's tokens."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nacre.adversarial_training.threats.region import finite_or_zero
from nacre.core import require


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """L2 balls around the embeddings of a row's tokens: moves of shape (R, T, D).

    All lengths are in the model's own units, those of its table of embeddings (a token of BERT is
    about 1.4 long). Padding never moves. What is done to a row depends on that row alone.

    >>> move = torch.tensor([[[3.0, 4.0], [0.0, 5.0], [7.0, 7.0]]])
    >>> real = torch.tensor([[True, True, False]])
    >>> Embedding(radius=1.0, around="token").project(move, real)
    tensor([[[0.6000, 0.8000],
             [0.0000, 1.0000],
             [0.0000, 0.0000]]])
    """

    kind: Literal["embedding"] = "embedding"
    radius: float
    """How far, at least 0."""
    around: Literal["sequence", "token"] = "sequence"
    """Whether `radius` bounds the moves of all of a row's tokens together, or of each by itself."""

    def __post_init__(self) -> None:
        require.not_negative(radius=self.radius)

    def sentence(self) -> str:
        """The ball and what it is around."""
        what = "all embeddings of a row together" if self.around == "sequence" else "each embedding"
        return f"an L2 ball of radius {self.radius:g} around {what}"

    def start(
        self,
        uniform: Tensor,  # (R, T * D) in (0, 1)
        real: Tensor,  # (R, T) bool, False at padding
    ) -> Tensor:  # (R, T, D) float32
        """A random move inside the ball: uniform in the largest cube that fits.

        *Source:* Zhu et al. 2020, algorithm 1, line 4, whose cube has half of the width
        radius / sqrt(N) for N moved numbers.
        """
        width = uniform.shape[1] // max(1, real.shape[1])
        cube = (2 * uniform - 1).float().reshape(*real.shape, width).to(real.device)
        tokens = real.sum(1)[:, None, None] if self.around == "sequence" else torch.ones(1)
        half = self.radius / (tokens.to(real.device).clamp(min=1) * max(1, width)).sqrt()
        return self.project(cube * half, real)

    def climb(self, moves: Tensor, gradient: Tensor, step: float, real: Tensor) -> Tensor:
        """The moves after one step along the gradient, each of length `step` radii, projected.

        Where the gradient is zero or not finite nothing moves. *Source:* Zhu et al. 2020,
        algorithm 1, line 9.
        """
        slope = finite_or_zero(gradient).double() * real.unsqueeze(-1)
        length = self._lengths(slope)
        unit = slope / torch.where(length > 0, length, torch.ones_like(length))
        return self.project(moves + step * self.radius * unit.to(moves.dtype), real)

    def project(self, moves: Tensor, real: Tensor) -> Tensor:
        """(R, T, D) -> the nearest moves inside the balls; 0 at padding and for what is not finite.

        *Guarantee:* no longer than `radius` up to the rounding of one float32 product.
        """
        inside = finite_or_zero(moves) * real.unsqueeze(-1)
        over = self._lengths(inside.double()) / self.radius if self.radius > 0 else None
        if over is None:
            return torch.zeros_like(moves)
        return inside / over.clamp(min=1).to(moves.dtype)

    def _lengths(self, moves: Tensor) -> Tensor:
        """(R, T, D) -> (R, 1, 1) or (R, T, 1)."""
        axes = (1, 2) if self.around == "sequence" else (2,)
        return torch.linalg.vector_norm(moves, dim=axes, keepdim=True)
