"""Trust from a public set of rows: the server trains on them too, and compares."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from nacre.core.types import Tensors
from nacre.federated_learning.aggregates.aggregate import NOTHING_KNOWN, AgainstFaults, RoundFacts
from nacre.federated_learning.aggregates.geometry import (
    products_with,
    squared_lengths,
    weighted_sum,
)


@dataclass(frozen=True, kw_only=True)
class FLTrust(AgainstFaults):
    """The changes, each as long as the server's own on the public rows, weighted by how far they
    point the same way.

    The weight is the cosine of the angle to the server's own change, and 0 beyond a right angle;
    where all weights are 0 nothing moves. The result is never longer than the server's own change.
    A party at fault gains nothing by length and counts only with what agrees with the public rows,
    whatever its share. So the public rows decide: a class that they lack is learnt by nobody.

    Source: Cao et al. 2021, https://arxiv.org/abs/2012.13995, algorithm 2.
    """

    kind: Literal["fltrust"] = "fltrust"
    bad: int = 0
    """Parties at fault that are reckoned with; the rule itself needs no number."""

    @property
    def least(self) -> int:
        """One: it is defined whatever comes."""
        return 1

    @property
    def rooted(self) -> bool:
        """Yes."""
        return True

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """`expected` times the weighted mean. Raises `ValueError` without `known.root`."""
        if known.root is None:
            raise ValueError("fltrust needs the contribution of the public rows")
        own = squared_lengths([known.root]).sqrt()  # (1,)
        lengths = squared_lengths(contributions).sqrt()
        products = products_with(contributions, known.root)
        cosines = products / (lengths * own).clamp(min=_TINY)
        trust = cosines.clamp(min=0, max=1)
        scaled = trust * own / lengths.clamp(min=_TINY)
        whole = float(trust.sum())
        if whole <= 0:
            return weighted_sum(contributions, torch.zeros_like(trust))
        return weighted_sum(contributions, expected * scaled / whole)

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return (
            "the changes weighted by their agreement with its own on the public rows, each as long "
            "as that (FLTrust)"
        )

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and what the public rows must be."""
        return (
            "FLTrust withstands any share of parties at fault, where the public rows are drawn as "
            "the parties' rows are; where they are not, or hold few classes, honest changes count "
            "little and lies that agree with the public rows count in full."
        )


_TINY = 1e-300
