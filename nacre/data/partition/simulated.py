"""Simulated parties: units dealt to them by a rule that the recipe declares."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nacre.core import require
from nacre.core.errors import BadArgument, DataError, Incompatible
from nacre.core.random import Source
from nacre.core.types import Unit
from nacre.data.dataset import Rows
from nacre.data.partition.dealt import Dealt, units_of
from nacre.data.partition.names import Counted, check_names
from nacre.data.partition.sizes import Sizes

Shares = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Simulated(ABC):
    """Parties with declared shares of the units; a kind says which units each of them gets."""

    names: tuple[str, ...] | Counted
    """The parties: a list of names, or `{count: 1000}` for parties that are numbered."""

    simulated: ClassVar[bool] = True
    named: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_names("names", self.names)

    def declared_sizes(self, total: int) -> Sizes:
        """Party -> units of `total`. Raises `Incompatible` where a party would have none."""
        if total < len(self.names):
            raise Incompatible(
                f"{len(self.names)} parties are named and there are {total} units, so a party "
                "would have none; name fewer parties"
            )
        return Sizes(self.names, self._shares(total))

    def split(self, rows: Rows, unit: Unit, seed: int) -> Dealt:
        """Party -> its rows; a group stays in one party. Raises `DataError` where there are fewer
        units than parties."""
        units, first = units_of(rows, unit)
        if len(first) < len(self.names):
            raise DataError(
                f"the private rows hold fewer units than the {len(self.names)} parties named, so "
                "a party would have none; name fewer parties"
            )
        source = Source(hashlib.sha256(f"nacre parties {seed}".encode()).digest())
        owners = self._owners(rows.label[first].numpy(), self._shares(len(first)), source)
        return Dealt(rows, self.names, owners[units])

    def _shares(self, total: int) -> Shares:
        """(parties,): equal shares, the first parties one more where they do not divide."""
        share, more = divmod(total, len(self.names))
        return share + (np.arange(len(self.names)) < more)

    @abstractmethod
    def _owners(
        self,
        labels: NDArray[np.generic],  # (U,) of each unit: that of its first row
        shares: Shares,  # (parties,) units of each, of sum U
        source: Source,
    ) -> Shares:
        """(U,): the place of the party that gets each unit."""


@dataclass(frozen=True, kw_only=True)
class Uniform(_Simulated):
    """Simulated parties: units dealt evenly, in a random order fixed by the seed."""

    kind: Literal["uniform"] = "uniform"

    def _owners(self, labels: NDArray[np.generic], shares: Shares, source: Source) -> Shares:
        return _at_random(shares, source)


@dataclass(frozen=True, kw_only=True)
class QuantitySkew(_Simulated):
    """Simulated parties of unequal size: each has one unit, and of the rest a share that falls off
    from party to party by a declared law; which units is random.

    Party i of n (counted from 1) has a share in proportion to i to the power of minus `skew`, or to
    exp(`skew` times the (i - 1/2)/n quantile of a normal distribution), so the sizes are declared
    numbers, known before a row is read. Source of the log-normal sizes: Li et al. 2020,
    https://arxiv.org/abs/1812.06127, appendix C.1 (there drawn at random).
    """

    kind: Literal["quantity"] = "quantity"
    law: Literal["power", "log_normal"] = "power"
    """How sizes fall off: a power law, or log-normal."""
    skew: float = 1.0
    """The exponent of the power law, or the deviation of the logarithm; near 0 all are alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require.positive(skew=self.skew)
        if self.skew > 10:
            raise BadArgument(f"skew={self.skew} must be at most 10")

    def _shares(self, total: int) -> Shares:
        """(parties,): one each, and the rest by the law; what rounding leaves goes to those that
        it took most from, the first of them where they are equal."""
        count = len(self.names)
        if self.law == "power":
            logs = -self.skew * np.log(np.arange(1, count + 1))
        else:
            middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
            logs = -self.skew * torch.special.ndtri(middles).numpy()
        weights = np.exp(logs - logs.max())
        ideal = (total - count) * (weights / math.fsum(weights.tolist()))
        whole = np.floor(ideal)
        missing = int(total - count - whole.sum())
        whole[np.argsort(whole - ideal, kind="stable")[:missing]] += 1
        return 1 + whole.astype(np.int64)

    def _owners(self, labels: NDArray[np.generic], shares: Shares, source: Source) -> Shares:
        return _at_random(shares, source)


@dataclass(frozen=True, kw_only=True)
class LabelSorted(_Simulated):
    """Simulated parties with few classes each: units sorted by class and cut into shards, of which
    each party gets a few at random.

    Parties have equal sizes. With two shards most parties see two classes: the pathological split
    of McMahan et al. 2017, https://arxiv.org/abs/1602.05629, section 3. Within a class the order is
    random; of a regression the targets are sorted.
    """

    kind: Literal["label_sorted"] = "label_sorted"
    shards: int = 2
    """Shards of each party."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require.at_least(1, shards=self.shards)

    def declared_sizes(self, total: int) -> Sizes:
        """Party -> units: equal shares. Raises `Incompatible` where a shard would hold no unit."""
        sizes = super().declared_sizes(total)
        if sizes.least[1] < self.shards:
            raise Incompatible(
                f"a party has {sizes.least[1]} of {total} units and {self.shards} shards, so a "
                "shard would be empty; use fewer `shards` or fewer parties"
            )
        return sizes

    def _owners(self, labels: NDArray[np.generic], shares: Shares, source: Source) -> Shares:
        order = source.stream().permutation(len(labels)).numpy()
        order = order[np.argsort(labels[order], kind="stable")]
        pieces = shares[:, None] // self.shards
        pieces = pieces + (np.arange(self.shards) < (shares % self.shards)[:, None])
        dealt = source.child("shards").stream().permutation(pieces.size).numpy()
        owners = np.empty(len(labels), dtype=np.int64)
        owners[order] = np.repeat(dealt // self.shards, pieces.reshape(-1)[dealt])
        return owners


@dataclass(frozen=True, kw_only=True)
class Dirichlet(_Simulated):
    """Simulated parties with unequal classes: each fills up by a class mixture of its own.

    Parties have equal sizes. Each draws its mixture from a symmetric Dirichlet distribution, then
    takes units of these classes until it is full; a class that has run out is replaced by what is
    left. Source: Hsu, Qi and Brown 2019, https://arxiv.org/abs/1909.06335, section 3.1.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float
    """How alike the parties are: near 0 a class or two each, large almost equal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1e-3 <= self.alpha <= 1e6:
            raise BadArgument(f"alpha={self.alpha} must lie between 0.001 and 1000000")

    def split(self, rows: Rows, unit: Unit, seed: int) -> Dealt:
        """Party -> its rows; a group stays in one party and counts as the class of its first row.

        Raises `Incompatible` for regression, which has no classes.
        """
        if rows.label.is_floating_point():
            raise Incompatible(
                "parties `dirichlet` differ in their classes and a regression has none; use "
                "`kind: uniform` or `kind: column`"
            )
        return super().split(rows, unit, seed)

    def _owners(self, labels: NDArray[np.generic], shares: Shares, source: Source) -> Shares:
        order = source.stream().permutation(len(labels)).numpy()
        pools = [order[labels[order] == value] for value in np.unique(labels)]
        # A simulation of who holds what: any good generator will do, a secret one is not needed.
        generator = np.random.default_rng(source.child("dirichlet").stream().seed())
        left = np.array([len(pool) for pool in pools])
        counts = [
            _filled(
                some, generator.dirichlet([self.alpha] * len(pools), len(some)), left, generator
            )
            for some in np.split(shares, range(_BLOCK, len(shares), _BLOCK))
        ]
        owners = np.empty(len(labels), dtype=np.int64)
        places = np.arange(len(shares))
        for pool, taken in zip(pools, np.concatenate(counts).T, strict=True):
            owners[pool] = np.repeat(places, taken)
        return owners


_BLOCK = 1 << 16  # parties at a time


def _at_random(shares: Shares, source: Source) -> Shares:
    """(U,): a random order of the units, cut where a party's share ends."""
    owners = np.empty(int(shares.sum()), dtype=np.int64)
    order = source.stream().permutation(len(owners)).numpy()
    owners[order] = np.repeat(np.arange(len(shares)), shares)
    return owners


def _filled(
    shares: Shares,  # (P,) units of each party
    mixtures: NDArray[np.float64],  # (P, C)
    left: Shares,  # (C,) units of each class that nobody has; lowered in place
    generator: np.random.Generator,
) -> Shares:
    """(P, C): how many of each class each party takes, the parties one after another.

    Draws by a mixture, of which those of a class that has run out are thrown away and drawn anew,
    are draws by the mixture over what is left. So as many parties as it lasts for are drawn
    at once, and the one that empties a class by itself.
    """
    counts = np.zeros(mixtures.shape, dtype=np.int64)
    place = 0
    while place < len(shares):
        weights = _over(mixtures[place:], left)
        drawn = generator.multinomial(shares[place:], weights)
        short = np.flatnonzero((np.cumsum(drawn, axis=0) > left).any(axis=1))
        whole = int(short[0]) if len(short) else len(drawn)
        counts[place : place + whole] = drawn[:whole]
        left -= drawn[:whole].sum(axis=0)
        place += whole
        if place < len(shares):
            taken = np.minimum(drawn[whole], left)
            while True:
                counts[place] += taken
                left -= taken
                missing = int(shares[place] - counts[place].sum())
                if not missing:
                    break
                again = generator.multinomial(missing, _over(mixtures[place : place + 1], left)[0])
                taken = np.minimum(again, left)
            place += 1
    return counts


def _over(mixtures: NDArray[np.float64], left: Shares) -> NDArray[np.float64]:
    """(P, C): the mixtures over the classes that have units left; where a mixture has none of them,
    in proportion to what is left."""
    weights = np.where(left > 0, mixtures, 0.0)
    empty = ~(weights.sum(axis=1) > 0)
    weights[empty] = left
    return weights / weights.sum(axis=1, keepdims=True)
