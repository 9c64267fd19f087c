"""What a recipe says about a federation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from nacre.core import require
from nacre.core.errors import BadArgument, DataError
from nacre.core.optimizers import SGD, OptimizerOption
from nacre.core.parts import Sampling
from nacre.data.partition import PartitionOption
from nacre.data.sampling import AllUnits, CyclicPoisson, Poisson
from nacre.federated_learning.aggregates import AggregateOption, MeanAggregate
from nacre.federated_learning.encodings import Encoding
from nacre.federated_learning.gather import Plain
from nacre.federated_learning.local.compression import CompressionOption
from nacre.federated_learning.secure.option import SecureGather
from nacre.figures.names import FigureName, goodness


@dataclass(frozen=True, kw_only=True)
class Local:
    """What a party does between two rounds."""

    steps: int = 1
    """Updates on its own rows before it answers."""
    proximal: float = 0.0
    """FedProx: each local step is pulled back to the weights of the round by this many times the
    distance (mu; Li et al. 2020)."""
    controls: bool = False
    """SCAFFOLD: each local step is corrected by what all parties want beyond what this one does
    (Karimireddy et al. 2020). It takes plain SGD under `training`, whose step size it divides by,
    and each party remembers its own control between rounds."""
    personal: tuple[str, ...] = ()
    """Layers that stay with each party: trained by it, kept from round to round and never sent, so
    that each ends with a model of its own. `head` is the last layer (FedPer: Arivazhagan et al.
    2019), `norms` the layers that normalise (FedBN: Li et al. 2021); others by the name of a module
    or parameter, in which `*` stands for anything."""

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps)
        require.not_negative(proximal=self.proximal)
        if not all(self.personal) or len(set(self.personal)) < len(self.personal):
            raise BadArgument(f"personal={self.personal} must be different names, none empty")

    def sentence(self) -> str:
        """What a party does in a round besides its steps; "" where that is nothing."""
        prox = f"FedProx with mu {self.proximal:g}" if self.proximal else ""
        own = f"layers of its own ({', '.join(self.personal)}), never sent" if self.personal else ""
        parts = (prox, "SCAFFOLD" if self.controls else "", own)
        return " and ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class AllParties:
    """Every party takes part in every round."""

    kind: Literal["all"] = "all"

    def sentence(self) -> str:
        """Who takes part in a round; "" where that is everyone."""
        return ""

    def build(self, parties: int, bands: int = 1) -> Sampling:
        """Who is asked in a round, of the declared parties."""
        return AllUnits(parties)


@dataclass(frozen=True, kw_only=True)
class PoissonCohort:
    """Each party takes part in a round by a coin of its own; what privacy amplification assumes."""

    kind: Literal["poisson"] = "poisson"
    expected: float
    """Parties a round, on average; declared, and the divisor."""

    def __post_init__(self) -> None:
        require.positive(expected=self.expected)

    def sentence(self) -> str:
        """Who takes part in a round."""
        return f"each by a coin of its own, {self.expected:g} a round on average"

    def build(self, parties: int, bands: int = 1) -> Sampling:
        """Who is asked in a round, of the declared parties."""
        everyone = self.expected == parties
        return AllUnits(parties) if everyone else Poisson(self.expected, parties)


@dataclass(frozen=True, kw_only=True)
class CyclicCohort:
    """Parties are dealt into groups that take turns; in a round each party of the turn's group
    takes part by a coin of its own. What noise that is correlated over rounds (DP-FTRL) needs."""

    kind: Literal["cyclic_poisson"] = "cyclic_poisson"
    expected: float
    """Parties a round, on average; declared, and the divisor."""
    cycle: int | None = None
    """Groups, and so the rounds from one turn of a party to its next; None takes the bands of the
    noise, or 1."""

    def __post_init__(self) -> None:
        require.positive(expected=self.expected)
        require.at_least(1, cycle=self.cycle)

    def sentence(self) -> str:
        """Who takes part in a round."""
        return (
            "by groups that take turns and a coin of each party's own, "
            f"{self.expected:g} a round on average"
        )

    def build(self, parties: int, bands: int = 1) -> Sampling:
        """Who is asked in a round, of the declared parties, in `bands` groups where the recipe
        does not say how many. Raises `DataError` where a group is expected to hold fewer."""
        cycle = bands if self.cycle is None else self.cycle
        if self.expected * cycle > parties:
            raise DataError(
                f"expected={self.expected:g} is more than a group holds: cycle={cycle} groups "
                f"share {parties} parties; ask {parties / cycle:g} or fewer a round, or use a "
                "shorter cycle"
            )
        return CyclicPoisson(self.expected, parties, cycle)


CohortOption = AllParties | PoissonCohort | CyclicCohort


@dataclass(frozen=True, kw_only=True)
class PlainGather:
    """The server sees each party's reply."""

    kind: Literal["plain"] = "plain"
    aggregate: AggregateOption = field(default_factory=MeanAggregate)
    """How the replies become one direction."""

    def sentence(self) -> str:
        """What the server takes of the changes."""
        return self.aggregate.sentence()

    def build(self, expected: float) -> Plain:
        """The gather of a federation that expects `expected` parties a round."""
        return Plain(self.aggregate, expected)


GatherOption = PlainGather | SecureGather

GATHERS = (PlainGather, SecureGather)
"""Every way in which replies come together."""


@dataclass(frozen=True, kw_only=True)
class StopWhenFlat:
    """End before the last round once a figure on *public* rows has stopped improving.

    The figure is computed from released weights on public rows, so stopping costs no privacy.
    """

    kind: Literal["flat"] = "flat"
    figure: FigureName = "loss"
    """Which figure of the task; whether higher or lower is better comes with the figure."""
    patience: int = 5
    """Rounds in a row without an improvement."""
    min_delta: float = 0.0
    """What counts as an improvement: more than this beyond the best so far."""

    def __post_init__(self) -> None:
        require.at_least(1, patience=self.patience)
        require.not_negative(min_delta=self.min_delta)

    def flat(self, figures: Sequence[float]) -> bool:
        """Whether the figures, one a round from the first, have been flat for `patience` rounds.

        A figure that is not a number is no improvement.

        >>> StopWhenFlat(patience=2).flat([0.9, 0.5, 0.5, 0.6])
        True
        >>> StopWhenFlat(patience=2, figure="accuracy").flat([0.5, 0.9, 0.9])
        False
        """
        best, rounds = -math.inf, 0
        for figure in figures:
            good = goodness(self.figure, figure)
            best, rounds = (good, 0) if good > best + self.min_delta else (best, rounds + 1)
        return rounds >= self.patience


@dataclass(frozen=True, kw_only=True)
class FederatedLearning:
    """Parties keep their rows; rounds send weights out and changes of the weights back."""

    parties: PartitionOption
    """Who holds which rows."""
    rounds: int = 20
    """Updates of the common model."""
    local: Local = field(default_factory=Local)
    """What a party does between two rounds; how is under `training`."""
    cohort: CohortOption = field(default_factory=AllParties)
    """Who takes part in a round."""
    gather: GatherOption = field(default_factory=PlainGather)
    """How the replies come together."""
    compression: CompressionOption | None = None
    """How a change is made smaller before it travels; None sends every entry as it is."""
    optimizer: OptimizerOption = field(default_factory=lambda: SGD(lr=1.0))
    """What the server does with the mean change: SGD with lr 1 is FedAvg, Adam is FedAdam."""
    stop: StopWhenFlat | None = None
    """When to end before the last round."""
    few_clients: bool = False
    """Accept privacy of whole parties although fewer than 50 are expected a round."""

    def __post_init__(self) -> None:
        require.at_least(1, rounds=self.rounds)
        parties = len(self.parties.names)
        if self.expected() > parties:
            raise BadArgument(
                f"cohort: expected={self.expected():g} must be at most the number of parties, "
                f"{parties}"
            )

    @property
    def encoding(self) -> Encoding:
        """How the tensors of a reply are written."""
        return "float32" if self.compression is None else self.compression.encoding

    @property
    def remembers(self) -> bool:
        """Whether a party holds something of its own from one round to the next."""
        left_out = self.compression is not None and self.compression.error_feedback
        return self.local.controls or bool(self.local.personal) or left_out

    def expected(self) -> float:
        """Parties a round: declared, and the divisor of the aggregate."""
        if isinstance(self.cohort, AllParties):
            return float(len(self.parties.names))
        return self.cohort.expected
