"""The rows that an attack works on, and when one of them is broken."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nacre.adversarial_training.evaluation.losses import score_margin

RowState = dict[str, Tensor]
"""What an attack remembers of the rows in work: the first dimension of each tensor is the row."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Clean inputs with what an attacker wants of them."""

    place: Tensor  # (R,) int64: where the row stands in the whole batch
    unit: Tensor  # (R,) int64: keys its random numbers
    clean: Tensor  # (R, *shape)
    label: Tensor  # (R,) int64
    towards: int | None = None  # the class that the attacker wants; None takes any wrong one
    reached: Tensor | None = None  # (R,) the best margins that attacks before have found

    def __len__(self) -> int:
        return len(self.place)

    def take(self, index: Tensor) -> Inputs:
        """Those at `index`, an int64 or bool tensor (R',)."""
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        place, unit, clean, label = (  # three times as fast as indexing
            value.index_select(0, index)
            for value in (self.place, self.unit, self.clean, self.label)
        )
        reached = None if self.reached is None else self.reached.index_select(0, index)
        return Inputs(place, unit, clean, label, self.towards, reached)

    @property
    def aimed(self) -> Tensor | None:
        """(R,) the class that the attacker wants of each row; None takes any wrong one."""
        return None if self.towards is None else torch.full_like(self.label, self.towards)

    def broken(self, scores: Tensor) -> Tensor:
        """(R * N, K) scores, N of each row one after another -> (R * N,) bool: whether the attacker
        has what it wants.

        A score that is not finite is no answer, and so a broken one.
        """
        answered = scores.argmax(1)
        right = _each(self.label, scores)
        wanted = answered != right if self.towards is None else answered == self.towards
        return wanted | ~scores.isfinite().all(1)

    def margins(self, scores: Tensor) -> Tensor:
        """(R * N, K) scores, as in `broken` -> (R * N,): by how much the class that is wanted, or
        the best wrong one, beats the right one."""
        aimed = self.aimed
        return score_margin(
            scores, _each(self.label, scores), None if aimed is None else _each(aimed, scores)
        )


def _each(labels: Tensor, scores: Tensor) -> Tensor:
    """(R,) -> (R * N,): each row's label as many times as it has scores."""
    if len(labels) == len(scores):
        return labels
    return labels[:, None].expand(-1, len(scores) // len(labels)).flatten()


def both_states(one: RowState, other: RowState) -> RowState:
    """Both states' rows, in this order; the names are the same unless one is empty of them."""
    if not one:
        return other
    return {name: torch.cat([tensor, other[name]]) for name, tensor in one.items()}
