"""An aggregate: the mean without the largest and the smallest of each entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from nacre.core.types import Tensors
from nacre.federated_learning.aggregates.aggregate import NOTHING_KNOWN, Aggregate, RoundFacts


@dataclass(frozen=True, kw_only=True)
class Trimmed(Aggregate):
    """Entry by entry the mean of all but the largest and the smallest contribution."""

    kind: Literal["trimmed"] = "trimmed"

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the trimmed mean."""
        found: Tensors = {}
        for name in contributions[0]:
            ordered = torch.stack([c[name] for c in contributions]).sort(0).values
            kept = ordered[1:-1] if len(ordered) > 2 else ordered
            found[name] = expected * kept.mean(0)
        return found

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return "the trimmed mean of the changes"

    def limits(self) -> str:
        """That it withstands one."""
        return "The trimmed mean withstands one party at fault."
