"""Which units enter a step: each by its own coin, a fixed number of them, by turns, or all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import BadArgument, DataError
from nacre.core.parts import Sampling
from nacre.core.random import Source


class _Draw:
    """What draws state about themselves, where nothing else is said."""

    @property
    def separation(self) -> int:
        """1: a unit may enter two steps in a row."""
        return 1

    def facts(self: Sampling) -> dict[str, Any]:
        """Kind and expected units; the rate is 1, for nothing is amplified."""
        return {"kind": self.kind, "expected": self.expected, "rate": 1.0}

    def resized(self, factor: float) -> Self | None:
        """None: with another batch the steps would no longer fill whole rounds."""
        return None


@dataclass(frozen=True)
class Poisson(_Draw):
    """Each unit enters each step by its own coin, with the same declared rate.

    The rate is a public fact; the number drawn is private. It is computed from the declared size
    and never from the units at hand, so a wrong declaration moves the average batch and not the
    privacy of a unit.
    """

    kind: ClassVar[str] = "poisson"
    expected: float  # units a step
    size: int  # units, declared

    @property
    def rate(self) -> float:
        """The probability with which a unit enters a step."""
        return self.expected / self.size

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) increasing int64 indices; the same step and `entered` draw the same units."""
        stream = source.child("poisson", step, entered).stream()
        return torch.from_numpy(stream.heads(units, self.rate))

    def sentence(self) -> str:
        """The draw with its rate."""
        return f"each unit with probability {self.rate:.3g}"

    def facts(self) -> dict[str, Any]:
        """Kind, expected units and rate."""
        return super().facts() | {"rate": self.rate}

    def resized(self, factor: float) -> Self | None:
        """None where there are not as many units."""
        batch = self.expected * factor
        return replace(self, expected=batch) if batch <= self.size else None


@dataclass(frozen=True)
class CyclicPoisson(_Draw):
    """The units are dealt into `cycle` groups; step t draws from group t mod `cycle` alone, each
    unit of it by its own coin.

    So a unit that entered a step cannot enter any of the `cycle - 1` next ones: what correlated
    noise of at most `cycle` bands needs to be amplified.

    *Guarantee:* the groups are independent, uniform draws, one a unit, fixed for the run. *Why a
    unit's place may key them:* given that its neighbour's other units have the same groups (which
    has the same probability, as the draws are independent of everything), the two data sets differ
    in one unit of one group; and a bound that holds for each dealing holds for their mixture
    (joint convexity of the hockey-stick and Rényi divergences). The sizes of the groups are
    private; the rate is declared and never counted.

    Source: Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", algorithm 2.
    """

    kind: ClassVar[str] = "cyclic_poisson"
    expected: float  # units a step
    size: int  # units, declared
    cycle: int  # groups

    @property
    def rate(self) -> float:
        """The probability with which a unit of the step's group enters it."""
        return self.expected * self.cycle / self.size

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) increasing int64 indices; the same step and `entered` draw the same units."""
        stream = source.child("poisson", step, entered).stream()
        chosen = torch.from_numpy(stream.heads(units, self.rate))
        groups = source.child("cycle").stream().rows(chosen, 1)[:, 0] * self.cycle
        return chosen[groups.floor() == step % self.cycle]

    @property
    def separation(self) -> int:
        """The number of groups."""
        return self.cycle

    def sentence(self) -> str:
        """The draw with its groups and the rate inside a group."""
        rate = f"each unit of it with probability {self.rate:.3g}"
        return f"from one of {self.cycle} groups in turn, {rate}"

    def facts(self) -> dict[str, Any]:
        """Kind, expected units, rate and cycle."""
        return super().facts() | {"rate": self.rate, "cycle": self.cycle}

    def resized(self, factor: float) -> Self | None:
        """None where a group has not as many units."""
        batch = self.expected * factor
        return replace(self, expected=batch) if batch * self.cycle <= self.size else None


@dataclass(frozen=True)
class FixedSize(_Draw):
    """Each step draws the same number of units, every set of that size equally likely, anew.

    *Guarantee:* a step draws `batch` of max(size, units) places without replacement, of which the
    units take the first; places that nobody takes are left out. So a unit enters a step with
    probability `rate` at most, however many units there are, and a draw holds at most `batch`.
    Who enters beside whom depends on how many units there are: neighbours have the same number.
    """

    kind: ClassVar[str] = "fixed_size"
    batch: int  # units a step
    size: int  # units, declared

    @property
    def expected(self) -> float:
        """Units a step."""
        return float(self.batch)

    @property
    def rate(self) -> float:
        """The share of the declared units that a step draws."""
        return self.batch / self.size

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) increasing int64 indices; the same step and `entered` draw the same units."""
        words = source.child("fixed", step, entered).stream().words(max(self.size, units))
        # Of equal words, 2**-64 a pair, either may be the smaller one.
        places = np.sort(np.argpartition(words, self.batch - 1)[: self.batch])
        return torch.tensor(places[places < units], dtype=torch.int64)

    def sentence(self) -> str:
        """The draw with both sizes."""
        return f"{self.batch} of {self.size} units, all sets of so many alike"

    def facts(self) -> dict[str, Any]:
        """Kind, expected units and rate."""
        return super().facts() | {"rate": self.rate}

    def resized(self, factor: float) -> Self | None:
        """None for less than one unit, or more than there are."""
        batch = int(self.batch * factor)
        return replace(self, batch=batch) if 1 <= batch <= self.size else None


@dataclass(frozen=True)
class Shuffled(_Draw):
    """Passes over the units, each in a new random order, in batches of a fixed size.

    *Guarantee:* a unit enters at most one step of an epoch, and an epoch has `epoch` steps at
    least. The order is one of max(size, units) places, of which the units take the first: fewer
    units than declared make smaller batches and no shorter epoch. Places left over at its end sit
    that epoch out. Who enters beside whom depends on how many units there are.
    """

    kind: ClassVar[str] = "shuffled"
    batch: int  # units a step
    size: int  # units, declared

    @property
    def expected(self) -> float:
        """Units a step."""
        return float(self.batch)

    @property
    def epoch(self) -> int:
        """Steps of an epoch of the declared units; with more units at hand it has more."""
        return self.size // self.batch

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) int64 indices of step `step`, counted from 0; the order is keyed by the epoch."""
        places = max(self.size, units)
        epoch, place = divmod(step, places // self.batch)
        order = _order(source.secret("epoch", epoch), places)
        drawn = order[place * self.batch : (place + 1) * self.batch]
        return drawn[drawn < units]

    def sentence(self) -> str:
        """The draw with its size."""
        return f"the next {self.batch} units of a random order, a new one every epoch"

    def facts(self) -> dict[str, Any]:
        """Kind, expected units, rate and the steps of an epoch."""
        return super().facts() | {"epoch": self.epoch}


@lru_cache(maxsize=8)
def _order(key: bytes, places: int) -> Tensor:
    """(places,) int64: an epoch's order, which all its steps take parts of. Only read."""
    return Source(key).stream().permutation(places)


@dataclass(frozen=True)
class BallsInBins(_Draw):
    """Each unit is thrown into one of `bins` bins, uniformly and independently of the others; the
    bins take turns, and a step takes everybody in its bin.

    *Guarantee:* a unit enters exactly one step of each `bins`, whatever the others are; with bins
    that are fixed for the run, every `bins`-th step. Nobody else's bin depends on it, nor on how
    many units there are. How many a bin holds is private.

    Source: Chua et al. 2024, "Balls-and-bins sampling for DP-SGD" (bins dealt anew in every epoch);
    Choquette-Choo et al. 2025, "Near exact privacy amplification for matrix mechanisms" (fixed).
    """

    kind: ClassVar[str] = "balls_in_bins"
    size: int  # units, declared
    bins: int
    anew: bool = False  # whether every epoch has bins of its own

    @property
    def expected(self) -> float:
        """Units a step: the declared ones over the bins."""
        return self.size / self.bins

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(b,) increasing int64 indices; bins are keyed by the run, or by the epoch."""
        epoch, turn = divmod(step, self.bins)
        dealt = source.child("bins", epoch) if self.anew else source.child("bins")
        bins = (dealt.stream().uniform(units) * self.bins).floor()
        return torch.nonzero(bins == turn)[:, 0]

    @property
    def separation(self) -> int:
        """The number of bins, or 1 where they are thrown anew."""
        return 1 if self.anew else self.bins

    def sentence(self) -> str:
        """The draw with its bins."""
        thrown = "thrown anew in every round" if self.anew else "the same in every round"
        return f"everybody in one of {self.bins} bins in turn, {thrown}"

    def facts(self) -> dict[str, Any]:
        """Kind, expected units, rate, and the bins as an epoch (anew) or a cycle."""
        turns = {"epoch": self.bins} if self.anew else {"cycle": self.bins}
        return super().facts() | turns


@dataclass(frozen=True)
class AllUnits(_Draw):
    """Every unit, every step."""

    kind: ClassVar[str] = "full"
    size: int  # units, declared

    @property
    def expected(self) -> float:
        """Units a step."""
        return float(self.size)

    def draw(self, units: int, step: int, source: Source, entered: bytes) -> Tensor:
        """(units,) int64: 0 … units - 1."""
        return torch.arange(units)

    def sentence(self) -> str:
        """All units."""
        return "all units"


def _fits(batch: int, size: int) -> None:
    if batch < 1 or size < 1:
        raise BadArgument(f"batch={batch} and size={size} must be at least 1")
    if batch > size:
        raise DataError(
            f"batch={batch} is larger than the declared size={size}, so no draw can hold it; "
            "lower `batch` or use `sampling: {kind: full}`"
        )


@dataclass(frozen=True, kw_only=True)
class PoissonSampling:
    """Every unit enters a step independently; the draw that differential privacy can amplify."""

    kind: Literal["poisson"] = "poisson"

    def build(self, batch: int, size: int, bands: int = 1) -> Poisson:
        """`batch` of `size` declared units expected a step. Raises `DataError` if it is larger."""
        _fits(batch, size)
        return Poisson(float(batch), size)


@dataclass(frozen=True, kw_only=True)
class CyclicPoissonSampling:
    """Units are dealt into groups that take turns; a step draws from one group, by coins."""

    kind: Literal["cyclic_poisson"] = "cyclic_poisson"
    cycle: int | None = None
    """Groups, and so the steps from one turn of a unit to its next; None takes the bands of the
    noise, or 1."""

    def __post_init__(self) -> None:
        require.at_least(1, cycle=self.cycle)

    def build(self, batch: int, size: int, bands: int = 1) -> CyclicPoisson:
        """`batch` of `size` declared units expected a step, in `bands` groups where the recipe
        does not say how many. Raises `DataError` where a group is expected to hold fewer."""
        _fits(batch, size)
        cycle = bands if self.cycle is None else self.cycle
        if batch * cycle > size:
            smaller = f"`batch: {size // cycle}` or fewer, or " if size >= cycle else ""
            raise DataError(
                f"batch={batch} is more than a group holds: cycle={cycle} groups share the "
                f"declared size={size}; use {smaller}a shorter cycle, {size // batch} or less"
            )
        return CyclicPoisson(float(batch), size, cycle)


@dataclass(frozen=True, kw_only=True)
class FixedSizeSampling:
    """A step draws exactly `batch` units, each set of that size equally likely; amplified, for
    `adjacency: replace_one`."""

    kind: Literal["fixed_size"] = "fixed_size"

    def build(self, batch: int, size: int, bands: int = 1) -> FixedSize:
        """`batch` of `size` declared units a step. Raises `DataError` if it is larger."""
        _fits(batch, size)
        return FixedSize(batch, size)


@dataclass(frozen=True, kw_only=True)
class ShuffledSampling:
    """Passes over the data in random order; a unit pays once an epoch, without amplification, under
    `adjacency: replace_one` or `zero_out`."""

    kind: Literal["shuffled"] = "shuffled"

    def build(self, batch: int, size: int, bands: int = 1) -> Shuffled:
        """`batch` of `size` declared units a step. Raises `DataError` if it is larger."""
        _fits(batch, size)
        return Shuffled(batch, size)


@dataclass(frozen=True, kw_only=True)
class BallsInBinsSampling:
    """Each unit is thrown into one of size / batch bins, which take turns; a unit pays once a round
    of all bins, under every adjacency."""

    kind: Literal["balls_in_bins"] = "balls_in_bins"
    anew: bool = False
    """Whether the units are thrown again for every round of all bins: that amplifies the privacy of
    Gaussian noise, except under replace-one; correlated noise needs bins that stay."""

    def build(self, batch: int, size: int, bands: int = 1) -> BallsInBins:
        """As many bins as whole batches of `size` declared units, so that a step is expected to
        hold `batch` or a little more. Raises `DataError` if the batch is larger than the size."""
        _fits(batch, size)
        return BallsInBins(size, size // batch, self.anew)


@dataclass(frozen=True, kw_only=True)
class FullBatch:
    """Every unit in every step; `batch` is not read."""

    kind: Literal["full"] = "full"

    def build(self, batch: int, size: int, bands: int = 1) -> AllUnits:
        """All of `size` declared units."""
        _fits(size, size)
        return AllUnits(size)


SamplingOption = (
    PoissonSampling
    | CyclicPoissonSampling
    | FixedSizeSampling
    | ShuffledSampling
    | BallsInBinsSampling
    | FullBatch
)

SAMPLINGS: tuple[type[SamplingOption], ...] = get_args(SamplingOption)
"""Every draw that a recipe can name; the laws run over what they build."""
