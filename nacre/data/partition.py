"""Units dealt to parties: by a column that says who holds them, or as a simulation."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nacre.core.errors import BadArgument, DataError, Incompatible
from nacre.core.random import Source
from nacre.core.types import Unit
from nacre.data.dataset import Rows


@dataclass(frozen=True, kw_only=True)
class ByColumn:
    """Each row belongs to the party that its party column names."""

    kind: Literal["column"] = "column"
    column: str
    """The party column; the same as `party` under `data`."""
    sizes: dict[str, int]
    """Party: its declared number of private units."""

    def __post_init__(self) -> None:
        _check_names("sizes", tuple(self.sizes))
        for name, size in self.sizes.items():
            if size < 1:
                raise BadArgument(f"sizes: {name}={size} must be at least 1")

    @property
    def names(self) -> tuple[str, ...]:
        """The parties, in the declared order."""
        return tuple(self.sizes)

    def declared_sizes(self, total: int) -> dict[str, int]:
        """Party -> units, as declared. Raises `Incompatible` where they do not cover `total`.

        They may add up to more: a group with rows in two parties is a unit of both.
        """
        declared = sum(self.sizes.values())
        if declared < total:
            raise Incompatible(
                f"the parties' sizes add up to {declared} and `data.size` is {total}, so some "
                "units have no party; correct one of them (both count what the holdout leaves)"
            )
        return dict(self.sizes)

    def split(self, rows: Rows, unit: Unit, seed: int) -> dict[str, Rows]:
        """Party -> its rows. Raises `DataError` for an unknown party or one without rows."""
        if rows.party is None:
            raise DataError(
                f"the data name no parties, so {self.column!r} cannot tell who holds a row; set "
                "`party` under `data`"
            )
        places: dict[str, list[int]] = {name: [] for name in self.sizes}
        for place, name in enumerate(rows.party):
            if name not in places:
                raise DataError(
                    f"column {self.column!r} names party {name!r}, which `sizes` does not "
                    "declare; add it there or leave its rows out"
                )
            places[name].append(place)
        for name, held in places.items():
            if not held:
                raise DataError(
                    f"no row of column {self.column!r} belongs to party {name!r}; remove it from "
                    "`sizes` or correct its name"
                )
        return {name: rows.take(held) for name, held in places.items()}


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Simulated parties: units dealt evenly, in a random order fixed by the seed."""

    kind: Literal["uniform"] = "uniform"
    names: tuple[str, ...]
    """The parties."""

    def __post_init__(self) -> None:
        _check_names("names", self.names)

    def declared_sizes(self, total: int) -> dict[str, int]:
        """Party -> units: equal shares, the first parties one more where they do not divide."""
        return _equal(self.names, total)

    def split(self, rows: Rows, unit: Unit, seed: int) -> dict[str, Rows]:
        """Party -> its rows; a group stays in one party."""
        units = _units(rows, unit)
        order = _source(seed).stream().permutation(len(units)).tolist()
        dealt: dict[str, list[int]] = {}
        start = 0
        for name, size in _enough(self.names, len(units)).items():
            dealt[name] = order[start : start + size]
            start += size
        return _gathered(rows, units, dealt)


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """Simulated parties with unequal classes: each fills up by a class mixture of its own.

    Parties have equal sizes. Each draws its mixture from a symmetric Dirichlet distribution, then
    takes units of these classes until it is full; a class that has run out is replaced by what is
    left. Source: Hsu, Qi and Brown 2019, https://arxiv.org/abs/1909.06335, section 3.1.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    names: tuple[str, ...]
    """The parties."""
    alpha: float
    """How alike the parties are: near 0 a class or two each, large almost equal."""

    def __post_init__(self) -> None:
        _check_names("names", self.names)
        if not 1e-3 <= self.alpha <= 1e6:
            raise BadArgument(f"alpha={self.alpha} must lie between 0.001 and 1000000")

    def declared_sizes(self, total: int) -> dict[str, int]:
        """Party -> units: equal shares, the first parties one more where they do not divide."""
        return _equal(self.names, total)

    def split(self, rows: Rows, unit: Unit, seed: int) -> dict[str, Rows]:
        """Party -> its rows; a group stays in one party and counts as the class of its first row.

        Raises `Incompatible` for regression, which has no classes.
        """
        if rows.label.is_floating_point():
            raise Incompatible(
                "parties `dirichlet` differ in their classes and a regression has none; use "
                "`kind: uniform` or `kind: column`"
            )
        units = _units(rows, unit)
        classes = np.array([int(rows.label[places[0]]) for places in units])
        source = _source(seed)
        order = source.stream().permutation(len(units)).numpy()
        pools = [order[classes[order] == value].tolist() for value in np.unique(classes)]
        # A simulation of who holds what: any good generator will do, a secret one is not needed.
        generator = np.random.default_rng(source.child("dirichlet").stream().seed())
        dealt: dict[str, list[int]] = {}
        for name, size in _enough(self.names, len(units)).items():
            mixture = generator.dirichlet([self.alpha] * len(pools))
            dealt[name] = [_taken(pools, mixture, generator) for _ in range(size)]
        return _gathered(rows, units, dealt)


PartitionOption = ByColumn | Uniform | Dirichlet


def _check_names(key: str, names: Sequence[str]) -> None:
    if not names:
        raise BadArgument(f"{key} must name at least one party")
    for name in names:
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise BadArgument(f"{key}: {name!r} must be a printable name without slashes")
    if len(set(names)) < len(names):
        raise BadArgument(f"{key}={tuple(names)} must differ from each other")


def _equal(names: Sequence[str], total: int) -> dict[str, int]:
    if total < len(names):
        raise Incompatible(
            f"{len(names)} parties are named and there are {total} units, so a party would have "
            "none; name fewer parties"
        )
    share, more = divmod(total, len(names))
    return {name: share + (i < more) for i, name in enumerate(names)}


def _enough(names: Sequence[str], units: int) -> dict[str, int]:
    """Equal sizes of parties none of which is empty. Raises `DataError`."""
    if units < len(names):
        raise DataError(
            f"the private rows hold fewer units than the {len(names)} parties named, so a party "
            "would have none; name fewer parties"
        )
    return _equal(names, units)


def _source(seed: int) -> Source:
    return Source(hashlib.sha256(f"nacre parties {seed}".encode()).digest())


def _units(rows: Rows, unit: Unit) -> list[list[int]]:
    """The rows of each unit; groups in the order of their names."""
    if unit != "group" or rows.group is None:
        return [[place] for place in range(len(rows))]
    members: dict[str, list[int]] = {}
    for place, name in enumerate(rows.group):
        members.setdefault(name, []).append(place)
    return [members[name] for name in sorted(members)]


def _gathered(rows: Rows, units: list[list[int]], dealt: dict[str, list[int]]) -> dict[str, Rows]:
    """Party -> the rows of the units dealt to it, in the order of the file."""
    return {
        name: rows.take(sorted(place for i in chosen for place in units[i]))
        for name, chosen in dealt.items()
    }


def _taken(pools: list[list[int]], mixture: np.ndarray, generator: np.random.Generator) -> int:
    """One unit, removed from a class drawn from `mixture` among those that have units left."""
    left = np.array([len(pool) for pool in pools], dtype=float)
    weights = np.where(left > 0, mixture, 0.0)
    if not weights.sum() > 0:
        weights = left
    return pools[generator.choice(len(pools), p=weights / weights.sum())].pop()
