"""Sums of the contributions, each as it is or scaled down: one share a party, so a bound."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.types import Tensors
from nacre.federated_learning.aggregates.aggregate import (
    NOTHING_KNOWN,
    AgainstFaults,
    Aggregate,
    RoundFacts,
)
from nacre.federated_learning.aggregates.geometry import (
    each_name,
    saturated,
    squared_lengths,
    weighted_sum,
)


@dataclass(frozen=True, kw_only=True)
class MeanAggregate(Aggregate):
    """The arithmetic mean, each party counting the same.

    A party that is absent counts as a change of zero, because the divisor is declared and not
    counted: under privacy of whole parties the count is private too. Equal weights keep the
    parties' sizes private.

    Source: McMahan et al. 2017, https://arxiv.org/abs/1602.05629, algorithm 1 (equal weights).
    """

    kind: Literal["mean"] = "mean"

    robust: ClassVar[bool] = False
    """One party can move it anywhere, so a party at fault ends the run."""

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """Their sum; `expected` divides it later."""
        return each_name(contributions, _sum)

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return "the mean of the changes"

    def limits(self) -> str:
        """That it withstands nobody."""
        return "The mean withstands no party at fault: one of them moves it anywhere."

    def bound(self, each: float) -> float:
        """The share of one party in the total: `each`, the bound of its contribution."""
        return each


@dataclass(frozen=True, kw_only=True)
class NormBound(AgainstFaults):
    """The mean of the changes, each scaled down to a declared norm where it is longer.

    One party moves the mean by at most `norm` over the expected number of parties, whatever it
    sends; f of them, by f times as much, in every round and in one direction if they like. So it
    hinders one large lie (model replacement) and no patient one. An absent party counts as a
    change of zero.

    Source: Sun et al. 2019, https://arxiv.org/abs/1911.07963, section 4.
    """

    kind: Literal["norm_bound"] = "norm_bound"
    norm: float
    """Length that a party's change keeps at most, in L2 norm, in units of the weights."""
    bad: int = 0
    """Parties at fault that are reckoned with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require.positive(norm=self.norm)

    @property
    def least(self) -> int:
        """One: it is defined whatever comes."""
        return 1

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """The sum of what is left of them; `expected` divides it later."""
        return weighted_sum(contributions, shrinking(contributions, self.norm))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return f"the mean of the changes, each scaled down to an L2 norm of at most {self.norm:g}"

    def limits(self) -> str:
        """That it limits a round and not a run."""
        return (
            f"The norm bound limits what each party at fault moves in a round ({self.norm:g} over "
            "the expected number of parties) and not what it moves in a run: it is proven against "
            "no share of them, on no data."
        )

    def bound(self, each: float) -> float:
        """`each`: what is scaled down once more is no longer."""
        return each


@dataclass(frozen=True, kw_only=True)
class CentredClipping(AgainstFaults):
    """The last direction, plus the mean of how the changes differ from it, each difference scaled
    down to a declared radius.

    The last direction is what the server followed in the round before (zero in the first): it was
    released, so knowing it costs nothing, and it lies where honest changes lie. A party at fault
    moves the result by at most `radius` over the expected number of parties; since the same
    happens to a difference that is honest, `radius` should exceed most of these. An absent party
    counts as one that sent the last direction.

    Under privacy of whole parties the clip rule is applied to the differences, and their sum is
    bounded by it like any other; `radius` may then be left out.

    Source: Karimireddy et al. 2021, https://arxiv.org/abs/2012.10333, equation 3.1 (one iteration a
    round, from the last direction).
    """

    kind: Literal["centred_clipping"] = "centred_clipping"
    radius: float | None = None
    """Length that a difference keeps at most, in L2 norm; without one, what the clip rule leaves of
    it."""
    bad: int = 0
    """Parties at fault that are reckoned with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require.positive(radius=self.radius)

    @property
    def centred(self) -> bool:
        """Yes."""
        return True

    def total(
        self, contributions: Sequence[Tensors], expected: float, known: RoundFacts = NOTHING_KNOWN
    ) -> Tensors:
        """The sum of what is left of the differences; `expected` divides it later."""
        if self.radius is None:
            return each_name(contributions, _sum)
        return weighted_sum(contributions, shrinking(contributions, self.radius))

    def sentence(self) -> str:
        """What the server takes of the changes."""
        length = "by the clip rule" if self.radius is None else f"to at most {self.radius:g}"
        return (
            "the last direction, plus the mean of the changes' differences from it, each scaled "
            f"down {length} (centred clipping)"
        )

    def limits(self) -> str:
        """Which share of parties at fault it withstands, and how alike honest changes must be."""
        return (
            "Centred clipping is proven against a tenth of the parties at fault, where honest "
            "changes differ from the last direction by less than its radius; each party at fault "
            "moves a round by at most the radius over the expected number of parties."
        )

    def bound(self, each: float) -> float:
        """`each`: the differences are what the clip rule bounds, and the last direction that the
        update adds is public."""
        return each


def shrinking(
    contributions: Sequence[Tensors],
    length: float,
) -> Tensor:  # (n,) float64
    """The factor of each contribution that leaves it no longer than `length`; 1 where it is
    not."""
    norms = squared_lengths(contributions).sqrt()
    return torch.where(norms > length, length / norms.clamp(min=1e-300), 1.0).double()


def _sum(stacked: Tensor) -> Tensor:
    """(n, *shape) -> (*shape). Again in float64 where float32 overflows on the way."""
    total = stacked.sum(0)
    if bool(torch.isfinite(total).all()):
        return total
    return saturated(stacked.double().sum(0))
